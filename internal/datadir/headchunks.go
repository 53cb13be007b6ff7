package datadir

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"iter"

	"github.com/prometheus/prometheus/tsdb/chunks"
)

// HeadChunk is an m-mapped chunk: a full chunk of a series of the head. A server serves it
// even if the log no longer has its samples.
type HeadChunk struct {
	Ref              uint64 // of the series, as in the series records of the WAL
	MinTime, MaxTime int64  // of the first and last sample, Unix milliseconds, inclusive
	Encoding         uint8  // chunkenc.Encoding
	OutOfOrder       bool
	Data             []byte // of the chunk, without encoding and checksum
}

// HeadChunks yields the m-mapped chunks in the order in which the server wrote them. A
// chunk is valid until the next one.
//
// HeadChunks calls damaged for each part that it cannot read, and continues at the next
// complete chunk. An incomplete chunk at the end of the last file is not damage. An error
// ends the sequence; it is a failure to read a file, or that of ctx.
func (h *Head) HeadChunks(ctx context.Context, damaged func(Damage)) iter.Seq2[HeadChunk, error] {
	return func(yield func(HeadChunk, error) bool) {
		seq := sequence{next: anySegment}
		for i, f := range h.Chunks {
			for _, d := range seq.take(f) {
				damaged(d)
			}
			r := newChunkFileReader(f, i == len(h.Chunks)-1, damaged)
			for r.next() {
				if err := ctx.Err(); err != nil {
					yield(HeadChunk{}, err)
					return
				}
				if !yield(r.chunk, nil) {
					return
				}
			}
			if r.err != nil {
				yield(HeadChunk{}, r.err)
				return
			}
		}
	}
}

// Format of a file of m-mapped chunks (tsdb/docs/format/head_chunks.md): a header, then
// chunks. A chunk has a series ref, first and last time, encoding, length, data and
// checksum. Servers preallocate the file; the unwritten rest is zeros.
const (
	chunksHeader  = chunks.HeadChunkFileHeaderSize
	chunkTimes    = 8 + 8 + 8 // ref, first and last time
	chunkHeader   = chunkTimes + 1
	maxHeadChunk  = 16 << 20 // bytes of data; far more than any server writes
	outOfOrderBit = 1 << 7   // of the encoding
)

var (
	errChunkHeader   = errors.New("a chunk has an invalid header")
	errChunkChecksum = errors.New("a chunk has a bad checksum")
	errChunkFile     = errors.New("the file does not have the header of a head chunk file")
	errZeros         = errors.New("there are zeros between chunks")
	errChunkFileSize = errors.New("the file is shorter than its header")
)

// chunkFileReader reads one file of m-mapped chunks.
type chunkFileReader struct {
	f       *File
	last    bool // a server may be writing to the file
	damaged func(Damage)

	ahead    readBuffer
	off      int64     // of the next chunk
	whole    int64     // where the last complete chunk ends; 0 if the header is incomplete
	chunk    HeadChunk // read by next
	found    *Damage   // not reported yet: it may be the torn end of the last file
	reported bool      // damage was reported
	err      error     // failure to read the file
}

// newChunkFileReader returns a reader of f that calls damaged for each damage. last allows
// an incomplete chunk at the end.
func newChunkFileReader(f *File, last bool, damaged func(Damage)) *chunkFileReader {
	r := &chunkFileReader{f: f, last: last, damaged: damaged, ahead: readBuffer{f: f}, off: chunksHeader}
	switch head, err := r.ahead.at(0, chunksHeader); {
	case err != nil:
		r.err = err
	case len(head) < chunksHeader:
		r.off = f.Size
		// A server that starts removes the last file if it is too short.
		r.found = &Damage{File: f.Name, Bytes: f.Size, Err: errChunkFileSize, Fatal: !last}
	case binary.BigEndian.Uint32(head) != chunks.MagicHeadChunks || head[4] != 1:
		r.found = &Damage{File: f.Name, Bytes: chunksHeader, Err: errChunkFile, Fatal: true}
		r.report(chunksHeader)
	default:
		r.whole = chunksHeader
	}
	return r
}

// next reads the next complete chunk into r.chunk. It returns false at the end of the file
// and after a failure to read, which sets r.err.
func (r *chunkFileReader) next() bool {
	for r.err == nil {
		size, err := r.parse(r.off)
		if r.err != nil {
			return false
		}
		if err == nil && size > 0 {
			r.report(r.off)
			r.off += size
			r.whole = r.off
			return true
		}
		if err == nil { // zeros: the end, or chunks that a crash overwrote with zeros
			rest := r.zerosEnd(r.off)
			if rest == r.f.Size {
				break
			}
			err = errZeros
		}
		if r.found == nil {
			r.found = &Damage{File: r.f.Name, Offset: r.off, Err: err}
		}
		r.off = r.resume(r.off, size)
	}
	if !r.last && r.err == nil {
		r.report(r.f.Size)
	}
	return false
}

