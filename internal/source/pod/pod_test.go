package pod

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/promdump/promdump/internal/source"
	"github.com/promdump/promdump/internal/source/local"
	"github.com/promdump/promdump/internal/source/sourcetest"
	"github.com/promdump/promdump/internal/tsdbtest"
	"github.com/promdump/promdump/internal/wire"
)

// program is the real agent, built once, and its size.
var program = sync.OnceValues(func() (packed packed, err error) {
	dir, err := os.MkdirTemp("", "promdump-agent-test-")
	if err != nil {
		return packed, err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "agent")
	cmd := exec.Command("go", "build", "-ldflags", "-s -w", "-o", file, "github.com/promdump/promdump/cmd/promdump-agent")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return packed, fmt.Errorf("%w: %s", err, out)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return packed, err
	}
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	w.Write(b)
	err = w.Close()
	packed.gzip, packed.size = buf.Bytes(), int64(len(b))
	return packed, err
})

type packed struct {
	gzip []byte
	size int64
}

func agents(context.Context, string) ([]byte, int64, error) {
	p, err := program()
	return p.gzip, p.size, err
}

// container runs commands on this machine, with a place of its own for the agent.
type container struct {
	t       *testing.T
	temp    string
	started atomic.Int32
	path    string // of the commands that it has; empty: ours

	// cut ends a stream after so many bytes; negative: not.
	cut func(n int) int64

	// An agent that waits outlives its streams, and so does the shell that started it.
	waits   bool
	running sync.WaitGroup
	uploads atomic.Int32 // commands that were a shell
}

func newContainer(t *testing.T) *container {
	c := &container{t: t, temp: t.TempDir(), cut: func(int) int64 { return -1 }}
	t.Cleanup(func() { c.nothingLeft() })
	return c
}

func (c *container) nothingLeft() {
	c.t.Helper()
	ended := make(chan struct{})
	go func() {
		c.running.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		c.t.Error("a process is left in the container")
	}
	left, err := os.ReadDir(c.temp)
	if err != nil || len(left) > 0 {
		c.t.Errorf("left in the container: %v, %v", left, err)
	}
}

func (c *container) exec(ctx context.Context, command []string, s Streams) error {
	in, out, errw := s.In, s.Out, s.Err
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	// A cut stream does not kill what runs far away: the end of its stdin does.
	cmd.Cancel = func() error { return nil }
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "TMPDIR=" + c.temp}
	if c.path != "" {
		cmd.Env[0] = "PATH=" + c.path
	}
	cmd.Stderr = errw
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if command[0] == "sh" {
		c.uploads.Add(1)
	}
	limit := c.cut(int(c.started.Add(1)) - 1)
	lost := make(chan struct{})
	cmd.Stdout = out
	if limit >= 0 {
		cmd.Stdout = &cutting{out, limit, lost}
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	go func() {
		io.Copy(stdin, in)
		stdin.Close()
	}()
	ended := make(chan error, 1)
	c.running.Go(func() { ended <- cmd.Wait() })
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	case <-lost:
	}
	stdin.Close()
	if c.waits {
		return nil
	}
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		c.t.Error("the agent outlives its client")
		cmd.Process.Kill()
	}
	return nil // as Kubernetes does
}

// cutting is a stream that is lost after some bytes.
type cutting struct {
	w    io.Writer
	left int64
	lost chan struct{}
}

func (c *cutting) Write(p []byte) (int, error) {
	if int64(len(p)) <= c.left {
		c.left -= int64(len(p))
		return c.w.Write(p)
	}
	c.w.Write(p[:c.left])
	c.left = 0
	select {
	case <-c.lost:
	default:
		close(c.lost)
	}
	return len(p), nil
}

func (c *container) source(dir string, change ...func(*Options)) *Source {
	o := Options{
		Name: "test", Exec: c.exec, Agent: agents, Dirs: []string{dir}, Codec: wire.Zstd,
		times: times{
			stall: 20 * time.Second, silence: 20 * time.Second, ping: 50 * time.Millisecond,
			limit: 40 * time.Second, answer: 5 * time.Second, pause: []time.Duration{time.Millisecond}, tries: 4,
		},
	}
	for _, f := range change {
		f(&o)
	}
	return New(o)
}

func TestSource(t *testing.T) {
	sourcetest.Run(t, sourcetest.Kind{
		Open:       func(t *testing.T, dir string) source.Source { return newContainer(t).source(dir) },
		Selections: 4, Seeds: 1, Stops: 12,
	})
}

