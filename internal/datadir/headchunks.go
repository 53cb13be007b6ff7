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

// HeadChunk is an m-mapped chunk: a full chunk of a series of the head. A server
// serves it whether or not the log still has its samples.
type HeadChunk struct {
	Ref              uint64 // of the series; a series record of the WAL names it
	MinTime, MaxTime int64  // of its first and last sample, Unix milliseconds, both included
	Encoding         uint8  // as in chunkenc.Encoding
	OutOfOrder       bool
	Data             []byte
}

// HeadChunks yields the m-mapped chunks in the order in which the server wrote
// them. A chunk is valid until the next one.
//
// What cannot be read is passed to damaged and left out: reading goes on at the
// next whole chunk. The last file may end within a chunk. An error of the sequence
// is one of the disk, and ends it.
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

// A file of head chunks, see tsdb/docs/format/head_chunks.md: a header, then chunks
// of series ref, first and last time, encoding, length, data and checksum. Servers
// make the file longer than what they have written; the rest is zeros.
const (
	chunksHeader  = chunks.HeadChunkFileHeaderSize
	chunkTimes    = 8 + 8 + 8 // ref, first and last time
	chunkHeader   = chunkTimes + 1
	maxHeadChunk  = 16 << 20 // bytes of data; far more than any server writes
	outOfOrderBit = 1 << 7   // of the encoding
)

var (
	errChunkHeader   = errors.New("the header of a chunk is damaged")
	errChunkChecksum = errors.New("the checksum of a chunk differs")
	errChunkFile     = errors.New("it does not begin as a file of head chunks does")
	errZeros         = errors.New("there are zeros between chunks")
	errChunkFileSize = errors.New("it is shorter than its header")
)

// chunkFileReader reads one file of head chunks.
type chunkFileReader struct {
	f       *File
	last    bool // the server may be writing to it
	damaged func(Damage)

	ahead    readBuffer
	off      int64
	whole    int64 // where the last whole chunk ends; 0 if even the header is not whole
	chunk    HeadChunk
	found    *Damage // not reported yet: it may be the torn end of the last file
	damaging bool    // damage was already reported
	err      error   // of the disk
}

func newChunkFileReader(f *File, last bool, damaged func(Damage)) *chunkFileReader {
	r := &chunkFileReader{f: f, last: last, damaged: damaged, ahead: readBuffer{f: f}, off: chunksHeader}
	switch head, err := r.ahead.at(0, chunksHeader); {
	case err != nil:
		r.err = err
	case len(head) < chunksHeader:
		r.off = f.Size
		// A server removes the last file when it starts and finds it too short.
		r.found = &Damage{File: f.Name, Bytes: f.Size, Err: errChunkFileSize, Fatal: !last}
	case binary.BigEndian.Uint32(head) != chunks.MagicHeadChunks || head[4] != 1:
		r.found = &Damage{File: f.Name, Bytes: chunksHeader, Err: errChunkFile, Fatal: true}
		r.report(chunksHeader)
	default:
		r.whole = chunksHeader
	}
	return r
}

// next reads the next whole chunk.
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
		if err == nil { // the end, unless zeros are all that a crash left of some chunks
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

// parse reads the chunk at an offset into r.chunk. The size is 0 at the end of the
// written part. With an error it is the size from the chunk's header, or 0.
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

// resume finds the offset where reading continues after damage: behind the damaged
// chunk if its length is right, else at the next offset that parses as a chunk.
func (r *chunkFileReader) resume(off, size int64) int64 {
	if size > 0 {
		if _, err := r.parse(off + size); err == nil {
			return off + size
		}
	}
	// Zeros are skipped, except those at the start of a ref.
	off = max(off+1, r.zerosEnd(off)-8)
	for ; off < r.f.Size && r.err == nil; off++ {
		// The checksum decides; this check only avoids computing it at every offset.
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

// zerosEnd returns the end of the zeros that begin at off.
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

func (r *chunkFileReader) at(off int64, n int) []byte {
	b, err := r.ahead.at(off, n)
	if err != nil {
		r.err = err
	}
	return b
}

// report reports damage that is not the torn end of the last file, up to where it
// ends.
func (r *chunkFileReader) report(end int64) {
	if r.found != nil {
		r.found.Bytes = end - r.found.Offset
		r.damaged(*r.found)
		r.found, r.damaging = nil, true
	}
}

// readBuffer reads a file from start to end, and can look ahead.
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
				err = io.ErrUnexpectedEOF // cut short since it was opened
			}
			return nil, fmt.Errorf("read %s at byte %d: %w", b.f.Name, off+int64(read), err)
		}
	}
	return b.buf[off-b.off:][:n], nil
}