// parse reads the chunk at an offset into r.chunk and returns its size. The size is 0 at
// the end of the written part. With an error it is the size according to the chunk's
// header, or 0 if the header is invalid.
func (r *chunkFileReader) parse(off int64) (size int64, err error) {
	head := r.at(off, chunkHeader+binary.MaxVarintLen32)
	if len(bytes.TrimLeft(head[:min(len(head), chunkTimes)], "\x00")) == 0 {
		return 0, nil
	}
	if len(head) < chunkHeader+1 {
		return 0, errChunkHeader
	}
	length, n := binary.Uvarint(head[chunkHeader:])
	if n <= 0 || length == 0 || length > maxHeadChunk {
		return 0, errChunkHeader
	}
	begin := chunkHeader + n
	size = int64(begin) + int64(length) + crc32.Size
	if size > r.f.Size-off {
		return 0, errChunkHeader
	}
	b := r.at(off, int(size))
	if int64(len(b)) < size {
		return 0, errChunkHeader
	}
	body := b[:len(b)-crc32.Size]
	if crc32.Checksum(body, castagnoli) != binary.BigEndian.Uint32(b[len(body):]) {
		return size, errChunkChecksum
	}
	r.chunk = HeadChunk{
		Ref:     binary.BigEndian.Uint64(b),
		MinTime: int64(binary.BigEndian.Uint64(b[8:])), MaxTime: int64(binary.BigEndian.Uint64(b[16:])),
		Encoding: b[chunkTimes] &^ outOfOrderBit, OutOfOrder: b[chunkTimes]&outOfOrderBit != 0,
		Data: body[begin:],
	}
	return size, nil
}

// resume returns the offset where reading continues after damage: after the damaged chunk
// if a chunk or the end follows there, otherwise the next offset of a valid chunk.
func (r *chunkFileReader) resume(off, size int64) int64 {
	if size > 0 {
		if _, err := r.parse(off + size); err == nil {
			return off + size
		}
	}
	// Zeros are skipped, except those at the start of a ref.
	off = max(off+1, r.zerosEnd(off)-8)
	for ; off < r.f.Size && r.err == nil; off++ {
		// The checksum decides. This check avoids computing it at every offset.
		head := r.at(off, chunkHeader)
		const plausibleRef, plausibleSpan = 1 << 40, 1 << 40 // milliseconds
		if len(head) < chunkHeader {
			break
		}
		ref := binary.BigEndian.Uint64(head)
		from, to := int64(binary.BigEndian.Uint64(head[8:])), int64(binary.BigEndian.Uint64(head[16:]))
		if ref == 0 || ref >= plausibleRef || from > to || uint64(to-from) >= plausibleSpan {
			continue
		}
		if n, err := r.parse(off); err == nil && n > 0 {
			return off
		}
	}
	return r.f.Size
}

// zerosEnd returns the offset of the first byte from off that is not zero, or the size of
// the file.
func (r *chunkFileReader) zerosEnd(off int64) int64 {
	for off < r.f.Size {
		b := r.at(off, readAhead)
		rest := bytes.TrimLeft(b, "\x00")
		if off += int64(len(b) - len(rest)); len(rest) > 0 || len(b) == 0 {
			break
		}
	}
	return off
}

// at returns the n bytes at off, or fewer at the end of the file. It sets r.err if they
// cannot be read.
func (r *chunkFileReader) at(off int64, n int) []byte {
	b, err := r.ahead.at(off, n)
	if err != nil {
		r.err = err
	}
	return b
}

// report reports the damage found, if any, which ends at end. It is called when a complete
// chunk or another file follows the damage.
func (r *chunkFileReader) report(end int64) {
	if r.found != nil {
		r.found.Bytes = end - r.found.Offset
		r.damaged(*r.found)
		r.found, r.reported = nil, true
	}
}

// readBuffer buffers reads of a file at increasing offsets.
type readBuffer struct {
	f   *File
	off int64
	buf []byte
}

// at returns the n bytes at off, or fewer at the end of the file. They are valid until
// the next call.
func (b *readBuffer) at(off int64, n int) ([]byte, error) {
	n = int(max(0, min(int64(n), b.f.Size-off)))
	if off < b.off || off+int64(n) > b.off+int64(len(b.buf)) {
		size := int(min(max(int64(n), readAhead), b.f.Size-off))
		if cap(b.buf) < size {
			b.buf = make([]byte, size)
		}
		b.off, b.buf = off, b.buf[:size]
		if read, err := b.f.ReadAt(b.buf, off); read < size {
			b.buf = b.buf[:0]
			if err == nil || errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF // truncated since it was opened
			}
			return nil, fmt.Errorf("read %s at byte %d: %w", b.f.Name, off+int64(read), err)
		}
	}
	return b.buf[off-b.off:][:n], nil
}
