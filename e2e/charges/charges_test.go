//go:build linux

package charges

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
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/promdump/promdump/internal/source/pod"
	"github.com/promdump/promdump/internal/tsdbtest"
	"github.com/promdump/promdump/internal/wire"
)

// TestCharges prints how many MiB a cgroup must have for what promdump does in it. It
// measures and judges nothing.
func TestCharges(t *testing.T) {
	if os.Getenv("PROMDUMP_E2E_CHARGES") != "1" {
		t.Skip("SKIPPED: PROMDUMP_E2E_CHARGES=1 measures")
	}
	l := newLab(t)
	var table strings.Builder
	table.WriteString("| what runs in the cgroup | smallest limit, MiB | unreclaimable, MiB | with page cache, MiB | seconds |\n|---|---|---|---|---|\n")
	for _, c := range l.cases() {
		if only := os.Getenv("PROMDUMP_E2E_CHARGES_ONLY"); only != "" && !strings.Contains(c.name, only) {
			continue
		}
		m := l.measure(c)
		row := fmt.Sprintf("| %s | %d | %.1f | %.1f | %.1f |\n", c.name, m.limit>>20, mib(m.unreclaimable), mib(m.peak), m.took.Seconds())
		fmt.Fprint(os.Stderr, row)
		table.WriteString(row)
	}
	t.Logf("\n%s", table.String())
}

func mib(n int64) float64 { return float64(n) / (1 << 20) }

// lab is a cgroup, an agent and a data dir.
type lab struct {
	t      *testing.T
	cgroup string // of the memory controller, v1
	data   string
	temp   string // where the agent is uploaded to, on a disk
	agent  []byte // gzip
	size   int64
}

func newLab(t *testing.T) *lab {
	t.Helper()
	l := &lab{t: t, cgroup: fmt.Sprintf("/sys/fs/cgroup/memory/promdump-e2e-%d", os.Getpid()), data: t.TempDir(), temp: t.TempDir()}
	if err := os.Mkdir(l.cgroup, 0o755); err != nil {
		t.Skipf("SKIPPED, proves nothing here: no memory controller of cgroup v1: %v", err)
	}
	t.Cleanup(func() {
		l.empty()
		if err := os.Remove(l.cgroup); err != nil {
			t.Error(err)
		}
	})
	series, err := strconv.Atoi(os.Getenv("PROMDUMP_E2E_CHARGES_SERIES"))
	if err != nil {
		series = 20000
	}
	end := time.Now().Truncate(2 * time.Hour)
	if _, err := tsdbtest.Bench(t.Context(), l.data, tsdbtest.Scale{Series: series, Blocks: 4 * time.Hour, End: end, Head: time.Hour}); err != nil {
		t.Fatal(err)
	}
	l.build()
	return l
}

// build makes the agent as the Makefile does, or takes the one that is named.
func (l *lab) build() {
	file := os.Getenv("PROMDUMP_E2E_CHARGES_AGENT")
	if file == "" {
		file = filepath.Join(l.t.TempDir(), "agent")
		cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", file, "./cmd/promdump-agent")
		cmd.Dir, cmd.Env = "../..", append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			l.t.Fatalf("%v: %s", err, out)
		}
	}
	b, err := os.ReadFile(file)
	if err != nil {
		l.t.Fatal(err)
	}
	var packed bytes.Buffer
	w, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
	if err != nil {
		l.t.Fatal(err)
	}
	if _, err := w.Write(b); err != nil {
		l.t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		l.t.Fatal(err)
	}
	l.agent, l.size = packed.Bytes(), int64(len(b))
	fmt.Fprintf(os.Stderr, "the agent has %.1f MiB, %.1f MiB with gzip\n", mib(l.size), mib(int64(len(l.agent))))
}

// work is what is measured.
type work struct {
	name string
	run  func(ctx context.Context) error
}

