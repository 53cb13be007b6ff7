// Package podtar is the source for a Prometheus in a container that has tar and
// nothing that could run the agent. What the request needs of the data dir is
// streamed by tar into a directory on this machine, and read from there.
//
// The head comes first, with the meta.json of all blocks; then the blocks that
// the request takes, whole: they are cut here. A block that went away meanwhile
// makes it begin again, since what replaced it is there now.
//
// What is not promised: little traffic, or one moment of the head's logs: tar
// reads them one after the other, and what is torn at the end is cut there.
package podtar

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/promdump/promdump/internal/agent"
	"github.com/promdump/promdump/internal/fsutil"
	"github.com/promdump/promdump/internal/retry"
	"github.com/promdump/promdump/internal/source/local"
	"github.com/promdump/promdump/internal/source/pod"
	"github.com/promdump/promdump/internal/wire"
)

const (
	tries      = 5
	retryAfter = 2 * time.Second
)

// GentleRate is that of gentle limits, bytes a second.
const GentleRate = agent.GentleRate

// Options of a Source.
type Options struct {
	Name    string
	Exec    pod.Exec
	Dirs    []string    // the data dir is the first of these that tar finds
	Staging string      // an existing directory for what tar gives; empty: the system's
	Limits  wire.Limits // of the stream; tar itself cannot be limited
	Note    func(string)
	Logger  *slog.Logger

	// Check and Alive are those of [pod.Options]. Check is called each time before tar
	// is run.
	Check func(ctx context.Context) (tight bool, err error)
	Alive func(ctx context.Context) error

	pause time.Duration // tests wait less
}

// Source is a data dir in a container.
type Source struct{ o Options }

// New makes a source. Nothing is done until it is read.
func New(o Options) *Source {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Note == nil {
		o.Note = func(string) {}
	}
	if o.pause == 0 {
		o.pause = retryAfter
	}
	if o.Limits.Gentle {
		if o.Limits.Bandwidth == 0 || o.Limits.Bandwidth > GentleRate {
			o.Limits.Bandwidth = GentleRate
		}
	}
	return &Source{o}
}

// String names the container.
func (s *Source) String() string { return s.o.Name }

// Read implements source.Source.
func (s *Source) Read(ctx context.Context, req wire.Request) iter.Seq2[wire.Message, error] {
	return func(yield func(wire.Message, error) bool) {
		left, err := s.with(ctx, func(dir string) (bool, error) {
			if err := s.pull(ctx, dir, req); err != nil {
				return false, err
			}
			for m, err := range local.New(dir, local.Options{Logger: s.o.Logger}).Read(ctx, req) {
				if !yield(m, err) {
					return true, nil
				}
				if err != nil {
					return true, nil
				}
			}
			return false, nil
		})
		if err != nil && !left {
			yield(nil, err)
		}
	}
}

// Inventory implements source.Source.
func (s *Source) Inventory(ctx context.Context) (inv *wire.Inventory, err error) {
	_, err = s.with(ctx, func(dir string) (bool, error) {
		if err := s.pull(ctx, dir, wire.Request{Version: wire.Version, Head: wire.HeadBlock, PlanOnly: true}); err != nil {
			return false, err
		}
		inv, err = local.New(dir, local.Options{Logger: s.o.Logger, Sketch: true}).Inventory(ctx)
		return false, err
	})
	if inv != nil {
		inv.Notes = append(inv.Notes, "sizes of blocks are not known: tar was asked for their meta.json alone")
	}
	return inv, err
}

func (s *Source) with(_ context.Context, f func(dir string) (bool, error)) (left bool, err error) {
	dir, err := fsutil.MkdirTemp(s.o.Staging, "tar")
	if err != nil {
		return false, fmt.Errorf("make staging directory: %w", err)
	}
	defer func() { err = errors.Join(err, dir.Remove()) }()
	return f(dir.Path)
}

// pull fills dir with what a request needs.
func (s *Source) pull(ctx context.Context, dir string, req wire.Request) error {
	var before []string
	for try := 1; ; try++ {
		err := s.pullOnce(ctx, dir, req)
		if absent, ok := errors.AsType[*absentError](err); ok {
			if slices.Equal(before, absent.names) {
				return nil // no change: the data dir is damaged
			}
			before = absent.names
		}
		_, known := errors.AsType[interface {
			error
			Hint() string
			ExitCode() int
		}](err)
		advice := retry.Of(err)
		again := advice == retry.Yes || advice == retry.AfterSuccess && try > 1
		if err == nil || known && !again || ctx.Err() != nil || fsutil.IsNoSpace(err) {
			return err
		}
		if dead := s.alive(ctx); dead != nil {
			return dead
		}
		if try == tries {
			return &pod.LostError{Tries: try, Err: err}
		}
		s.o.Note(fmt.Sprintf("%v: beginning again in %v (try %d of %d)", err, s.o.pause, try, tries))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(s.o.pause):
		}
		if dead := s.alive(ctx); dead != nil { // the cluster may have known nothing before
			return dead
		}
		if err := empty(dir); err != nil {
			return err
		}
	}
}

