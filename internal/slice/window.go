package slice

import (
	"fmt"
	"io"

	"github.com/promdump/promdump/internal/datadir"
)

const (
	// The minimum size of a read at a new place is randomRead. Each sequential read has
	// twice the size of the one before, up to sequentialRead: reads are often close
	// together without being sequential for long.
	randomRead     = 4 << 10
	sequentialRead = 256 << 10

	// nearby is the maximum gap after the last read of a read that counts as sequential:
	// reading the gap is cheaper than another read.
	nearby = 32 << 10
)

// window buffers reads of a file.
type window struct {
	f    *datadir.File
	off  int64  // of buf
	buf  []byte // valid until the next call of at
	step int    // minimum size of the last read
}

// end returns the offset after buf.
func (w *window) end() int64 { return w.off + int64(len(w.buf)) }

// at returns the n bytes at off, or fewer at the end of the file. They are valid until the
// next call.
func (w *window) at(off int64, n int) ([]byte, error) {
	if off < 0 || off > w.f.Size {
		return nil, fmt.Errorf("read %s at byte %d: the file has %d bytes", w.f.Name, off, w.f.Size)
	}
	n = int(min(int64(n), w.f.Size-off))
	if off < w.off || off+int64(n) > w.end() {
		if err := w.move(off, n); err != nil {
			return nil, err
		}
	}
	return w.buf[off-w.off:][:n], nil
}

// move reads at least n bytes at off into buf.
func (w *window) move(off int64, n int) error {
	if off >= w.off && off < w.end()+nearby {
		w.step = min(2*w.step, sequentialRead)
	} else {
		w.step = 0
	}
	w.step = max(w.step, randomRead)
	size := max(n, w.step)
	size = int(min(int64(size), w.f.Size-off))
	if cap(w.buf) < size {
		w.buf = make([]byte, size)
	}
	w.off, w.buf = off, w.buf[:size]
	if read, err := w.f.ReadAt(w.buf, off); read < size {
		w.buf = w.buf[:0]
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return fmt.Errorf("read %s at byte %d: %w", w.f.Name, off, err)
	}
	return nil
}

// scanner reads a file sequentially.
type scanner struct {
	window
	pos int64 // of the next byte
}

// take returns the next n bytes, and an error if there are fewer. They are valid until the
// next call.
func (s *scanner) take(n int) ([]byte, error) {
	b, err := s.at(s.pos, n)
	if err != nil {
		return nil, err
	}
	if len(b) < n {
		return nil, fmt.Errorf("read %s at byte %d: %w", s.f.Name, s.pos, io.ErrUnexpectedEOF)
	}
	s.pos += int64(n)
	return b, nil
}
