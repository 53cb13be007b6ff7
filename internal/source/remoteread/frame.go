package remoteread

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/prometheus/prometheus/prompb"
)

// maxFrame bounds a frame, in bytes. Prometheus makes them of 1 MiB, or of a
// label set and a chunk when these are larger.
const maxFrame = 64 << 20

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// frames reads the frames of a stream of chunks: the length as a uvarint, the
// CRC-32 of the payload in big endian, and the payload. Prometheus' own reader of
// them takes a stream that is cut right behind a length for one that has ended.
type frames struct {
	r     *bufio.Reader
	buf   []byte
	begun bool
}

func newFrames(r io.Reader) *frames { return &frames{r: bufio.NewReaderSize(r, 64<<10)} }

// next reads the next frame into m. After the last one it gives io.EOF, and for
// a frame that is cut io.ErrUnexpectedEOF.
func (f *frames) next(m *prompb.ChunkedReadResponse) error {
	if _, err := f.r.Peek(1); err != nil {
		return err // the only place where the stream may end
	}
	if !f.begun {
		f.begun = true
		if err := otherAnswer(f.r); err != nil {
			return err
		}
	}
	if text, ok := f.text(); ok {
		return &FrameError{fmt.Sprintf("the server ended it with %q", text)}
	}
	size, err := binary.ReadUvarint(f.r)
	if err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return io.ErrUnexpectedEOF
		}
		return &FrameError{fmt.Sprintf("the length of a frame: %v", err)}
	}
	if size > maxFrame {
		return &FrameError{fmt.Sprintf("a frame of %d bytes", size)}
	}
	var sum [4]byte
	if _, err := io.ReadFull(f.r, sum[:]); err != nil {
		return noEOF(err)
	}
	if err := f.read(int(size)); err != nil {
		return noEOF(err)
	}
	if crc32.Checksum(f.buf, castagnoli) != binary.BigEndian.Uint32(sum[:]) {
		return &FrameError{"the checksum of a frame differs"}
	}
	m.Reset()
	if err := m.Unmarshal(f.buf); err != nil {
		return &FrameError{err.Error()}
	}
	return nil
}

// read fills buf. It grows as bytes come and not as they are promised.
func (f *frames) read(n int) error {
	f.buf = f.buf[:0]
	for len(f.buf) < n {
		step := min(n-len(f.buf), max(1<<20, len(f.buf)))
		from := len(f.buf)
		if cap(f.buf) < from+step {
			grown := make([]byte, from, from+step)
			copy(grown, f.buf)
			f.buf = grown
		}
		f.buf = f.buf[:from+step]
		if _, err := io.ReadFull(f.r, f.buf[from:]); err != nil {
			return err
		}
	}
	return nil
}

// text gives what stands where a frame should if it is the last line of the stream
// and nothing but text: before 3.16 a Prometheus puts its error there. That of a
// frame never is: a frame ends with bytes of a chunk, and begins with numbers.
func (f *frames) text() (string, bool) {
	b, err := f.r.Peek(2048)
	if !errors.Is(err, io.EOF) {
		return "", false // longer, or cut
	}
	s, line := strings.CutSuffix(string(b), "\n")
	if !line || !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) && r != '\n' && r != '\t' }) {
		return "", false
	}
	return s, true
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
