package pod

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/promdump/promdump/internal/retry"
	"github.com/promdump/promdump/internal/wire"
)

// Inspect tells what a restore must know of the data dir.
func (s *Source) Inspect(ctx context.Context) (*wire.Target, error) {
	t := &wire.Target{}
	err := s.again(ctx, func(ctx context.Context, tries *retry.Budget) (bool, error) {
		return false, s.talk(ctx, tries, wire.Call{Do: wire.DoInspect}, func(_ *conversation, r *wire.Reader) error { return r.Answer(t) })
	})
	return t, err
}

// Upload is a file on its way into the data dir.
type Upload struct {
	Name string // relative to the data dir, with slashes
	Path string // here
	Size int64  // bytes
}

// Uploads lists the files of complete directories: those of blocks, each named by its
// ULID, and those of a head.
func Uploads(dirs ...string) (all []Upload, err error) {
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() {
				return err
			}
			fi, err := e.Info()
			if err != nil {
				return err
			}
			name, err := filepath.Rel(filepath.Dir(dir), path)
			all = append(all, Upload{Name: filepath.ToSlash(name), Path: path, Size: fi.Size()})
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("find what is restored: %w", err)
		}
	}
	return all, nil
}

// Send puts blocks into the data dir: all of them, or none. When the stream
// breaks it begins again; blocks that are there by then are skipped. progress is
// told of bytes on their way.
func (s *Source) Send(ctx context.Context, files []Upload, progress func(bytes int64)) (*wire.Restored, error) {
	return s.receive(ctx, wire.Call{Do: wire.DoReceive}, files, progress)
}

// Replace puts blocks and a head in the place of all that the data dir holds, or
// changes nothing. What was there is aside until [Source.Discard]. The id, a ULID,
// is this replacement's alone: when the stream breaks and it begins again, what
// was done already is not done twice.
func (s *Source) Replace(ctx context.Context, id string, files []Upload, progress func(bytes int64)) (*wire.Restored, error) {
	return s.receive(ctx, wire.Call{Do: wire.DoReceive, Replace: &wire.Replace{ID: id}}, files, progress)
}

// settling marks the context of what ends a replacement that was begun.
type settling struct{}

// WithSettling marks a context for [Settling].
func WithSettling(ctx context.Context) context.Context {
	return context.WithValue(ctx, settling{}, true)
}

// Settling reports whether a context is that of work which has to be done in a container
// that was restarted, too: until then its data dir may be half replaced.
func Settling(ctx context.Context) bool { return ctx.Value(settling{}) != nil }

// Settle tells what became of a replacement whose end was not heard; nil: the data
// dir is as it was. One that stopped half-way is undone.
func (s *Source) Settle(ctx context.Context, id string) (done *wire.Restored, err error) {
	ctx = WithSettling(ctx)
	err = s.again(ctx, func(ctx context.Context, tries *retry.Budget) (bool, error) {
		return false, s.talk(ctx, tries, wire.Call{Do: wire.DoReceive, Replace: &wire.Replace{ID: id}}, func(c *conversation, r *wire.Reader) error {
			ready := wire.Ready{}
			if err := r.Answer(&ready); err != nil {
				return err
			}
			if done = ready.Done; done == nil {
				_ = c.in.Close() // it waits for files
			}
			return nil
		})
	})
	return done, err
}

// Discard removes what a replacement has taken away.
func (s *Source) Discard(ctx context.Context, id string) error {
	ctx = WithSettling(ctx)
	return s.again(ctx, func(ctx context.Context, tries *retry.Budget) (bool, error) {
		return false, s.talk(ctx, tries, wire.Call{Do: wire.DoDiscard, Replace: &wire.Replace{ID: id}}, func(_ *conversation, r *wire.Reader) error {
			return r.Answer(&wire.Discarded{})
		})
	})
}

// moved is from when on a link carries what is sent, in bytes: buffers on the way take less.
const moved = 16 << 20

func (s *Source) receive(ctx context.Context, call wire.Call, files []Upload, progress func(bytes int64)) (*wire.Restored, error) {
	result := &wire.Restored{}
	err := s.again(ctx, func(ctx context.Context, tries *retry.Budget) (bool, error) {
		*result = wire.Restored{}
		return false, s.talk(ctx, tries, call, func(c *conversation, r *wire.Reader) error {
			ready := wire.Ready{}
			if err := r.Answer(&ready); err != nil {
				return err
			}
			if ready.Done != nil {
				*result = *ready.Done
				return nil
			}
			answer := make(chan error, 1)
			go func() { answer <- r.Answer(result) }()
			err := send(c.in, files, &upload{answer: answer, progress: func(bytes int64) {
				if bytes > moved {
					tries.Moved()
				}
				progress(bytes)
			}})
			if errors.Is(err, errAnswered) {
				err = nil
			}
			if err == nil {
				return <-answer
			}
			c.in.CloseWithError(err) // or the agent would wait for more
			their := <-answer
			if _, ours := errors.AsType[*localError](err); !ours && their != nil {
				return their
			}
			return err
		})
	})
	return result, err
}

// send writes files as a story of their own.
func send(to io.Writer, files []Upload, u *upload) error {
	w, err := wire.NewWriter(to, wire.Plain)
	if err != nil {
		return fmt.Errorf("send blocks: %w", err)
	}
	end := &wire.End{}
	for _, f := range files {
		in, err := os.Open(f.Path)
		if err != nil {
			return &localError{err}
		}
		if fi, err := in.Stat(); err != nil || fi.Size() != f.Size {
			return &localError{errors.Join(fmt.Errorf("send %s: it has changed", f.Path), err, in.Close())}
		}
		u.Reader = in
		err = errors.Join(w.Write(&wire.File{Name: f.Name, Size: f.Size, Body: u}), in.Close())
		if err != nil {
			return fmt.Errorf("send %s: %w", f.Name, err)
		}
		end.Files++
		end.Bytes += uint64(f.Size)
	}
	if err := errors.Join(w.Write(end), w.Flush()); err != nil {
		return fmt.Errorf("send blocks: %w", err)
	}
	return nil
}

// errAnswered: the agent has answered before it had all, so it has refused.
var errAnswered = errors.New("answered")

// upload counts what is read of the files, and stops when the agent has answered.
type upload struct {
	io.Reader
	progress func(int64)
	sent     int64
	answer   chan error
}

func (u *upload) Read(p []byte) (int, error) {
	select {
	case err := <-u.answer:
		u.answer <- err
		return 0, errAnswered
	default:
	}
	n, err := u.Reader.Read(p)
	u.sent += int64(n)
	u.progress(u.sent)
	return n, err
}
