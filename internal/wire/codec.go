package wire

import (
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
)

// Codec says how a stream is compressed on its way. Its byte follows the version.
type Codec byte

const (
	Plain Codec = 0
	Zstd  Codec = 'z' // one zstd frame (RFC 8878), flushed where the agent waits
)

// window bounds what both sides remember of a stream, in bytes: the agent's
// memory is the server's.
const window = 1 << 20

type flusher interface {
	io.Writer
	Flush() error
}

func (c Codec) writer(w io.Writer) (flusher, error) {
	if c != Zstd {
		return nil, fmt.Errorf("no such codec: %d", c)
	}
	return zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
		zstd.WithWindowSize(window), zstd.WithLowerEncoderMem(true))
}

func (c Codec) reader(r io.Reader) (io.Reader, error) {
	if c != Zstd {
		return nil, &FrameError{fmt.Sprintf("it is compressed by the unknown codec %d", c)}
	}
	in, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(window))
	if err != nil {
		return nil, err
	}
	return noEOFReader{in}, nil
}

// noEOFReader: a stream that is cut within a compressed block must not look as if
// it had ended there.
type noEOFReader struct{ r io.Reader }

func (r noEOFReader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	return n, noEOF(err)
}
