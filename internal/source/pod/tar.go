package pod

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/promdump/promdump/internal/retry"
)

// Where there is no shell the agent is unpacked by tar, in one command, and run by
// another. Nobody watches its file between the two: whoever kills this client in
// that part of a second leaves it there, and the next agent that is started from
// the same directory removes it.

// startByTar tries one directory after the other. Only the attempt shows whether
// one can be written and may execute.
func (s *Source) startByTar(ctx context.Context, tries *retry.Budget, name string, tight bool, wait time.Duration) (*conversation, error) {
	if err := s.lookForTar(ctx, tries); err != nil {
		return nil, err
	}
	program, size, err := s.o.Agent(ctx, "unknown")
	if err != nil {
		return nil, &localError{err}
	}
	body, err := bodyOf(program, false)
	if err != nil {
		return nil, &localError{err}
	}
	// Tar removes what is in the way of what it unpacks. Here that is a link to
	// nothing, so that it can make none in its place.
	archive, err1 := pack(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o700, Size: size}, body)
	first, err0 := pack(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o700, Size: 1}, []byte("#"))
	removal, err2 := pack(&tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: name + ".none", Mode: 0o600}, nil)
	if err := errors.Join(err0, err1, err2); err != nil {
		return nil, &localError{fmt.Errorf("pack the agent: %w", err)}
	}
	var full []string
	for _, dir := range s.places(tight) {
		// Little at first: a tar that refuses much unread is not heard of, see fullTime.
		said, err := s.tar(ctx, first, "-x", "-f", "-", "-C", dir)
		if err == nil {
			said, err = s.tar(ctx, archive, "-x", "-f", "-", "-C", dir)
		}
		if none, ok := errors.AsType[*AgentError](err); ok {
			return nil, noTar(none)
		}
		if _, refused := errors.AsType[*ExitError](err); refused {
			s.o.Logger.Debug("no place for the agent", "dir", dir, "error", err)
			if isFull.MatchString(said) {
				full = append(full, dir)
			}
			if !untouched.MatchString(said) {
				s.remove(ctx, dir, name, removal)
			}
			continue
		}
		place := path.Join(dir, name)
		if err == nil {
			s.o.Logger.Debug("agent's place", "file", place)
			c := s.run(ctx, tries, append([]string{place}, startArgs(wait)...))
			if err = c.started(place); err == nil {
				tries.Reached()
				return c, nil
			}
			c.close()
		} else {
			err = fmt.Errorf("upload the agent to %s: %w", dir, err)
		}
		s.remove(ctx, dir, name, removal)
		none, ok := errors.AsType[*AgentError](err)
		switch {
		case ok && strings.Contains(err.Error(), "permission denied"): // noexec
			s.o.Logger.Debug("no place for the agent", "dir", dir, "error", err)
		case ok && (strings.Contains(err.Error(), "no such file") || !s.crashed.Swap(true)):
			// A stream that was cut may look like one that ended: the file is none, or
			// not whole.
			return nil, fmt.Errorf("the agent did not arrive in %s: %w", dir, none.Err)
		default:
			return nil, err
		}
	}
	return nil, s.noPlace(full, size)
}

// lookForTar asks for it without a byte to send: over SPDY a command that cannot be
// started, and is sent much, may look like one that ended well.
func (s *Source) lookForTar(ctx context.Context, tries *retry.Budget) error {
	if s.hasTar.Load() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, min(s.o.times.stall, s.left(tries)))
	defer cancel()
	_, err := s.tar(ctx, nil, "--version")
	if none, ok := errors.AsType[*AgentError](err); ok {
		return noTar(none)
	}
	if _, ended := errors.AsType[*ExitError](err); err != nil && !ended { // busybox' knows no --version
		return fmt.Errorf("look for tar in the container: %w", err)
	}
	s.hasTar.Store(true)
	return nil
}

func noTar(none *AgentError) *AgentError {
	return &AgentError{Err: fmt.Errorf("neither a shell nor tar is there: %w", none.Err), Tip: none.Tip, NoTar: true}
}

// What tars say that could not even make the file, and those that found no room.
// GNU's, busybox' and libarchive's have words of their own.
var (
	untouched = regexp.MustCompile(`(?i)(can't|cannot|could not) (open|create|change dir|chdir)`)
	isFull    = regexp.MustCompile(`(?i)no space|quota|wrote only`)
	isGone    = regexp.MustCompile(`(?i)no such file`)
)

