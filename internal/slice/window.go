package slice

import (
	"fmt"
	"io"

	"github.com/promdump/promdump/internal/datadir"
)

const (
	// A read elsewhere takes what is asked for and a little more. Each read that
	// goes on where the last one ended takes twice as much as that, up to a bound:
	// places that are wanted often lie beside each other without being a row.
	randomRead     = 4 << 10
	sequentialRead = 256 << 10

	// A jump of less than this is still taken as going on: reading over it is
	// cheaper than another read.
	nearby = 32 << 10
)

// window is a piece of a file in memory.
type window struct {
	f    *datadir.File
	off  int64
	buf  []byte // valid until the next call of at
	step int    // size of the last read, if it is the first or went on from another
}

func (w *window) end() int64 { return w.off + int64(len(w.buf)) }

// at gives the n bytes at off, or fewer at the end of the file.
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

// scanner reads a file on from one place.
type scanner struct {
	window
	pos int64
}

// take gives the next n bytes; fewer is an error.
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
