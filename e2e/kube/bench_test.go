//go:build linux

package kube

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/promdump/promdump/internal/tsdbtest"
)

// TestBench is make bench-e2e: whole dumps through exec, side by side, twice
// in turns. It measures and judges nothing.
func TestBench(t *testing.T) {
	if os.Getenv("PROMDUMP_E2E_BENCH") != "1" {
		t.Skip("SKIPPED: make bench-e2e measures")
	}
	c := booted(t)
	dir, err := os.MkdirTemp(c.dir, "seed-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	end := time.Now().Add(-time.Hour).Truncate(2 * time.Hour)
	if _, err := tsdbtest.Bench(context.Background(), dir, tsdbtest.Scale{Series: 58_000, Blocks: 8 * time.Hour, End: end, Head: time.Hour}); err != nil {
		t.Fatal(err)
	}
	p := startPod(t, "bb", podOptions{data: dir, quiet: true})
	data := p.dataDir()
	out := filepath.Join(t.TempDir(), "dump")
	kubectl := func(args ...string) *exec.Cmd {
		cmd := c.command(t.Context(), c.config, append([]string{"-n", p.namespace, "exec", p.name, "--"}, args...)...)
		cmd.Stdout = io.Discard
		return cmd
	}
	dump := func(args ...string) *exec.Cmd {
		return pluginCommand(t, c.config, append([]string{"-n", p.namespace, "-p", p.name, "--min-time", "0", "-t", out}, args...)...)
	}
	ways := []struct {
		name string
		cmd  func() *exec.Cmd
	}{
		{"kubectl exec -- cat of all files", func() *exec.Cmd {
			return kubectl("sh", "-c", "cat "+data+"/*/chunks/* "+data+"/*/index "+data+"/wal/0*")
		}},
		{"kubectl exec -- tar cf -", func() *exec.Cmd { return kubectl("tar", "cf", "-", data) }},
		{"kubectl exec -- tar czf -", func() *exec.Cmd { return kubectl("tar", "czf", "-", data) }},
		{"kubectl promdump --head raw --compression none", func() *exec.Cmd { return dump("--head", "raw", "--compression", "none") }},
		{"kubectl promdump --head raw (gzip)", func() *exec.Cmd { return dump("--head", "raw") }},
		{"kubectl promdump (gzip, head as blocks)", func() *exec.Cmd { return dump() }},
		{"kubectl promdump --via tar --head raw --compression none", func() *exec.Cmd { return dump("--via", "tar", "--head", "raw", "--compression", "none") }},
	}
	var size int64
	for _, f := range p.files(data) {
		if f.Mode().IsRegular() {
			size += f.Size()
		}
	}
	var table strings.Builder
	fmt.Fprintf(&table, "%d MB in the data dir\n", size/1e6)
	for run := range 2 {
		for _, w := range ways {
			peak := make(chan int64, 1)
			done := make(chan struct{})
			go func() {
				var most int64
				for {
					for _, x := range p.processes() {
						if strings.Contains(x.args, ".promdump-agent") && !strings.Contains(x.args, "sh -c") {
							most = max(most, x.peak)
						}
					}
					select {
					case <-done:
						peak <- most
						return
					case <-time.After(50 * time.Millisecond):
					}
				}
			}()
			begin := time.Now()
			r := finish(t, w.cmd())
			took := time.Since(begin)
			close(done)
			if r.code != 0 {
				t.Fatalf("%s: exit %d: %s", w.name, r.code, r.stderr)
			}
			line := fmt.Sprintf("run %d  %-60s %7.2f s  %6.1f MB/s of the data dir  agent's peak RSS %.1f MiB\n",
				run+1, w.name, took.Seconds(), float64(size)/1e6/took.Seconds(), float64(<-peak)/(1<<20))
			fmt.Fprint(os.Stderr, line) // at once: it takes minutes
			table.WriteString(line)
		}
	}
	t.Log("\n" + table.String())
}
