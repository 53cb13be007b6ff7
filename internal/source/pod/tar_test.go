package pod

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/promdump/promdump/internal/source"
	"github.com/promdump/promdump/internal/source/sourcetest"
	"github.com/promdump/promdump/internal/tsdbtest"
	"github.com/promdump/promdump/internal/wire"
)

// only makes a container that has these commands and no others.
func only(t *testing.T, c *container, commands ...string) {
	t.Helper()
	c.path = t.TempDir()
	for _, name := range commands {
		real, err := exec.LookPath(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(real, filepath.Join(c.path, name)); err != nil {
			t.Fatal(err)
		}
	}
}

// bare is an Exec into a container that has tar, or nothing. Its own place is the
// only one: what goes elsewhere is refused, as a read-only root does.
func (c *container) bare(places ...string) Exec {
	places = append(places, c.temp)
	return func(ctx context.Context, command []string, s Streams) error {
		switch command[0] {
		case "sh":
			return &AgentError{Err: errors.New("the container cannot run sh: no such file or directory")}
		case "tar":
			if c.path != "" {
				return &AgentError{Err: errors.New("the container cannot run tar: no such file or directory")}
			}
			allowed := false
			for _, p := range places {
				allowed = allowed || strings.Contains(strings.Join(command, " ")+" ", "-C "+p+" ")
			}
			if !allowed {
				fmt.Fprintln(s.Err, "tar: can't open 'x': Read-only file system")
				return &ExitError{Code: 1, Err: errors.New("tar ended with exit code 1")}
			}
		}
		err := c.exec(ctx, command, s)
		if end, ok := errors.AsType[*exec.ExitError](err); ok {
			return &ExitError{Code: end.ExitCode(), Err: err}
		}
		if errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.ENOEXEC) {
			return &AgentError{Err: err}
		}
		return err
	}
}

// Where there is no shell the agent comes by tar, and all is as by the shell.
func TestTarSource(t *testing.T) {
	sourcetest.Run(t, sourcetest.Kind{
		Open: func(t *testing.T, dir string) source.Source {
			c := newContainer(t)
			return c.source(dir, func(o *Options) { o.Exec, o.Volumes = c.bare(), []string{c.temp} })
		},
		Selections: 1, Seeds: 1, Stops: 1,
	})
}

// Over SPDY the end of a command that could not be started and was sent much is lost
// at times. That there is no tar is told all the same, at once.
func TestNoTarUnseen(t *testing.T) {
	c := newContainer(t)
	only(t, c)
	run := c.bare()
	src := c.source(t.TempDir(), func(o *Options) {
		o.Volumes = []string{c.temp}
		o.Note = func(s string) { t.Errorf("note: %s", s) }
		o.Exec = func(ctx context.Context, command []string, s Streams) error {
			if command[0] == "tar" && s.In != nil {
				if n, err := io.Copy(io.Discard, s.In); err != nil || n > 64<<10 {
					return err
				}
			}
			return run(ctx, command, s)
		}
	})
	_, err := src.Inventory(t.Context())
	if none, ok := errors.AsType[*AgentError](err); !ok || !none.NoTar {
		t.Errorf("got %v", err)
	}
}

// What the first directories cannot do the next one does, and none of them keeps
// anything.
func TestTarPlaces(t *testing.T) {
	tsdb := tsdbtest.Random(t, t.TempDir(), 3, tsdbtest.Options{Plain: true})
	noexec, full := newContainer(t), newContainer(t)
	c := newContainer(t)
	run := c.bare(noexec.temp, full.temp)
	removed := 0
	src := c.source(tsdb.Dir, func(o *Options) {
		o.Volumes = []string{"/nowhere", noexec.temp, full.temp, c.temp}
		o.Exec = func(ctx context.Context, command []string, s Streams) error {
			line := strings.Join(command, " ")
			if command[0] == "tar" && strings.Contains(line, " -U ") {
				removed++
			}
			switch {
			case strings.HasPrefix(command[0], noexec.temp):
				return &AgentError{Err: fmt.Errorf("exec: %q: permission denied", command[0])}
			case strings.HasPrefix(line, "tar -x -f - -C "+full.temp), strings.HasSuffix(line, "/nowhere"):
				in, err := io.ReadAll(s.In)
				if err != nil {
					return err
				}
				if len(in) > 1<<20 && strings.HasSuffix(line, "/nowhere") {
					t.Error("the agent is sent to a directory that is not there")
				}
				if len(in) > 1<<20 { // the agent, not what removes it
					_ = run(ctx, command, Streams{In: bytes.NewReader(in[:1<<20]), Out: s.Out, Err: s.Err})
					fmt.Fprintln(s.Err, "tar: write error: No space left on device")
					<-ctx.Done() // as nothing is heard of its end over WebSocket
					return ctx.Err()
				}
				s.In = bytes.NewReader(in)
			}
			return run(ctx, command, s)
		}
	})
	if inv, err := src.Inventory(t.Context()); err != nil || len(inv.Blocks) == 0 {
		t.Errorf("got %v, %v", inv, err)
	}
	if removed != 2 {
		t.Errorf("%d files were removed", removed)
	}
}

// When there is no place the error says why, and tries no more.
func TestTarNoPlace(t *testing.T) {
	for what, x := range map[string]struct {
		volume bool
		agent  Agents
		path   string
		want   string
	}{
		"nothing to write to": {false, agents, "", "no directory of the container can be written"},
		"another machine's":   {true, foreign, "", "exec format error"},
		"no tar either":       {true, agents, "/nowhere", "neither a shell nor tar"},
	} {
		c := newContainer(t)
		c.path = x.path
		src := c.source(t.TempDir(), func(o *Options) {
			o.Exec, o.Agent = c.bare(), x.agent
			if x.volume {
				o.Volumes = []string{c.temp}
			}
			o.times.limit = o.times.answer + 100*time.Millisecond
		})
		_, err := src.Inventory(t.Context())
		none, ok := errors.AsType[*AgentError](err)
		if !ok || !strings.Contains(err.Error(), x.want) || none.ExitCode() != 12 || none.NoTar != (x.path != "") {
			t.Errorf("%s: %v", what, err)
		}
		c.nothingLeft()
	}
}

