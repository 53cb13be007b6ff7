package wire

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
)

// Reader reads messages from frames.
type Reader struct {
	r     *bufio.Reader
	segs  *segmentReader // nil: the stream has none
	begun bool           // its header was read
	sum   sum            // of the frames so far
	buf   []byte
	file  *fileBody // the file whose bytes come now, if any
}

// NewReader reads a stream that a Writer wrote.
func NewReader(r io.Reader) *Reader { return &Reader{r: bufio.NewReaderSize(r, 64<<10)} }

// All gives the messages up to and with End, or up to one error. A stream that
// ends before End gives io.ErrUnexpectedEOF.
func (r *Reader) All() iter.Seq2[Message, error] {
	return func(yield func(Message, error) bool) {
		for {
			m, err := r.Next()
			if err != nil {
				yield(nil, err)
				return
			}
			if !yield(m, nil) {
				return
			}
			if _, ok := m.(*End); ok {
				return
			}
		}
	}
}

// Next reads the next message, which is valid until the next call. A file's
// body must be read to its end before. Errors: *VersionError, *FrameError,
// *Failure, io.ErrUnexpectedEOF for a stream that was cut, or what the stream's
// reader gave.
func (r *Reader) Next() (Message, error) {
	if err := r.begin(); err != nil {
		return nil, err
	}
	if r.file != nil && r.file.left > 0 {
		return nil, errors.New("the file before was not read to its end")
	}
	r.file = nil
	k, payload, err := r.next()
	if err != nil {
		return nil, err
	}
	m, err := decode(k, payload)
	if err != nil {
		return nil, err
	}
	if f, ok := m.(*File); ok {
		r.file = &fileBody{r: r, left: f.Size - f.Offset}
		f.Body = r.file
	}
	return m, nil
}

// Answer reads what [Writer.Answer] wrote into v.
func (r *Reader) Answer(v any) error {
	if err := r.begin(); err != nil {
		return err
	}
	k, payload, err := r.next()
	if err != nil {
		return err
	}
	if k == kindFailure {
		_, err := decode(k, payload)
		return err
	}
	if k != kindAnswer {
		return &FrameError{fmt.Sprintf("a frame of kind %d where an answer should be", k)}
	}
	if err := json.Unmarshal(payload, v); err != nil {
		return &FrameError{fmt.Sprintf("%T: %v", v, err)}
	}
	return nil
}

func (r *Reader) begin() error {
	if r.begun {
		return nil
	}
	r.begun = true
	var head [len(magic) + 2]byte
	if _, err := io.ReadFull(r.r, head[:]); err != nil {
		return noEOF(err)
	}
	if string(head[:len(magic)]) != magic {
		return &FrameError{fmt.Sprintf("it begins with %q", head[:])}
	}
	if v := int(head[len(magic)]); v != Version {
		return &VersionError{v}
	}
	switch c := Codec(head[len(magic)+1]); c {
	case Plain:
	case Zstd:
		r.segs = &segmentReader{r: r.r}
	default:
		return &FrameError{fmt.Sprintf("it is compressed by the unknown codec %d", c)}
	}
	return nil
}

// next is the next frame that says something.
func (r *Reader) next() (kind, []byte, error) {
	for {
		k, payload, err := r.frame()
		if err != nil || k != kindKeepAlive {
			return k, payload, err
		}
	}
}

func (r *Reader) frame() (kind, []byte, error) {
	var in interface {
		io.Reader
		io.ByteReader
	} = r.r
	if r.segs != nil {
		in = r.segs
	}
	k, err := in.ReadByte()
	if err != nil {
		return 0, nil, noEOF(err)
	}
	size, err := binary.ReadUvarint(in)
	if err != nil {
		return 0, nil, noEOF(err)
	}
	if size > MaxFrame {
		return 0, nil, &FrameError{fmt.Sprintf("a frame of %d bytes", size)}
	}
	var b []byte
	if r.segs != nil {
		b = r.segs.take(int(size) + 4)
	}
	if b == nil {
		if r.buf, err = readN(in, r.buf[:0], int(size)+4); err != nil {
			return 0, nil, noEOF(err)
		}
		b = r.buf
	}
	payload, stored := b[:size], b[size:]
	c := binary.LittleEndian.Uint32(stored)
	if c != checksum(kind(k), payload) {
		return 0, nil, &FrameError{"the checksum of a frame differs"}
	}
	if kind(k) == kindEnd {
		var whole bool
		if payload, whole = r.sum.take(payload); !whole {
			return 0, nil, &FrameError{"its end does not fit what came before"}
		}
	}
	r.sum.add(c)
	return kind(k), payload, nil
}

// readN reads n bytes into b. It grows b as bytes come and not as they are
// promised.
func readN(r io.Reader, b []byte, n int) ([]byte, error) {
	for len(b) < n {
		step := min(n-len(b), max(1<<20, len(b)))
		from := len(b)
		if cap(b) < from+step {
			grown := make([]byte, from, from+step)
			copy(grown, b)
			b = grown
		}
		b = b[:from+step]
		if _, err := io.ReadFull(r, b[from:]); err != nil {
			return b, err
		}
	}
	return b, nil
}

// fileBody gives the bytes of the data frames that follow a file.
type fileBody struct {
	r    *Reader
	left int64  // bytes not given yet
	now  []byte // of the current frame
}

func (b *fileBody) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, io.EOF
	}
	for len(b.now) == 0 {
		k, payload, err := b.r.next()
		if err != nil {
			return 0, err
		}
		switch {
		case k == kindFailure:
			_, err := decode(k, payload)
			return 0, err
		case k != kindData || int64(len(payload)) > b.left:
			return 0, &FrameError{"a file's bytes are followed by something else before its end"}
		}
		b.now = payload
	}
	n := copy(p, b.now)
	b.now, b.left = b.now[n:], b.left-int64(n)
	return n, nil
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
