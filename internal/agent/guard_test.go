package agent

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/promdump/promdump/internal/tsdbtest"
	"github.com/promdump/promdump/internal/wire"
)

// guarded runs the guard while a container changes once a second, and returns what it
// ended the work with, and after how many changes.
func guarded(t *testing.T, c *container, changes ...func(*container)) (*MemoryError, int) {
	t.Helper()
	var short *MemoryError
	n := 0
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		defer cancel(nil)
		go memoryOf(c).guard(ctx, cancel)
		for _, change := range changes {
			time.Sleep(time.Second)
			if ctx.Err() != nil {
				break
			}
			c.change(change)
			n++
		}
		time.Sleep(time.Second)
		short, _ = errors.AsType[*MemoryError](context.Cause(ctx))
	})
	return short, n
}

func TestGuard(t *testing.T) {
	for _, version := range []int{1, 2} {
		grow := func(c *container) { c.usage += 33 * mib }
		read := func(c *container) { c.usage += 30 * mib; c.inactive += 29 * mib; c.active += mib }
		short, n := guarded(t, newContainer(version, 100*mib, 5*mib), read, grow, grow, grow)
		if short == nil || n != 4 || !short.Running || short.Killed || short.Limit != 100*mib {
			t.Errorf("v%d: stopped by %v after %d changes, not after 4", version, short, n)
		}
		// The page cache may have all of it.
		if short, _ = guarded(t, newContainer(version, 100*mib, 5*mib), read, read, read, func(c *container) { c.inactive += mib }); short != nil {
			t.Errorf("v%d: page cache stopped it: %v", version, short)
		}
		short, n = guarded(t, newContainer(version, 100*mib, 5*mib), grow, func(c *container) { c.kills++ }, grow)
		if short == nil || n != 2 || !short.Killed {
			t.Errorf("v%d: stopped by %v after %d changes, not by a kill after 2", version, short, n)
		}
	}
	var none *memory
	none.guard(t.Context(), nil) // without a limit there is nothing to watch
}

// A container that gets short of memory during a dump ends it: the client gets a failure
// in the middle of a file, and its code.
func TestServeStopsForMemory(t *testing.T) {
	dir := t.TempDir()
	if _, err := tsdbtest.Bench(t.Context(), dir, tsdbtest.Scale{Series: 200, Blocks: 2 * time.Hour, End: time.Now().Truncate(2 * time.Hour), Head: time.Minute}); err != nil {
		t.Fatal(err)
	}
	blocks, err := filepath.Glob(filepath.Join(dir, "*", "chunks", "000001"))
	if err != nil || len(blocks) == 0 {
		t.Fatalf("no blocks: %v", err)
	}
	const large = 256 << 20 // sparse, and more than is sent before the guard has looked
	if err := os.Truncate(blocks[0], large); err != nil {
		t.Fatal(err)
	}
	c := newContainer(2, 100*mib, 20*mib)
	var call bytes.Buffer
	req := &wire.Request{Version: wire.Version, Selection: wire.Selection{MaxTime: time.Now().UnixMilli()}, Head: wire.HeadNone}
	if err := wire.WriteCall(&call, wire.Call{Version: wire.Version, Do: wire.DoRead, Dirs: []string{dir}, Request: req}); err != nil {
		t.Fatal(err)
	}
	in := &blocking{&call, make(chan struct{})}
	out, answer := io.Pipe()
	served := make(chan error, 1)
	go func() {
		served <- Serve(t.Context(), Process{In: in, Out: answer, Err: io.Discard, Cgroup: c, Limit: func(int64) {}})
	}()
	r := wire.NewReader(out)
	for {
		m, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		f, ok := m.(*wire.File)
		if !ok || !strings.HasSuffix(f.Name, "/chunks/000001") {
			if ok {
				_, err = io.Copy(io.Discard, f.Body)
			}
			if err != nil {
				t.Fatal(err)
			}
			continue
		}
		seen := make(chan struct{}, 1)
		c.change(func(c *container) {
			c.usage = 99 * mib
			c.reads = func() {
				select {
				case seen <- struct{}{}:
				default:
				}
			}
		})
		<-seen
		_, err = io.Copy(io.Discard, f.Body)
		failure, ok := errors.AsType[*wire.Failure](err)
		if !ok || failure.Code != codeIncomplete || !strings.Contains(failure.Text, "stopped itself") || failure.Tip == "" {
			t.Fatalf("the file ends with %v", err)
		}
		break
	}
	close(in.end)
	if err := <-served; err == nil {
		t.Error("it says that it served")
	} else if _, ok := errors.AsType[*MemoryError](err); !ok && !errors.Is(err, errClientGone) {
		t.Error(err)
	}
}