func (l *lab) cases() []work {
	command := func(args ...string) func(context.Context) error {
		return func(ctx context.Context) error {
			return l.exec("")(ctx, args, pod.Streams{In: strings.NewReader(""), Out: io.Discard, Err: os.Stderr})
		}
	}
	whole := wire.Selection{MinTime: 0, MaxTime: time.Now().UnixMilli()}
	cut := wire.Selection{MinTime: time.Now().Add(-5 * time.Hour).UnixMilli(), MaxTime: time.Now().Add(-2 * time.Hour).UnixMilli()}
	read := func(temp string, o pod.Options, s wire.Selection, head wire.HeadMode) func(context.Context) error {
		return func(ctx context.Context) error {
			return l.read(ctx, temp, o, wire.Request{Version: wire.Version, Selection: s, Head: head})
		}
	}
	tight := func() pod.Options { return pod.Options{Codec: wire.Plain, Limits: wire.Limits{Memory: 8 << 20}} }
	return []work{
		{"cat of four small files", command("cat", "/proc/self/status", "/proc/self/cgroup", "/proc/uptime", "/proc/loadavg")},
		{"cat of the data dir", command("sh", "-c", "cat "+l.data+"/*/chunks/* >/dev/null")},
		{"agent in tmpfs, inventory", l.inventory("/dev/shm")},
		{"agent on a disk, inventory", l.inventory(l.temp)},
		{"dump, defaults, agent in tmpfs", read("/dev/shm", pod.Options{Codec: wire.Zstd}, whole, wire.HeadBlock)},
		{"dump, defaults, agent on a disk", read(l.temp, pod.Options{Codec: wire.Zstd}, whole, wire.HeadBlock)},
		{"dump, no compression", read(l.temp, pod.Options{Codec: wire.Plain}, whole, wire.HeadBlock)},
		{"dump, no compression, raw head", read(l.temp, pod.Options{Codec: wire.Plain}, whole, wire.HeadRaw)},
		{"dump, defaults, cut blocks", read(l.temp, pod.Options{Codec: wire.Zstd}, cut, wire.HeadBlock)},
		{"dump, --memory-limit 24MiB", read(l.temp, pod.Options{Codec: wire.Zstd, Limits: wire.Limits{Memory: 24 << 20}}, whole, wire.HeadBlock)},
		{"dump, tight", read(l.temp, tight(), whole, wire.HeadBlock)},
		{"dump, tight, cut blocks", read(l.temp, tight(), cut, wire.HeadBlock)},
		{"dump, --memory-limit 24MiB, cut blocks", read(l.temp, pod.Options{Codec: wire.Zstd, Limits: wire.Limits{Memory: 24 << 20}}, cut, wire.HeadBlock)},
	}
}

// exec runs a command in the cgroup. Its shell's pages are charged too, as a kubelet's
// exec's are.
func (l *lab) exec(temp string) pod.Exec {
	return func(ctx context.Context, command []string, s pod.Streams) error {
		cmd := exec.CommandContext(ctx, "sh", append([]string{"-c", `echo $$ >"$0/cgroup.procs" && exec "$@"`, l.cgroup}, command...)...)
		cmd.Env = append(strings.Fields(os.Getenv("PROMDUMP_E2E_CHARGES_ENV")), "PATH="+os.Getenv("PATH"), "TMPDIR="+temp)
		cmd.Stdout, cmd.Stderr = s.Out, s.Err
		stdin, err := cmd.StdinPipe()
		if err != nil {
			return err
		}
		if err := cmd.Start(); err != nil {
			return err
		}
		go func() {
			_, _ = io.Copy(stdin, s.In)
			stdin.Close()
		}()
		return cmd.Wait()
	}
}

func (l *lab) source(temp string, o pod.Options) *pod.Source {
	o.Name, o.Exec, o.Dirs = "lab", l.exec(temp), []string{l.data}
	o.Agent = func(context.Context, string) ([]byte, int64, error) { return l.agent, l.size, nil }
	return pod.New(o)
}

func (l *lab) inventory(temp string) func(context.Context) error {
	return func(ctx context.Context) error {
		_, err := l.source(temp, pod.Options{Codec: wire.Zstd}).Inventory(ctx)
		return err
	}
}

