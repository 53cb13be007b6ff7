package apply

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/promdump/promdump/internal/datadir"
	"github.com/promdump/promdump/internal/wire"
)

// Options of a [Session].
type Options struct {
	// Replace is the ID, a ULID, of a replacement: what is staged takes the place of all
	// that the data directory holds. Empty: it is put beside that.
	Replace string

	// Offline is set if no server may be at work in the data directory while all of it is
	// replaced: its lock is held meanwhile. Otherwise servers are frozen. The data
	// directory is made if it does not exist, replacements that were killed are settled,
	// and the old contents are removed at the end.
	Offline bool

	// Patience is how long to wait for another session in the data directory to end.
	Patience time.Duration

	Logger *slog.Logger // nil: silent

	// Step is called before each change of a name; tests kill the restore there.
	Step func(name string) error
}

// BusyError reports that another restore is at work in a data directory.
type BusyError struct{ Dir string }

func (e *BusyError) Error() string { return "another restore is at work in " + e.Dir }

// LiveError reports that a server is at work in a data directory that must have none.
type LiveError struct{ Dir string }

func (e *LiveError) Error() string { return "a running server holds the lock of " + e.Dir }

// ErrClosed is returned by the methods of a session that was closed.
var ErrClosed = errors.New("the restore was ended")

// Session is one restore into a data directory. Close may be called by any goroutine,
// the other methods by one.
type Session struct {
	// Earlier is what an earlier session did for the same replacement; nil: nothing.
	// There is nothing to do then.
	Earlier *wire.Restored

	// Settled are the replacements of other sessions that this one has settled. Done says
	// whether the data directory holds what came, or again what was there before.
	Settled []wire.Aside

	dir  string
	id   string // of the staging directory, and of the replacement
	o    Options
	lock *os.File // the data directory
	mark *os.File // in the staging directory
	made bool     // the data directory

	owner owner

	mu       sync.Mutex // between the work and a Close from elsewhere
	closed   bool
	finished bool     // all is in place
	staged   []string // names that lie ready, in the order of their first files
	skip     map[string]bool
	result   wire.Restored
}

// markName tells a staging directory of ours from a block that a server is making.
const markName = "promdump"

// Open begins a restore into a data directory, and waits for one that is at work there.
// The session must be closed.
func Open(ctx context.Context, dir string, o Options) (_ *Session, err error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Step == nil {
		o.Step = func(string) error { return nil }
	}
	s := &Session{dir: dir, id: o.Replace, o: o, skip: map[string]bool{}}
	defer func() {
		if err != nil {
			_, cerr := s.Close()
			err = errors.Join(err, cerr)
		}
	}()
	if err := s.makeDir(); err != nil {
		return nil, err
	}
	if s.lock, err = lockDir(ctx, dir, o.Patience); err != nil {
		return nil, err
	}
	if s.Earlier, err = s.settle(ctx); err != nil || s.Earlier != nil {
		return s, err
	}
	if err := Sweep(dir, o.Logger); err != nil {
		return nil, err
	}
	if s.id == "" {
		s.id = ulid.Make().String()
	}
	if err := os.RemoveAll(s.Root()); err != nil {
		return nil, err
	}
	if s.mark, err = MakeStaging(s.Root()); err != nil {
		return nil, err
	}
	return s, s.owner.mkdir(s.ready())
}

// Root returns the staging directory, in which a caller may keep files of its own.
func (s *Session) Root() string  { return filepath.Join(s.dir, s.id+datadir.Creating) }
func (s *Session) ready() string { return filepath.Join(s.Root(), readyName) }

const readyName = "ready"

// makeDir makes the data directory, or finds out whose it is.
func (s *Session) makeDir() error {
	fi, err := os.Stat(s.dir)
	if s.o.Offline && errors.Is(err, fs.ErrNotExist) {
		if fi, err = os.Stat(filepath.Dir(s.dir)); err == nil {
			s.owner = ownerFrom(fi)
			if err := s.owner.mkdir(s.dir); err != nil {
				return fmt.Errorf("make data dir: %w", err)
			}
			s.made = true
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("read data dir: %w", err)
	}
	s.owner = ownerFrom(fi)
	return nil
}

// guard runs a step that makes something, unless the session was closed.
func (s *Session) guard(f func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	return f()
}

// begin makes room for a block or a directory of the head. It reports whether its bytes
// are wanted: a block that the data directory has is skipped, unless all is replaced.
func (s *Session) begin(name string) (wanted bool, err error) {
	err = s.guard(func() error {
		skip, known := s.skip[name]
		if wanted = !skip; known {
			return nil
		}
		if s.o.Replace == "" {
			if _, err := os.Lstat(filepath.Join(s.dir, name)); err == nil {
				wanted, s.skip[name] = false, true
				s.result.Skipped = append(s.result.Skipped, name)
				return nil
			}
		}
		s.skip[name] = false
		s.staged = append(s.staged, name)
		return nil
	})
	return wanted, err
}

// File stages a file of a block, or of a head if all is replaced, from the bytes of body,
// of which there must be size. The name is relative to the data directory, with slashes.
func (s *Session) File(name string, size int64, body io.Reader) error {
	parts := blockFile.FindStringSubmatch(name)
	block := parts != nil && isULID(parts[1])
	switch {
	case block || s.o.Replace != "" && headFile.MatchString(name):
	case s.o.Replace != "":
		return fmt.Errorf("receive blocks: %q is no file of a block or a head", name)
	default:
		return fmt.Errorf("receive blocks: %q is no file of a block", name)
	}
	names := strings.Split(name, "/")
	wanted, err := s.begin(names[0])
	if err != nil {
		return err
	}
	if !wanted {
		_, err := io.Copy(io.Discard, body)
		return err
	}
	path := s.ready()
	for _, dir := range names[:len(names)-1] {
		path = filepath.Join(path, dir)
		if err := s.guard(func() error { return s.owner.mkdir(path) }); err != nil {
			return err
		}
	}
	return s.write(filepath.Join(path, names[len(names)-1]), size, body)
}

func (s *Session) write(path string, size int64, body io.Reader) (err error) {
	var out *os.File
	if err := s.guard(func() error {
		out, err = os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o666)
		return err
	}); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	n, err := io.Copy(out, body)
	if err == nil && n != size {
		err = fmt.Errorf("%d bytes came, not %d", n, size)
	}
	if err != nil {
		return fmt.Errorf("receive %s: %w", filepath.Base(path), err)
	}
	if err := s.owner.give(path); err != nil {
		return err
	}
	return out.Sync()
}