// However often the stream is cut, the dump is that of a stream that was not.
func TestCutStreams(t *testing.T) {
	tsdb := tsdbtest.Random(t, t.TempDir(), 11, tsdbtest.Options{})
	rng := rand.New(rand.NewPCG(3, 4))
	cuts := 0
	for i, sel := range tsdb.Selections(2, 3) {
		for _, head := range []wire.HeadMode{wire.HeadBlock, wire.HeadRaw} {
			req := wire.Request{Head: head, Selection: sel}
			_, _, want, err1 := sourcetest.Dump(t, local.New(tsdb.Dir, local.Options{}), req)
			for _, most := range []int64{3_000, 200_000} {
				c := newContainer(t)
				// Far enough on the average that the story gets further.
				c.cut = func(n int) int64 {
					if n > 12 {
						return -1
					}
					return 60 + rng.Int64N(most)
				}
				write := sourcetest.Dump
				if most > 10_000 {
					write = sourcetest.DumpToStream
				}
				_, _, got, err2 := write(t, c.source(tsdb.Dir, func(o *Options) {
					o.times.tries = 20
					o.Codec = []wire.Codec{wire.Plain, wire.Zstd}[i%2]
				}), req)
				if (err1 == nil) != (err2 == nil) || !bytes.Equal(want, got) {
					t.Errorf("selection %d, %s, cut within %d bytes: %d bytes, want %d (%v, want %v)", i, head, most, len(got), len(want), err2, err1)
				}
				cuts += int(c.started.Load()) - 1
				c.nothingLeft()
			}
		}
	}
	if t.Logf("%d cuts", cuts); cuts < 50 {
		t.Errorf("too few to prove anything")
	}
}

// A stream that is cut again and again at its beginning is given up, before its agent runs
// and after, though each stream brings the plan again.
func TestGivesUp(t *testing.T) {
	tsdb := tsdbtest.Random(t, t.TempDir(), 3, tsdbtest.Options{Plain: true})
	for _, one := range []struct {
		cut   int64
		limit time.Duration // above the time for the last answer
		tries int           // 0: as many as there is time for
	}{{5, 300 * time.Millisecond, 0}, {70, time.Minute, 4}, {400, time.Minute, 4}} {
		c := newContainer(t)
		c.cut = func(int) int64 { return one.cut }
		var notes []string
		src := c.source(tsdb.Dir, func(o *Options) {
			o.Note = func(s string) { notes = append(notes, s) }
			o.times.limit = o.times.answer + one.limit
		})
		_, _, _, err := sourcetest.Dump(t, src, wire.Request{Head: wire.HeadNone, Selection: tsdbtest.Everything()})
		lost, ok := errors.AsType[*LostError](err)
		if !ok || one.tries > 0 && lost.Tries != one.tries || lost.Tries < 2 || len(notes) != lost.Tries-1 {
			t.Errorf("cut at byte %d: got %v, notes %q", one.cut, err, notes)
		}
	}
}

// A stream that stands still is as good as cut.
func TestStall(t *testing.T) {
	tsdb := tsdbtest.Random(t, t.TempDir(), 3, tsdbtest.Options{Plain: true})
	c := newContainer(t)
	src := c.source(tsdb.Dir, func(o *Options) {
		o.times.stall = 300 * time.Millisecond
		o.times.limit = o.times.answer + 100*time.Millisecond
		o.Exec = func(ctx context.Context, command []string, s Streams) error {
			s.Out = &cutting{s.Out, 500, make(chan struct{})} // and nobody is told
			return c.exec(ctx, command, s)
		}
	})
	_, _, _, err := sourcetest.Dump(t, src, wire.Request{Head: wire.HeadNone, Selection: tsdbtest.Everything()})
	if err == nil || !strings.Contains(err.Error(), "nothing came for") {
		t.Errorf("got %v", err)
	}
}

// What the agent says is told as it is, and no second try is made.
func TestAgentRefuses(t *testing.T) {
	c := newContainer(t)
	_, err := c.source("/nowhere/at/all").Inventory(t.Context())
	f, ok := errors.AsType[*wire.Failure](err)
	if !ok || f.ExitCode() != 10 || !strings.Contains(err.Error(), "/nowhere/at/all") || c.started.Load() != 1 {
		t.Errorf("got %v after %d starts", err, c.started.Load())
	}
}

func TestSecondDataDir(t *testing.T) {
	tsdb := tsdbtest.Random(t, t.TempDir(), 3, tsdbtest.Options{Plain: true})
	want, err := local.New(tsdb.Dir, local.Options{}).Inventory(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c := newContainer(t)
	src := c.source("/nowhere", func(o *Options) { o.Dirs = append(o.Dirs, t.TempDir(), tsdb.Dir) })
	got, err := src.Inventory(t.Context())
	if err != nil || len(got.Blocks) != len(want.Blocks) {
		t.Errorf("got %v, %v", got, err)
	}
}

// Whoever leaves early leaves nothing behind.
func TestLeaving(t *testing.T) {
	tsdb := tsdbtest.Random(t, t.TempDir(), 3, tsdbtest.Options{Plain: true})
	for stop := range 6 {
		c := newContainer(t)
		ctx, cancel := context.WithCancel(t.Context())
		n := 0
		for range c.source(tsdb.Dir).Read(ctx, wire.Request{Head: wire.HeadBlock, Selection: tsdbtest.Everything()}) {
			if n++; n > stop {
				if stop%2 == 0 {
					break
				}
				cancel()
			}
		}
		cancel()
		c.nothingLeft()
	}
}
