package wire

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sync"
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
	kindKeepAlive
	kindAnswer
	kindForget
	kindHeadChunks
)

// VersionError says that the other side speaks another version.
type VersionError struct{ Version int }

func (e *VersionError) Error() string {
	return fmt.Sprintf("the other side speaks version %d of the wire format, this promdump speaks %d", e.Version, Version)
}

// FrameError says that what came is no frame, or no payload of its kind.
type FrameError struct{ Reason string }

func (e *FrameError) Error() string { return "the stream is damaged: " + e.Reason }

// Writer writes messages as frames. It may be used while KeepAlive is called
// elsewhere.
type Writer struct {
	mu     sync.Mutex
	out    *segments
	silent bool // nothing was written since the last KeepAlive
	failed bool // a failure was written, and nothing follows it
	sum    sum  // of the frames so far

	buf []byte // payload of the frame that is made
}

// NewWriter begins a stream.
func NewWriter(w io.Writer, c Codec) (*Writer, error) {
	out, err := newSegments(w, c)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(append([]byte(magic), Version, byte(c))); err != nil {
		return nil, err
	}
	return &Writer{out: out}, nil
}

// Write writes one message; of a file also all its bytes.
func (w *Writer) Write(m Message) error {
	k, text, err := w.encode(m)
	if err != nil {
		return err
	}
	if err := w.begin(m); err != nil {
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

// begin passes the kind of the content that follows to the segments.
func (w *Writer) begin(m Message) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch m := m.(type) {
	case *File:
		return w.out.begin(classOf(m.Name))
	case *Series, *HeadChunks:
		return w.out.begin(chunkClass)
	case *Records:
		return w.out.begin(recordClass)
	}
	return w.out.begin(otherClass)
}

// Answer answers a call that has no story: with an [Inventory], a [Target], a
// [Ready] or a [Restored].
func (w *Writer) Answer(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode %T: %w", v, err)
	}
	if err := w.frame(kindAnswer, b); err != nil {
		return err
	}
	return w.Flush()
}

// errFailed is of a frame after a failure.
var errFailed = errors.New("the stream has ended with a failure")

// Fail writes an error in place of all that would follow. It may be called while
// messages are written elsewhere: they fail.
func (w *Writer) Fail(f Failure) error {
	b, err := json.Marshal(f)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.failed {
		return errFailed
	}
	err = w.put(kindFailure, b)
	w.failed = true
	if err != nil {
		return err
	}
	return w.out.flush()
}

// Flush sends what is buffered.
func (w *Writer) Flush() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.out.flush()
}

// KeepAlive sends what is buffered, and something if there was nothing since the
// last time. Called now and then it tells the other side that the stream lives.
func (w *Writer) KeepAlive() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.silent && !w.failed {
		if err := w.put(kindKeepAlive, nil); err != nil {
			return err
		}
	}
	w.silent = true
	return w.out.flush()
}

func (w *Writer) body(f *File) error {
	for left := f.Size - f.Offset; left > 0; {
		n := int(min(left, dataFrame))
		if err := w.data(f, n); err != nil {
			return err
		}
		left -= int64(n)
	}
	return nil
}

// data writes a frame with the next n bytes of a file. They are read into their place:
// a large file is copied as seldom as can be.
func (w *Writer) data(f *File, n int) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.failed {
		return errFailed
	}
	w.silent = false
	b := appendHead(w.out.room(frameRoom+n), kindData, n)
	at := len(b)
	b = b[:at+n]
	if _, err := io.ReadFull(f.Body, b[at:]); err != nil {
		return fmt.Errorf("read %s: %w", f.Name, noEOF(err))
	}
	return w.seal(b, kindData, at)
}

func (w *Writer) frame(k kind, payload []byte) error {
	if len(payload) > MaxFrame {
		return fmt.Errorf("a message of %d bytes is beyond the %d bytes of a frame", len(payload), MaxFrame)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.failed {
		return errFailed
	}
	w.silent = false
	return w.put(k, payload)
}

func (w *Writer) put(k kind, payload []byte) error {
	if k == kindEnd {
		payload = w.sum.append(payload)
	}
	b := appendHead(w.out.room(frameRoom+len(payload)), k, len(payload))
	at := len(b)
	return w.seal(append(b, payload...), k, at)
}

// frameRoom is what a frame has beside its payload, at most.
const frameRoom = 1 + binary.MaxVarintLen32 + 4

func appendHead(b []byte, k kind, size int) []byte {
	return binary.AppendUvarint(append(b, byte(k)), uint64(size))
}

// seal ends the frame at the end of b, whose payload begins at a place in it.
func (w *Writer) seal(b []byte, k kind, at int) error {
	c := checksum(k, b[at:])
	w.sum.add(c)
	w.out.buf = binary.LittleEndian.AppendUint32(b, c)
	return w.out.ended()
}

// sum is of a row of frames: their number and the checksum of their checksums.
// That of all frames before it stands at the end of an End frame, so that no
// frame can be missing, be there twice or come from another stream.
type sum struct {
	frames uint64
	sum    uint32
}

const sumSize = 8 + 4

func (s *sum) add(checksum uint32) {
	s.frames++
	s.sum = crc32.Update(s.sum, castagnoli, binary.LittleEndian.AppendUint32(nil, checksum))
}

func (s *sum) append(b []byte) []byte {
	return binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint64(b, s.frames), s.sum)
}

// take takes the sum from the end of a payload, if it is the one.
func (s *sum) take(payload []byte) ([]byte, bool) {
	text := payload[:max(len(payload)-sumSize, 0)]
	return text, bytes.Equal(payload[len(text):], s.append(nil))
}

func checksum(k kind, payload []byte) uint32 {
	return crc32.Update(crc32.Checksum([]byte{byte(k)}, castagnoli), castagnoli, payload)
}
