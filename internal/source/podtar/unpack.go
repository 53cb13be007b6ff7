package podtar

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/promdump/promdump/internal/agent"
	"github.com/promdump/promdump/internal/source/pod"
)

// tar streams names below from into dir. It follows links, as a server does, except
// links to blocks, which are not in the listing.
func (s *Source) tar(ctx context.Context, from string, names []string, dir string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r, w := io.Pipe()
	var said text
	ended := make(chan error, 1)
	go func() {
		err := s.o.Exec(ctx, append([]string{"tar", "-chf", "-", "-C", from}, names...), pod.Streams{In: strings.NewReader(""), Out: agent.Throttle(ctx, w, s.o.Limits.Bandwidth), Err: &said, Much: true})
		w.CloseWithError(err) // nil is an end that means nothing
		ended <- err
	}()
	err := unpack(r, dir)
	_ = r.CloseWithError(errors.New("enough"))
	cancel()
	exit := <-ended
	if err != nil {
		if text := strings.TrimSpace(said.String()); text != "" {
			err = fmt.Errorf("%w: %s", err, text)
		}
		return fmt.Errorf("stream by tar: %w", err)
	}
	// A file that changed while it was read is the log that is written to. One that
	// went away is not in the archive, and what needs it will say so.
	s.o.Logger.Debug("tar", "names", len(names), "exit", exit, "says", said.String())
	return nil
}

// unpack writes an archive's regular files below dir. An archive that does not
// end with its own end is an error, whatever the command's exit code is.
func unpack(in io.Reader, dir string) error {
	watched := &ending{r: in}
	r := tar.NewReader(watched)
	for {
		h, err := r.Next()
		if err == io.EOF {
			if watched.ended {
				return io.ErrUnexpectedEOF // where a file ended, but not the archive
			}
			_, err := io.Copy(io.Discard, in) // or tar could not end
			return err
		}
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(h.Name, "./")
		if h.Typeflag != tar.TypeReg {
			continue
		}
		if !filepath.IsLocal(name) {
			return fmt.Errorf("it has a file %q", h.Name)
		}
		if err := write(filepath.Join(dir, filepath.FromSlash(name)), r); err != nil {
			return err
		}
	}
}

// ending knows whether its reader has ended.
type ending struct {
	r     io.Reader
	ended bool
}

func (e *ending) Read(p []byte) (int, error) {
	n, err := e.r.Read(p)
	e.ended = e.ended || err == io.EOF
	return n, err
}

func write(path string, r io.Reader) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Close())
}