// Take stages a complete directory of this machine, a block's or one of the head. It is
// renamed where that is possible, and else copied. The path is where it lies then; empty:
// the data directory has that block already.
func (s *Session) Take(ctx context.Context, from string) (path string, copied bool, err error) {
	name := filepath.Base(from)
	wanted, err := s.begin(name)
	if err != nil || !wanted {
		return "", false, err
	}
	path = filepath.Join(s.ready(), name)
	err = s.guard(func() error {
		if err := s.at(ctx, "stage "+name); err != nil {
			return err
		}
		if copied, err = move(ctx, from, path); err != nil {
			return err
		}
		return s.owner.settle(ctx, path)
	})
	return path, copied, err
}

// Replace lets all that is staged from now on take the place of what the data directory
// holds, as the option does.
func (s *Session) Replace() { s.o.Replace = s.id }

func (s *Session) at(ctx context.Context, name string) error {
	if err := s.o.Step(name); err != nil {
		return err
	}
	return context.Cause(ctx)
}

// Publish gives what is staged its names. After an error of a replacement the data
// directory is as it was; of others the result says which blocks are in place.
func (s *Session) Publish(ctx context.Context) (*wire.Restored, error) {
	var err error
	if s.o.Replace == "" {
		err = s.publish(ctx)
	} else {
		err = s.guard(func() error { return s.swap(ctx) })
	}
	return &s.result, err
}

// publish makes the blocks visible, one after the other.
func (s *Session) publish(ctx context.Context) error {
	if err := s.syncReady(); err != nil {
		return err
	}
	for len(s.staged) > 0 {
		if err := s.guard(func() error {
			name := s.staged[0]
			if err := s.show(ctx, name); err != nil {
				return fmt.Errorf("publish %s: %w", name, err)
			}
			s.staged = s.staged[1:]
			s.result.Added = append(s.result.Added, name)
			s.finished = len(s.staged) == 0
			return nil
		}); err != nil {
			return err
		}
	}
	return s.at(ctx, "published")
}

// show renames twice: a block must never appear under its own name with a part missing,
// also not where a rename between directories is no single step.
func (s *Session) show(ctx context.Context, name string) error {
	final := filepath.Join(s.dir, name)
	tmp := final + datadir.Creating
	if err := s.at(ctx, "publish "+name); err != nil {
		return err
	}
	if err := os.RemoveAll(tmp); err != nil { // of a restore that was killed
		return err
	}
	if err := gone(os.Rename(filepath.Join(s.ready(), name), tmp)); err != nil {
		return err
	}
	err := s.at(ctx, "rename "+name)
	if err == nil {
		err = gone(os.Rename(tmp, final))
	}
	if err != nil {
		return errors.Join(err, os.RemoveAll(tmp))
	}
	now := time.Now()
	return errors.Join(os.Chtimes(final, now, now), syncDir(s.dir))
}

func gone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("staging is gone, a server that starts removes it; run the restore again: %w", err)
	}
	return err
}

// syncReady brings the names of what is staged to the disk.
func (s *Session) syncReady() error {
	err := filepath.WalkDir(s.ready(), func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.IsDir() {
			return err
		}
		return syncDir(path)
	})
	return gone(err)
}

// swap replaces all that the data directory holds, or nothing.
func (s *Session) swap(ctx context.Context) (err error) {
	if err := s.syncReady(); err != nil {
		return err
	}
	if s.o.Offline {
		held, err := lockServer(s.dir, s.owner)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, held.release()) }()
	}
	r := s.replacement(ctx, s.id)
	result, err := r.swap()
	if err != nil {
		return err
	}
	result.Skipped = s.result.Skipped
	s.result, s.finished = *result, true
	if s.o.Offline {
		if _, err := r.discard(); err != nil {
			return fmt.Errorf("the dump is in place, but the old contents could not be removed: %w", err)
		}
	}
	return nil
}

func (s *Session) replacement(ctx context.Context, id string) *replacement {
	return &replacement{
		dir: s.dir, id: id, owner: s.owner, offline: s.o.Offline, step: s.o.Step,
		check: func() error { return context.Cause(ctx) },
	}
}

// Close removes what is staged and has no name yet, and the data directory if it was made
// for nothing. It reports whether all is in place.
func (s *Session) Close() (finished bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return s.finished, nil
	}
	s.closed = true
	var errs []error
	if s.mark != nil {
		errs = append(errs, s.mark.Close(), os.RemoveAll(s.Root()))
	}
	if s.lock != nil {
		errs = append(errs, s.lock.Close())
	}
	if s.made {
		if entries, err := os.ReadDir(s.dir); err == nil && len(entries) == 0 {
			errs = append(errs, os.Remove(s.dir))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return s.finished, fmt.Errorf("remove staging: %w", err)
	}
	return s.finished, nil
}