// foreign is an agent for another machine.
func foreign(context.Context, string) ([]byte, int64, error) {
	p, err := program()
	if err != nil {
		return nil, 0, err
	}
	body, err := bodyOf(p.gzip, false)
	if err != nil {
		return nil, 0, err
	}
	body[18] ^= 0xff // the machine
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, err = w.Write(body)
	err = errors.Join(err, w.Close())
	return b.Bytes(), p.size, err
}

// A shell would run a program of another machine as a script.
func TestShellForeign(t *testing.T) {
	if _, err := program(); err != nil { // it is built in this directory
		t.Fatal(err)
	}
	for _, commands := range [][]string{
		{"sh", "head", "tail", "wc", "rm", "chmod", "gzip"}, // does not know what machine it is
		{"sh", "head", "tail", "wc", "rm", "chmod"},
	} {
		c := newContainer(t)
		only(t, c, commands...)
		wd := t.TempDir()
		t.Chdir(wd)
		_, err := c.source(t.TempDir(), func(o *Options) {
			o.Agent = foreign
			o.Exec = func(ctx context.Context, command []string, s Streams) error {
				err := c.exec(ctx, command, s)
				if end, ok := errors.AsType[*exec.ExitError](err); ok {
					return &ExitError{Code: end.ExitCode(), Err: err}
				}
				return err
			}
		}).Inventory(t.Context())
		none, ok := errors.AsType[*AgentError](err)
		if !ok || !strings.Contains(err.Error(), "exec format error") || !strings.Contains(none.Hint(), "another kind of machine") || c.started.Load() != 2 {
			t.Errorf("got %v after %d starts, not one to run it and one to remove it", err, c.started.Load())
		}
		c.nothingLeft()
		if left, err := os.ReadDir(wd); err != nil || len(left) > 0 {
			t.Errorf("left in the working directory: %v, %v", left, err)
		}
	}
}

// An agent that dies before it has removed its file has no shell behind it that would.
func TestStartDies(t *testing.T) {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	const dies = "#!/bin/sh\nexit 7\n"
	_, err := io.WriteString(w, dies)
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	c := newContainer(t) // nothing is left in it at the end
	_, err = c.source(t.TempDir(), func(o *Options) {
		o.Agent = func(context.Context, string) ([]byte, int64, error) { return b.Bytes(), int64(len(dies)), nil }
		o.Exec = func(ctx context.Context, command []string, s Streams) error {
			err := c.exec(ctx, command, s)
			if end, ok := errors.AsType[*exec.ExitError](err); ok {
				return &ExitError{Code: end.ExitCode(), Err: err}
			}
			return err
		}
	}).Inventory(t.Context())
	if _, ok := errors.AsType[*AgentError](err); !ok {
		t.Errorf("got %v", err)
	}
}

// A place without room for the agent is none, and nothing stays in it.
func TestShellFull(t *testing.T) {
	c := newContainer(t)
	_, err := c.source(t.TempDir(), func(o *Options) {
		o.Exec = func(ctx context.Context, command []string, s Streams) error {
			return c.exec(ctx, append([]string{"sh", "-c", `ulimit -f 2000; exec "$@"`, "sh"}, command...), s)
		}
	}).Inventory(t.Context())
	none, ok := errors.AsType[*AgentError](err)
	if !ok || !strings.HasPrefix(err.Error(), "the agent could not run: no directory") || !strings.Contains(err.Error(), "MiB left (full: ") || !strings.Contains(err.Error(), c.temp) || !strings.Contains(none.Hint(), "make room") {
		t.Errorf("got %v", err)
	}
}

// A container with few commands is enough.
func TestFewCommands(t *testing.T) {
	tsdb := tsdbtest.Random(t, t.TempDir(), 3, tsdbtest.Options{Plain: true})
	c := newContainer(t)
	only(t, c, "sh", "head", "wc", "rm", "chmod")
	if _, _, _, err := sourcetest.Dump(t, c.source(tsdb.Dir), wire.Request{Head: wire.HeadNone, Selection: tsdbtest.Everything()}); err != nil {
		t.Error(err)
	}
}

// goneForGood is what an Exec says of a container that nothing brings back.
type goneForGood struct{ error }

func (goneForGood) Final() bool { return true }

// What is gone for good is not waited for; what came of it is.
func TestGoneForGood(t *testing.T) {
	tsdb := tsdbtest.Random(t, t.TempDir(), 3, tsdbtest.Options{Plain: true})
	c := newContainer(t)
	c.cut = func(int) int64 { return 100_000 }
	starts := 0
	src := c.source(tsdb.Dir, func(o *Options) {
		o.Exec = func(ctx context.Context, command []string, s Streams) error {
			if starts++; starts > 1 {
				return goneForGood{errors.New("it was deleted")}
			}
			return c.exec(ctx, command, s)
		}
	})
	_, _, _, err := sourcetest.Dump(t, src, wire.Request{Head: wire.HeadNone, Selection: tsdbtest.Everything()})
	lost, ok := errors.AsType[*LostError](err)
	if !ok || lost.Tries > 2 || starts != 2 || !strings.Contains(err.Error(), "is lost") || !strings.Contains(err.Error(), "deleted") {
		t.Errorf("got %v after %d starts", err, starts)
	}
}