// places are directories for the agent, those of the data last. Where memory is tight
// those in memory come behind them: without a shell, the mounts are known by the pod's
// spec alone, and /run may be on a disk.
func (s *Source) places(tight bool) []string {
	all := []string{"/tmp", "/var/tmp", "/dev/shm", "/run"}
	last := slices.Clone(s.o.Dirs)
	for _, v := range s.o.Volumes {
		holds := func(dir string) bool { return dir == v || strings.HasPrefix(dir, strings.TrimSuffix(v, "/")+"/") }
		if slices.ContainsFunc(s.o.Dirs, holds) {
			last = append([]string{v}, last...)
		} else {
			all = append(all, v)
		}
	}
	all = append(all, last...)
	if tight {
		memory := append([]string{"/dev/shm", "/run"}, s.o.InMemory...)
		slices.SortStableFunc(all, func(a, b string) int {
			return btoi(slices.Contains(memory, a)) - btoi(slices.Contains(memory, b))
		})
	}
	var once []string
	for _, dir := range all {
		if !slices.Contains(once, dir) {
			once = append(once, dir)
		}
	}
	return once
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

const (
	removeTries = 3
	removeTime  = 10 * time.Second // also after Ctrl-C
)

// remove removes a file by tar, and a person is told when it may be there still.
func (s *Source) remove(ctx context.Context, dir, name string, removal []byte) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeTime)
	defer cancel()
	var err error
	for range removeTries {
		var both sync.WaitGroup
		// Busybox' does it unasked and knows no -U, the others do it by -U alone.
		for _, args := range [][]string{{"-x", "-f", "-", "-C", dir}, {"-x", "-U", "-f", "-", "-C", dir}} {
			both.Go(func() { _, _ = s.tar(ctx, removal, args...) })
		}
		both.Wait()
		var said string
		if said, err = s.tar(ctx, nil, "-c", "-f", "-", "-C", dir, name); err != nil && isGone.MatchString(said) {
			return
		}
		if ctx.Err() != nil {
			break
		}
	}
	if err == nil {
		err = errors.New("tar does not remove it")
	}
	s.o.Note(fmt.Sprintf("the agent's file may be left in the container: %s (%v)", path.Join(dir, name), err))
}

// fullTime is for the end of a tar that has said that there is no room. Busybox'
// does not read what still comes, and over WebSocket a command that ends before its
// stdin does may be as one that goes on: nothing is heard of its end.
const fullTime = 2 * time.Second

// tar runs tar in the container until it ends, and gives what it says.
func (s *Source) tar(ctx context.Context, in []byte, args ...string) (said string, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	t := &tail{}
	full := func() bool { return isFull.MatchString(t.String()) }
	wait := func() time.Duration {
		if full() {
			return min(fullTime, s.o.times.stall)
		}
		return s.o.times.stall
	}
	stall := time.AfterFunc(s.o.times.stall, func() {
		if full() {
			cancel(&ExitError{1, errors.New("tar has ended, and its stream has not")})
			return
		}
		cancel(&stallError{s.o.times.stall})
	})
	defer stall.Stop()
	stir := func() { stall.Reset(wait()) }
	upload := s.uploading(in)
	defer upload.end()
	err = s.o.Exec(ctx, append([]string{"tar"}, args...), Streams{
		In: &stirring{r: upload, stir: stir}, Out: io.Discard, Err: &stirring{w: t, stir: stir},
	})
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	if err != nil && t.String() != "" {
		err = fmt.Errorf("%w: %s", err, t)
	}
	return t.String(), err
}

// stirring tells of every read and write.
type stirring struct {
	r    io.Reader
	w    io.Writer
	stir func()
}

func (s *stirring) Read(p []byte) (int, error) {
	s.stir()
	return s.r.Read(p)
}

func (s *stirring) Write(p []byte) (int, error) {
	defer s.stir() // by what was written
	return s.w.Write(p)
}

func pack(h *tar.Header, body []byte) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	err := w.WriteHeader(h)
	if err == nil {
		_, err = w.Write(body)
	}
	err = errors.Join(err, w.Close())
	return b.Bytes(), err
}
