package wire

import (
	"encoding/binary"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"
)

// Codec says how a stream is compressed on its way. Its byte follows the version.
type Codec byte

const (
	Plain Codec = 0

	// Zstd is a stream of segments. The sender compresses those that it can compress
	// faster than the stream takes what that saves.
	Zstd Codec = 'z'
)

// A segment is a part of the stream of frames:
//
//	kind    1 byte: stored or packed
//	length  4 bytes, little endian, of what follows
//	bytes   as they are, or as one zstd frame
//
// It ends where a frame ends, unless that frame is larger than a segment may be.
const (
	stored byte = 0
	packed byte = 1

	segmentHead = 5
	maxSegment  = 2 << 20 // of the bytes, before and after they are compressed
)

// Segments of chunks hardly become smaller if they are longer; those of indexes and
// logs do.
const (
	chunkSegment = 256 << 10
	otherSegment = 1 << 20
	ownSegment   = 64 << 10 // from this size on a segment has one class
)

// class is what a segment mostly holds. Segments of one class compress alike.
type class uint8

const (
	otherClass  class = iota // plans, symbols, small files
	indexClass               // of whole blocks
	logClass                 // WAL and out-of-order WAL as they are: compressed already
	chunkClass               // samples, bit-packed already
	recordClass              // records of the logs, uncompressed
	classes
)

func classOf(name string) class {
	switch {
	case strings.Contains(name, "/chunks/"), strings.HasPrefix(name, "chunks_head/"):
		return chunkClass
	case strings.HasSuffix(name, "/index"):
		return indexClass
	case strings.HasPrefix(name, "wal/"), strings.HasPrefix(name, "wbl/"):
		return logClass
	}
	return otherClass
}

// segments writes a stream as segments, or as it is.
type segments struct {
	w     io.Writer
	plain bool
	class class
	buf   []byte // room for a head, then what was not written yet
	pack  []byte // room for a head, then a compressed segment
	enc   [levels]*zstd.Encoder
	chooser
}

func newSegments(w io.Writer, c Codec) (*segments, error) {
	if c != Plain && c != Zstd {
		return nil, fmt.Errorf("no such codec: %d", c)
	}
	s := &segments{w: w, plain: c == Plain, buf: make([]byte, segmentHead, segmentHead+chunkSegment+1<<10)}
	s.chooser.link.perByte = slowLink
	return s, nil
}

// begin sets the kind of the content that follows.
func (s *segments) begin(c class) error {
	if c == s.class {
		return nil
	}
	if len(s.buf) >= segmentHead+ownSegment {
		if err := s.flush(); err != nil {
			return err
		}
	}
	s.class = c
	return nil
}

// room grows the buffer for n more bytes.
func (s *segments) room(n int) []byte {
	if need := len(s.buf) + n; need > cap(s.buf) {
		size := need
		if s.class != chunkClass {
			size = max(need, segmentHead+otherSegment+chunkSegment+1<<10)
		}
		s.buf = append(make([]byte, 0, size), s.buf...)
	}
	return s.buf
}

// ended is called where a frame ends.
func (s *segments) ended() error {
	limit := otherSegment
	if s.class == chunkClass || s.plain {
		limit = chunkSegment
	}
	if len(s.buf)-segmentHead < limit {
		return nil
	}
	return s.flush()
}

func (s *segments) flush() error {
	all := s.buf
	s.buf = s.buf[:segmentHead]
	if cap(s.buf) > 2*maxSegment {
		s.buf = make([]byte, segmentHead) // of a frame as they seldom are
	}
	if len(all) == segmentHead {
		return nil
	}
	if s.plain {
		_, err := s.w.Write(all[segmentHead:])
		return err
	}
	for len(all) > segmentHead {
		n := min(len(all)-segmentHead, maxSegment)
		if err := s.segment(all[:segmentHead+n]); err != nil {
			return err
		}
		all = all[n:] // the next head lies over bytes that are written
	}
	return nil
}

// segment writes one, whose bytes stand behind room for its head.
func (s *segments) segment(b []byte) error {
	size, kind := len(b)-segmentHead, stored
	if l := s.choose(s.class, size); l != none {
		began := time.Now()
		if err := s.encode(l, b[segmentHead:]); err != nil {
			return err
		}
		n := len(s.pack) - segmentHead
		s.compressed(s.class, l, size, n, time.Since(began))
		if n < size {
			b, kind = s.pack, packed
		}
	}
	b[0] = kind
	binary.LittleEndian.PutUint32(b[1:], uint32(len(b)-segmentHead))
	began := time.Now()
	_, err := s.w.Write(b)
	s.link.took(len(b), time.Since(began))
	return err
}

func (s *segments) encode(l level, b []byte) (err error) {
	if s.enc[l] == nil {
		s.enc[l], err = zstd.NewWriter(nil, zstd.WithEncoderLevel(zstdLevels[l]), zstd.WithEncoderConcurrency(1),
			zstd.WithWindowSize(otherSegment), zstd.WithLowerEncoderMem(true))
		if err != nil {
			return err
		}
	}
	if s.pack == nil {
		s.pack = make([]byte, segmentHead)
	}
	s.pack = s.enc[l].EncodeAll(b, s.pack[:segmentHead])
	return nil
}

// segmentReader reads what segments writes.
type segmentReader struct {
	r   io.Reader
	raw []byte // of a segment, as it came
	out []byte // of a segment, decompressed
	cur []byte // what was not read yet
	dec *zstd.Decoder
}

// next reads a segment into cur.
func (s *segmentReader) next() error {
	var head [segmentHead]byte
	if _, err := io.ReadFull(s.r, head[:]); err != nil {
		return noEOF(err)
	}
	kind, size := head[0], binary.LittleEndian.Uint32(head[1:])
	if kind > packed || size > maxSegment {
		return &FrameError{fmt.Sprintf("a segment of the kind %d and of %d bytes", kind, size)}
	}
	var err error
	if s.raw, err = readN(s.r, s.raw[:0], int(size)); err != nil {
		return noEOF(err)
	}
	if kind == stored {
		s.cur = s.raw
		return nil
	}
	if s.dec == nil {
		s.dec, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxSegment))
		if err != nil {
			return err
		}
	}
	if s.out, err = s.dec.DecodeAll(s.raw, s.out[:0]); err != nil {
		return &FrameError{fmt.Sprintf("a segment cannot be decompressed: %v", err)}
	}
	s.cur = s.out
	return nil
}

// take returns the next n bytes if they lie in one segment, and nil otherwise. They are
// valid until the next segment is read.
func (s *segmentReader) take(n int) []byte {
	if len(s.cur) < n {
		return nil
	}
	b := s.cur[:n:n]
	s.cur = s.cur[n:]
	return b
}

func (s *segmentReader) Read(p []byte) (int, error) {
	for len(s.cur) == 0 {
		if err := s.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, s.cur)
	s.cur = s.cur[n:]
	return n, nil
}

func (s *segmentReader) ReadByte() (byte, error) {
	for len(s.cur) == 0 {
		if err := s.next(); err != nil {
			return 0, err
		}
	}
	b := s.cur[0]
	s.cur = s.cur[1:]
	return b, nil
}