func (s *Source) alive(ctx context.Context) error {
	if s.o.Alive == nil {
		return nil
	}
	return s.o.Alive(ctx)
}

func empty(dir string) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		err = errors.Join(err, os.RemoveAll(path.Join(dir, e.Name())))
	}
	return err
}

func (s *Source) pullOnce(ctx context.Context, dir string, req wire.Request) error {
	if s.o.Check != nil {
		if _, err := s.o.Check(ctx); err != nil {
			return err
		}
	}
	from, names, err := s.list(ctx)
	if err != nil {
		return err
	}
	first := []string{}
	has := map[string]bool{}
	for _, n := range names {
		top, rest, _ := strings.Cut(n, "/")
		if has[top] = true; isBlock(top) && (rest == "meta.json") {
			first = append(first, n)
		}
	}
	heads := map[wire.HeadMode][]string{
		wire.HeadBlock: {"chunks_head", "wal", "wbl"},
		wire.HeadRaw:   {"chunks_head", "wal", "wbl"},
	}[req.Head]
	for _, h := range heads {
		if has[h] {
			first = append([]string{h}, first...)
		}
	}
	if len(first) > 0 {
		if err := s.tar(ctx, from, first, dir); err != nil {
			return err
		}
	}
	if req.PlanOnly && req.Selection.MinTime == 0 && req.Selection.MaxTime == 0 {
		return nil
	}
	plan := req
	plan.PlanOnly = true
	var blocks []string
	for m, err := range local.New(dir, local.Options{Logger: s.o.Logger, Sketch: true}).Read(ctx, plan) {
		if err != nil {
			return err
		}
		if p, ok := m.(*wire.Plan); ok {
			for _, b := range p.Blocks {
				if b.Action != wire.Skip {
					blocks = append(blocks, b.ULID)
				}
			}
		}
	}
	if req.PlanOnly || len(blocks) == 0 {
		return nil
	}
	if err := s.tar(ctx, from, blocks, dir); err != nil {
		return err
	}
	// A block that lacks a file is either broken or was deleted while tar read it. In
	// the second case another read gets the block that replaced it.
	var absent []string
	for _, n := range names {
		if top, _, _ := strings.Cut(n, "/"); slices.Contains(blocks, top) {
			if _, err := os.Stat(path.Join(dir, n)); err != nil {
				absent = append(absent, n)
			}
		}
	}
	if len(absent) > 0 {
		return &absentError{absent}
	}
	return nil
}

// absentError names files of blocks that tar listed but did not send.
type absentError struct{ names []string }

func (e *absentError) Error() string {
	top, _, _ := strings.Cut(e.names[0], "/")
	return fmt.Sprintf("block %s changed while tar read it", top)
}

func isBlock(name string) bool {
	_, err := ulid.ParseStrict(name)
	return err == nil
}

// list finds the data dir and the names of its files. A tar that writes to
// /dev/null need not read what it packs; busybox' does all the same.
func (s *Source) list(ctx context.Context) (dir string, names []string, err error) {
	var all error
	for _, dir := range s.o.Dirs {
		var out, said text
		err := s.o.Exec(ctx, []string{"tar", "-cvf", "/dev/null", "-C", dir, "."}, pod.Streams{In: strings.NewReader(""), Out: &out, Err: &said})
		if ctx.Err() != nil {
			return "", nil, ctx.Err()
		}
		for line := range strings.Lines(out.String()) {
			name := strings.TrimPrefix(strings.TrimSpace(line), "./")
			if name != "" && name != "." {
				names = append(names, strings.TrimSuffix(name, "/"))
			}
		}
		for _, n := range names {
			if top, _, _ := strings.Cut(n, "/"); top == "wal" || isBlock(top) {
				return dir, names, nil
			}
		}
		if err == nil {
			err = fmt.Errorf("%s: it has no block and no wal directory", dir)
		} else if said.String() != "" {
			err = fmt.Errorf("%w: %s", err, strings.TrimSpace(said.String()))
		}
		all = errors.Join(all, fmt.Errorf("list %s by tar: %w", dir, err))
	}
	if _, known := errors.AsType[interface {
		error
		Hint() string
	}](all); known {
		return "", nil, all
	}
	return "", nil, &notFoundError{all}
}

// notFoundError says that tar finds no data dir.
type notFoundError struct{ err error }

func (e *notFoundError) Error() string {
	return "no data dir is found: " + strings.ReplaceAll(e.err.Error(), "\n", "; ")
}
func (e *notFoundError) Unwrap() error { return e.err }
func (e *notFoundError) ExitCode() int { return 10 }
func (e *notFoundError) Hint() string {
	return "-d takes the directory that Prometheus got as --storage.tsdb.path"
}

// text is a bounded buffer for what a command says.
type text struct{ strings.Builder }

const maxText = 64 << 20 // names of a million files

func (t *text) Write(p []byte) (int, error) {
	if t.Len()+len(p) > maxText {
		return 0, errors.New("the list of files has no end")
	}
	return t.Builder.Write(p)
}

var _ io.Writer = (*text)(nil)
