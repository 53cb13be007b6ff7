package pod

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/promdump/promdump/internal/wire"
)

// rawHead stands for the ULID of a block in a spool that holds the head's files.
const rawHead = "head"

// spool keeps the files of one block while they come.
type spool struct {
	dir   string // ours alone
	n     int    // names of files in it
	block string // ULID, rawHead, or empty: there is none
	files []*spooled
}

// spooled is a file that came, or the part of it that did.
type spooled struct {
	name       string // relative to the data dir
	size, have int64  // bytes
	path       string
}

func (s *spool) last() *spooled {
	if len(s.files) == 0 {
		return &spooled{}
	}
	return s.files[len(s.files)-1]
}

// take writes a file, or goes on with it. What of it came before an error stays.
// got grows with it.
func (s *spool) take(f *wire.File, got *int64) (err error) {
	to := s.last()
	if f.Offset == 0 {
		// Also one of which no byte had come before.
		if to.name != f.Name {
			s.n++
			to = &spooled{name: f.Name, path: filepath.Join(s.dir, fmt.Sprint(s.n))}
			s.files = append(s.files, to)
		}
		to.size, to.have = f.Size, 0
	}
	if to.name != f.Name || to.size != f.Size || to.have != f.Offset {
		return &wire.FrameError{Reason: fmt.Sprintf("it goes on with byte %d of %s", f.Offset, f.Name)}
	}
	out, err := os.OpenFile(to.path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return &localError{fmt.Errorf("keep %s: %w", f.Name, err)}
	}
	defer func() {
		if cerr := out.Close(); cerr != nil {
			err = errors.Join(err, &localError{cerr})
		}
	}()
	w := &at{out, to, got}
	if _, err := io.Copy(w, f.Body); err != nil {
		return fmt.Errorf("receive %s: %w", f.Name, err)
	}
	if to.have != to.size {
		return &wire.FrameError{Reason: fmt.Sprintf("%s has %d of %d bytes", f.Name, to.have, to.size)}
	}
	return nil
}

// at writes where a file stopped.
type at struct {
	out *os.File
	to  *spooled
	got *int64
}

func (w *at) Write(p []byte) (int, error) {
	n, err := w.out.WriteAt(p, w.to.have)
	w.to.have += int64(n)
	*w.got += int64(n)
	if err != nil {
		err = &localError{err}
	}
	return n, err
}

// hand gives the files away; who gets them removes them.
func (s *spool) hand() []*spooled {
	files := s.files
	s.block, s.files = "", nil
	return files
}

func (s *spool) clear() (err error) {
	for _, f := range s.hand() {
		if rerr := os.Remove(f.path); rerr != nil && !errors.Is(rerr, os.ErrNotExist) {
			err = errors.Join(err, rerr)
		}
	}
	return err
}
