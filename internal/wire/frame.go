package wire

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"iter"
)

// MaxFrame bounds a frame's payload, in bytes.
const MaxFrame = 64 << 20

// dataFrame is how much of a file one frame carries, in bytes.
const dataFrame = 256 << 10

const magic = "promdump"

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

type kind byte

const (
	kindPlan kind = iota + 1
	kindFile
	kindData // the next bytes of the file begun before
	kindBlockStart
	kindSymbols
	kindSeries
	kindBlockEnd
	kindHeadStart
	kindRecords
	kindHeadEnd
	kindEnd
	kindFailure
)

// VersionError says that the other side speaks another version.
type VersionError struct{ Version int }

func (e *VersionError) Error() string {
	return fmt.Sprintf("the other side speaks version %d of the wire format, this promdump speaks %d", e.Version, Version)
}

// Failure is an error of the far side, told in place of the rest of its story.
type Failure struct {
	Text string `json:"text"`
	Hint string `json:"hint,omitempty"`
}

func (e *Failure) Error() string { return e.Text }

// FrameError says that what came is no frame, or no payload of its kind.
type FrameError struct{ Reason string }

func (e *FrameError) Error() string { return "the stream is damaged: " + e.Reason }

// Writer writes messages as frames.
type Writer struct {
	w    *bufio.Writer
	buf  []byte // payload of the frame that is made
	data []byte
}

// NewWriter begins a stream.
func NewWriter(w io.Writer) (*Writer, error) {
	out := &Writer{w: bufio.NewWriterSize(w, 64<<10)}
	out.w.WriteString(magic)
	return out, out.w.WriteByte(Version)
}

// Write writes one message; of a file also all its bytes.
func (w *Writer) Write(m Message) error {
	k, text, err := w.encode(m)
	if err != nil {
		return err
	}
	if text != nil {
		if w.buf, err = json.Marshal(text); err != nil {
			return fmt.Errorf("encode %T: %w", m, err)
		}
	}
	if err := w.frame(k, w.buf); err != nil {
		return err
	}
	if f, ok := m.(*File); ok {
		return w.body(f)
	}
	return nil
}

// Fail tells an error in place of the rest of the story.
func (w *Writer) Fail(f Failure) error {
	b, err := json.Marshal(f)
	if err != nil {
		return err
	}
	if err := w.frame(kindFailure, b); err != nil {
		return err
	}
	return w.Flush()
}

// Flush sends what is buffered.
func (w *Writer) Flush() error { return w.w.Flush() }

func (w *Writer) body(f *File) error {
	if w.data == nil {
		w.data = make([]byte, dataFrame)
	}
	for left := f.Size; left > 0; {
		b := w.data[:min(left, dataFrame)]
		if _, err := io.ReadFull(f.Body, b); err != nil {
			return fmt.Errorf("read %s: %w", f.Name, noEOF(err))
		}
		if err := w.frame(kindData, b); err != nil {
			return err
		}
		left -= int64(len(b))
	}
	return nil
}

func (w *Writer) frame(k kind, payload []byte) error {
	if len(payload) > MaxFrame {
		return fmt.Errorf("a message of %d bytes is beyond the %d bytes of a frame", len(payload), MaxFrame)
	}
	var head [1 + binary.MaxVarintLen32]byte
	head[0] = byte(k)
	n := 1 + binary.PutUvarint(head[1:], uint64(len(payload)))
	w.w.Write(head[:n])
	w.w.Write(payload)
	var sum [4]byte
	binary.LittleEndian.PutUint32(sum[:], checksum(k, payload))
	_, err := w.w.Write(sum[:]) // a bufio.Writer keeps its first error
	return err
}

func checksum(k kind, payload []byte) uint32 {
	return crc32.Update(crc32.Checksum([]byte{byte(k)}, castagnoli), castagnoli, payload)
}

// Reader reads messages from frames.
type Reader struct {
	r     *bufio.Reader
	begun bool
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
	if !r.begun {
		if err := r.begin(); err != nil {
			return nil, err
		}
		r.begun = true
	}
	if r.file != nil && r.file.left > 0 {
		return nil, errors.New("the file before was not read to its end")
	}
	r.file = nil
	k, payload, err := r.frame()
	if err != nil {
		return nil, err
	}
	m, err := decode(k, payload)
	if err != nil {
		return nil, err
	}
	if f, ok := m.(*File); ok {
		r.file = &fileBody{r: r, left: f.Size}
		f.Body = r.file
	}
	return m, nil
}

func (r *Reader) begin() error {
	var head [len(magic) + 1]byte
	if _, err := io.ReadFull(r.r, head[:]); err != nil {
		return noEOF(err)
	}
	if string(head[:len(magic)]) != magic {
		return &FrameError{fmt.Sprintf("it begins with %q", head[:])}
	}
	if v := int(head[len(magic)]); v != Version {
		return &VersionError{v}
	}
	return nil
}

func (r *Reader) frame() (kind, []byte, error) {
	k, err := r.r.ReadByte()
	if err != nil {
		return 0, nil, noEOF(err)
	}
	size, err := binary.ReadUvarint(r.r)
	if err != nil {
		return 0, nil, noEOF(err)
	}
	if size > MaxFrame {
		return 0, nil, &FrameError{fmt.Sprintf("a frame of %d bytes", size)}
	}
	if r.buf, err = readN(r.r, r.buf[:0], int(size)); err != nil {
		return 0, nil, noEOF(err)
	}
	var sum [4]byte
	if _, err := io.ReadFull(r.r, sum[:]); err != nil {
		return 0, nil, noEOF(err)
	}
	if binary.LittleEndian.Uint32(sum[:]) != checksum(kind(k), r.buf) {
		return 0, nil, &FrameError{"the checksum of a frame differs"}
	}
	return kind(k), r.buf, nil
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
		k, payload, err := b.r.frame()
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
