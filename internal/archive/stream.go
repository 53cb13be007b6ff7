package archive

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// stream is the tar of a dump, read and decompressed ahead by a goroutine.
type stream struct {
	src  *source
	pool pool
	full chan filled
	quit chan struct{}
	done chan struct{}

	cur *piece
	pos int // in cur
	err error
}

// filled is a piece of the tar, or the error that ends it: io.EOF only where the
// compression ended as it should.
type filled struct {
	piece *piece
	err   error
}

// source remembers the error of the file itself: a decompressor may hide it
// behind one of its own.
type source struct {
	r   io.Reader
	err atomic.Pointer[error]
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && err != io.EOF {
		s.err.Store(&err)
	}
	return n, err
}

const (
	streamPieces = 6
	sniffSize    = 265 // up to and with the magic of a tar

	// maxWindow is the most memory that a zstd frame may ask for: the default
	// limit of the zstd tool.
	maxWindow = 128 << 20

	// maxIdle is how often a reader may give nothing, and no error.
	maxIdle = 100
)

var (
	gzipMagic = []byte{0x1f, 0x8b}
	zstdMagic = []byte{0x28, 0xb5, 0x2f, 0xfd}
	tarMagic  = []byte("ustar")
)

// newStream looks at the first bytes of r. The stream must be closed.
func newStream(r io.Reader) (*stream, error) {
	s := &stream{
		src:  &source{r: r},
		pool: newPool(streamPieces, nonePiece),
		full: make(chan filled, streamPieces+1),
		quit: make(chan struct{}),
		done: make(chan struct{}),
	}
	b := bufio.NewReaderSize(s.src, 128<<10)
	start, err := b.Peek(sniffSize)
	if err != nil && err != io.EOF {
		return nil, s.explain(err)
	}
	begins := func(magic []byte) bool { return bytes.HasPrefix(start, magic) }
	short := func(magic []byte) bool { return len(start) < len(magic) && bytes.HasPrefix(magic, start) }
	var (
		in    io.Reader = b
		after           = func() {}
	)
	switch {
	case begins(gzipMagic):
		in = &members{src: b}
	case begins(zstdMagic):
		z, err := zstd.NewReader(b, zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderLowmem(true))
		if err != nil {
			return nil, fmt.Errorf("make zstd decoder: %w", err)
		}
		in, after = z, z.Close
	case len(start) == sniffSize && bytes.Equal(start[257:262], tarMagic):
	case short(gzipMagic), short(zstdMagic),
		len(start) < sniffSize && begins([]byte(ManifestName)), short([]byte(ManifestName)):
		return nil, fmt.Errorf("%w: it ends after %d bytes", ErrIncomplete, len(start))
	default:
		return nil, fmt.Errorf("%w: it is neither gzip, zstd nor tar", ErrNotDump)
	}
	go func() {
		defer close(s.done)
		defer after()
		s.fill(in)
	}()
	return s, nil
}

func (s *stream) fill(in io.Reader) {
	for {
		var p *piece
		select {
		case p = <-s.pool:
			p.fresh()
		case <-s.quit:
			return
		}
		var err error
		p.buf, err = readUpTo(in, p.buf)
		s.full <- filled{p, err}
		if err != nil {
			return
		}
	}
}

// readUpTo fills buf to its capacity. Unlike io.ReadFull it leaves errors as they
// are: io.EOF is the end, io.ErrUnexpectedEOF a cut.
func readUpTo(in io.Reader, buf []byte) ([]byte, error) {
	for idle := 0; len(buf) < cap(buf); {
		n, err := in.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if err != nil {
			return buf, err
		}
		if n > 0 {
			idle = 0
		} else if idle++; idle > maxIdle {
			return buf, io.ErrNoProgress
		}
	}
	return buf, nil
}

// next gives up to limit bytes of the tar, which are s.cur's and stay until the
// next call. What is to be kept longer needs a reference of its own.
func (s *stream) next(limit int64) ([]byte, error) {
	for s.cur == nil || s.pos == len(s.cur.buf) {
		if s.err != nil {
			return nil, s.err
		}
		if s.cur != nil {
			s.cur.release()
		}
		f := <-s.full
		s.cur, s.pos, s.err = f.piece, 0, f.err
	}
	data := s.cur.buf[s.pos:]
	data = data[:min(int64(len(data)), limit)]
	s.pos += len(data)
	return data, nil
}

// readFull fills p.
func (s *stream) readFull(p []byte) error {
	for len(p) > 0 {
		data, err := s.next(int64(len(p)))
		if err != nil {
			return err
		}
		p = p[copy(p, data):]
	}
	return nil
}

// explain sorts the error of a read: the file's own, a cut, or damage.
func (s *stream) explain(err error) error {
	if own := s.src.err.Load(); own != nil {
		if errors.Is(*own, io.ErrUnexpectedEOF) {
			return fmt.Errorf("%w: %w", ErrIncomplete, *own)
		}
		return fmt.Errorf("read the dump: %w", *own)
	}
	if err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: its end is missing", ErrIncomplete)
	}
	return &DamageError{Reason: err.Error()}
}

// close ends the goroutine. It waits for a Read of the file that is under way.
func (s *stream) close() {
	close(s.quit)
	<-s.done
}

// members reads gzip members, one after the other. gzip.Reader does so too, but
// takes some headers that were cut for the end.
type members struct {
	src *bufio.Reader
	z   *gzip.Reader
	mid bool // in a member
}

func (m *members) Read(p []byte) (int, error) {
	for {
		if !m.mid {
			if _, err := m.src.Peek(1); err != nil {
				return 0, err // io.EOF between members is the end
			}
			if err := m.open(); err != nil {
				if err == io.EOF {
					err = io.ErrUnexpectedEOF
				}
				return 0, err
			}
			m.mid = true
		}
		n, err := m.z.Read(p)
		if err == io.EOF {
			m.mid, err = false, nil
		}
		if n > 0 || err != nil || len(p) == 0 {
			return n, err
		}
	}
}

func (m *members) open() error {
	if m.z == nil {
		z, err := gzip.NewReader(m.src)
		if err != nil {
			return err
		}
		m.z = z
	} else if err := m.z.Reset(m.src); err != nil {
		return err
	}
	m.z.Multistream(false)
	return nil
}
