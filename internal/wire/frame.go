package wire

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
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
	w      *bufio.Writer
	codec  flusher // nil: none
	silent bool    // nothing was written since the last KeepAlive
	sum    sum     // of the frames so far

	buf  []byte // payload of the frame that is made
	data []byte
}

// NewWriter begins a stream.
func NewWriter(w io.Writer, c Codec) (*Writer, error) {
	if _, err := w.Write(append([]byte(magic), Version, byte(c))); err != nil {
		return nil, err
	}
	out := &Writer{}
	switch c {
	case Plain:
		out.w = bufio.NewWriterSize(w, 64<<10)
	default:
		var err error
		if out.codec, err = c.writer(w); err != nil {
			return nil, err
		}
		out.w = bufio.NewWriterSize(out.codec, 64<<10)
	}
	return out, nil
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
func (w *Writer) Flush() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.flush()
}

func (w *Writer) flush() error {
	if err := w.w.Flush(); err != nil || w.codec == nil {
		return err
	}
	return w.codec.Flush()
}

// KeepAlive sends what is buffered, and something if there was nothing since the
// last time. Called now and then it tells the other side that the stream lives.
func (w *Writer) KeepAlive() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.silent {
		if err := w.put(kindKeepAlive, nil); err != nil {
			return err
		}
	}
	w.silent = true
	return w.flush()
}

func (w *Writer) body(f *File) error {
	if w.data == nil {
		w.data = make([]byte, dataFrame)
	}
	for left := f.Size - f.Offset; left > 0; {
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
	w.mu.Lock()
	defer w.mu.Unlock()
	w.silent = false
	return w.put(k, payload)
}

func (w *Writer) put(k kind, payload []byte) error {
	if k == kindEnd {
		payload = w.sum.append(payload)
	}
	var head [1 + binary.MaxVarintLen32]byte
	head[0] = byte(k)
	n := 1 + binary.PutUvarint(head[1:], uint64(len(payload)))
	w.w.Write(head[:n])
	w.w.Write(payload)
	c := checksum(k, payload)
	w.sum.add(c)
	_, err := w.w.Write(binary.LittleEndian.AppendUint32(nil, c)) // a bufio.Writer keeps its first error
	return err
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