func (l *lab) read(ctx context.Context, temp string, o pod.Options, req wire.Request) error {
	for m, err := range l.source(temp, o).Read(ctx, req) {
		if err != nil {
			return err
		}
		if f, ok := m.(*wire.File); ok {
			if _, err := io.Copy(io.Discard, f.Body); err != nil {
				return err
			}
		}
	}
	return nil
}

type measured struct {
	limit         int64 // the smallest under which it succeeds and no process is killed
	unreclaimable int64 // at most, without a limit
	peak          int64 // at most, without a limit, page cache included
	took          time.Duration
}

func (l *lab) measure(w work) (m measured) {
	const none = int64(1) << 40
	begin := time.Now()
	stop, done := make(chan struct{}), make(chan int64)
	go func() { done <- l.sample(stop) }()
	if err := l.under(none, w.run); err != nil {
		l.t.Fatalf("%s: %v", w.name, err)
	}
	close(stop)
	m.unreclaimable, m.peak = <-done, l.number("memory.max_usage_in_bytes")
	m.took = time.Since(begin)
	if os.Getenv("PROMDUMP_E2E_CHARGES_QUICK") == "1" {
		return m
	}
	low, high := int64(0), (m.peak>>20+2)<<20
	for high-low > 1<<20 {
		middle := (low + high) / 2 >> 20 << 20
		if errors.Join(l.under(middle, w.run), l.under(middle, w.run)) == nil { // it must work twice
			high = middle
		} else {
			low = middle
		}
	}
	m.limit = high
	return m
}

// under runs something with a limit. A killed process is an error.
func (l *lab) under(limit int64, run func(context.Context) error) error {
	l.empty()
	l.write("memory.limit_in_bytes", limit)
	l.write("memory.max_usage_in_bytes", 0)
	kills := l.stat("memory.oom_control", "oom_kill")
	ctx, cancel := context.WithTimeout(l.t.Context(), 10*time.Second)
	defer cancel()
	watched, stop := context.WithCancel(ctx)
	defer stop()
	go func() { // a source that lost its agent would try again
		for watched.Err() == nil {
			if l.stat("memory.oom_control", "oom_kill") > kills {
				cancel()
			}
			time.Sleep(5 * time.Millisecond)
		}
	}()
	err := run(ctx)
	if l.stat("memory.oom_control", "oom_kill") > kills {
		return errors.Join(errors.New("killed"), err)
	}
	return err
}

// empty drops the page cache, and waits until no process is there.
func (l *lab) empty() {
	l.write("memory.limit_in_bytes", 1<<40)
	for range 500 {
		b, err := os.ReadFile(filepath.Join(l.cgroup, "cgroup.procs"))
		if err == nil && len(bytes.TrimSpace(b)) == 0 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	l.write("memory.force_empty", 0)
}

// sample returns the most that could not have been reclaimed at one time.
func (l *lab) sample(stop chan struct{}) (most int64) {
	for {
		now := l.stat("memory.stat", "total_rss") + l.stat("memory.stat", "total_shmem") + l.number("memory.kmem.usage_in_bytes")
		most = max(most, now)
		select {
		case <-stop:
			return most
		case <-time.After(time.Millisecond):
		}
	}
}

func (l *lab) write(name string, n int64) {
	if err := os.WriteFile(filepath.Join(l.cgroup, name), fmt.Append(nil, n), 0); err != nil {
		l.t.Errorf("%s: %v", name, err)
	}
}

func (l *lab) number(name string) int64 {
	b, err := os.ReadFile(filepath.Join(l.cgroup, name))
	if err != nil {
		l.t.Error(err)
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	if err != nil {
		l.t.Error(err)
	}
	return n
}

func (l *lab) stat(name, key string) int64 {
	b, err := os.ReadFile(filepath.Join(l.cgroup, name))
	if err != nil {
		l.t.Error(err)
	}
	for line := range strings.Lines(string(b)) {
		if words := strings.Fields(line); len(words) == 2 && words[0] == key {
			n, err := strconv.ParseInt(words[1], 10, 64)
			if err != nil {
				l.t.Error(err)
			}
			return n
		}
	}
	return 0
}
