package podtar

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/promdump/promdump/internal/source"
	"github.com/promdump/promdump/internal/source/local"
	"github.com/promdump/promdump/internal/source/pod"
	"github.com/promdump/promdump/internal/source/sourcetest"
	"github.com/promdump/promdump/internal/tsdbtest"
	"github.com/promdump/promdump/internal/wire"
)

// run runs commands on this machine, with the tar that is here.
func run(ctx context.Context, command []string, s pod.Streams) error {
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Stdout, cmd.Stderr = s.Out, s.Err
	return cmd.Run()
}

func open(t *testing.T, dir string, run pod.Exec) *Source {
	return New(Options{Name: "test", Exec: run, Dirs: []string{"/nowhere", dir}, Staging: t.TempDir(), pause: time.Millisecond})
}

func TestSource(t *testing.T) {
	sourcetest.Run(t, sourcetest.Kind{
		Open:       func(t *testing.T, dir string) source.Source { return open(t, dir, run) },
		Selections: 6, Seeds: 1, Stops: 8,
	})
}

// A stream that ends early is no archive, wherever it ends and whatever the
// command's exit code is.
func TestCut(t *testing.T) {
	tsdb := tsdbtest.Random(t, t.TempDir(), 3, tsdbtest.Options{Plain: true})
	req := wire.Request{Head: wire.HeadBlock, Selection: tsdbtest.Everything()}
	_, _, want, err := sourcetest.Dump(t, local.New(tsdb.Dir, local.Options{}), req)
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for range 20 {
		cut := rng.Int64N(300_000) / 512 * 512
		n := 0
		src := open(t, tsdb.Dir, func(ctx context.Context, command []string, s pod.Streams) error {
			if n++; n == 3 || n == 6 || n == 10 {
				s.Out = &short{s.Out, cut}
			}
			return run(ctx, command, s)
		})
		_, _, got, err := sourcetest.Dump(t, src, req)
		if err != nil || string(got) != string(want) {
			t.Errorf("cut at %d: %d bytes, want %d, %v", cut, len(got), len(want), err)
		}
	}
	lost := open(t, tsdb.Dir, func(ctx context.Context, command []string, s pod.Streams) error {
		if command[1] == "-chf" {
			s.Out = &short{s.Out, 1024}
		}
		return run(ctx, command, s)
	})
	if _, _, _, err = sourcetest.Dump(t, lost, req); err == nil {
		t.Error("a dump was made of next to nothing")
	} else if _, ok := errors.AsType[*pod.LostError](err); !ok {
		t.Errorf("got %v", err)
	}
}

// short loses what comes after some bytes, and nobody is told.
type short struct {
	w    io.Writer
	left int64
}

func (s *short) Write(p []byte) (int, error) {
	n := min(int64(len(p)), s.left)
	s.left -= n
	if _, err := s.w.Write(p[:n]); err != nil {
		return 0, err
	}
	return len(p), nil
}

func TestNoDataDir(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "note"), nil, 0o666); err != nil {
		t.Fatal(err)
	}
	_, err := open(t, dir, run).Inventory(t.Context())
	if code, ok := errors.AsType[interface {
		error
		ExitCode() int
	}](err); !ok || code.ExitCode() != 10 {
		t.Errorf("got %v", err)
	}
}

// A failed check keeps tar from being run, and so does a container that was restarted.
func TestCheckKeepsOut(t *testing.T) {
	short, dead := errors.New("short"), errors.New("restarted")
	runs := 0
	exec := func(context.Context, []string, pod.Streams) error {
		runs++
		return errors.New("broken")
	}
	src := New(Options{
		Exec: exec, Dirs: []string{"/data"}, Staging: t.TempDir(), pause: time.Nanosecond,
		Check: func(context.Context) (bool, error) { return false, short },
		Alive: func(context.Context) error { return dead },
	})
	if _, err := src.Inventory(t.Context()); !errors.Is(err, dead) || runs != 0 {
		t.Errorf("%v after %d commands", err, runs)
	}
	src.o.Alive = nil
	if _, err := src.Inventory(t.Context()); !errors.Is(err, short) || runs != 0 {
		t.Errorf("%v after %d commands", err, runs)
	}
}

// A full disk here is not a broken stream: tar does not begin again.
func TestFullDisk(t *testing.T) {
	if _, err := os.Stat("/dev/full"); err != nil {
		t.Skip("there is no /dev/full")
	}
	tsdb := tsdbtest.Random(t, t.TempDir(), 3, tsdbtest.Options{Plain: true})
	logs, err := filepath.Glob(filepath.Join(tsdb.Dir, "wal", "0*"))
	if err != nil || len(logs) == 0 {
		t.Fatalf("no log: %v", err)
	}
	staging, streams, notes := t.TempDir(), 0, 0
	src := New(Options{
		Name: "test", Dirs: []string{tsdb.Dir}, Staging: staging, pause: time.Millisecond, Note: func(string) { notes++ },
		Exec: func(ctx context.Context, command []string, s pod.Streams) error {
			if command[1] == "-chf" {
				streams++
				dirs, _ := filepath.Glob(filepath.Join(staging, "*", "files"))
				for _, dir := range dirs {
					_ = os.Mkdir(filepath.Join(dir, "wal"), 0o700)
					for _, log := range logs {
						_ = os.Symlink("/dev/full", filepath.Join(dir, "wal", filepath.Base(log)))
					}
				}
			}
			return run(ctx, command, s)
		},
	})
	_, _, _, err = sourcetest.Dump(t, src, wire.Request{Head: wire.HeadBlock, Selection: tsdbtest.Everything()})
	if !errors.Is(err, syscall.ENOSPC) || streams != 1 || notes != 0 {
		t.Errorf("%v after %d streams, %d notes", err, streams, notes)
	}
}
