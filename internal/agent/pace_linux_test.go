package agent

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"testing/fstest"
	"time"
)

// TestServerWatch watches this process: what it runs is seen, and a cgroup that stops
// its processes as well.
func TestServerWatch(t *testing.T) {
	cgroup := fstest.MapFS{"cpu.stat": {Data: []byte("nr_periods 9\nnr_throttled 3\n")}}
	w := &serverWatch{proc: "/proc", pids: []int{os.Getpid()}, cgroup: cgroup, threads: map[string]*thread{}, stat: "cpu.stat", throttled: 3}
	w.list()
	defer w.close()
	if l, ok := w.look(); !ok || l.throttled {
		t.Fatalf("%+v, %v", l, ok)
	}
	for begin := time.Now(); time.Since(begin) < 60*time.Millisecond; { // works
		runtime.Gosched()
	}
	cgroup["cpu.stat"] = &fstest.MapFile{Data: []byte("nr_periods 19\nnr_throttled 4\n")}
	w.statRead = time.Time{}
	l, ok := w.look()
	if !ok || l.ran+l.waited < 20*time.Millisecond || !l.throttled {
		t.Errorf("after 60 ms of work and one period that was throttled: %+v, %v", l, ok)
	}
	w.statRead = time.Time{}
	if l, _ := w.look(); l.throttled {
		t.Error("no period was throttled since")
	}
}

// TestServerWatchFindsIt by what it has open, and else by its name.
func TestServerWatchFindsIt(t *testing.T) {
	proc := t.TempDir()
	put := func(pid int, comm string) {
		dir := filepath.Join(proc, fmt.Sprint(pid), "task", fmt.Sprint(pid))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for name, text := range map[string]string{filepath.Join(dir, "schedstat"): "100 200 3\n", filepath.Join(proc, fmt.Sprint(pid), "comm"): comm + "\n"} {
			if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	put(7, "sh")
	if w := watchServer(proc, fstest.MapFS{}, t.TempDir(), "prometheus"); w != nil {
		t.Errorf("%v is no server", w)
	}
	put(8, "prometheus")
	if w := watchServer(proc, fstest.MapFS{}, t.TempDir(), ""); w != nil {
		t.Errorf("%v was not asked for", w)
	}
	w := watchServer(proc, fstest.MapFS{"cpu/cpu.stat": {Data: []byte("nr_throttled 1\n")}}, t.TempDir(), "prometheus")
	if w == nil || len(w.threads) != 1 || w.stat != "cpu/cpu.stat" {
		t.Fatalf("%v", w)
	}
	defer w.close()
	// A process that has ended has no threads.
	for _, one := range w.threads {
		one.file.Close()
	}
	if _, ok := w.look(); ok {
		t.Error("a server that is gone is watched")
	}
}

// waiting is a signal of a server that waits from the first look on, until it is gone.
type waiting struct{ looks, gone int }

func (w *waiting) look() (l load, ok bool) {
	w.looks++
	l.ran = paceTick
	l.waited = 10 * paceTick
	return l, w.gone == 0 || w.looks < w.gone
}

func (w *waiting) close() {}

// TestPacedWriter: nothing is lost, there is a pause when the server begins to wait, and
// none where there is no server.
func TestPacedWriter(t *testing.T) {
	text := bytes.Repeat([]byte("0123456789"), 40_000) // more than is sent before the first look
	write := func(gentle bool, s signal) (time.Duration, *pacedWriter) {
		var out bytes.Buffer
		p := newPacedWriter(t.Context(), &out, gentle, slog.New(slog.DiscardHandler))
		defer p.close()
		p.watch(s)
		begin := time.Now()
		if n, err := p.Write(text); n != len(text) || err != nil || !bytes.Equal(out.Bytes(), text) {
			t.Fatalf("%d of %d bytes, %v", n, len(text), err)
		}
		return time.Since(begin), p
	}
	if d, _ := write(false, nil); d > 100*time.Millisecond {
		t.Errorf("without a server %v", d)
	}
	if d, _ := write(false, &waiting{}); d < 90*time.Millisecond {
		t.Errorf("400 kB took %v while the server waits", d)
	}
	if d, p := write(false, &waiting{gone: 2}); d > 100*time.Millisecond || p.signal != nil {
		t.Errorf("after the server was gone %v", d)
	}
	ctx, cancel := context.WithCancel(t.Context())
	p := newPacedWriter(ctx, &bytes.Buffer{}, true, slog.New(slog.DiscardHandler))
	p.watch(&waiting{})
	cancel()
	if _, err := p.Write(bytes.Repeat(text, 10)); err == nil {
		t.Error("a canceled write goes on")
	}
}
