//go:build linux

package kube

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestBenchLatency is the part of make bench-e2e that measures what the server's
// clients notice of a dump: GET /metrics and an instant query, at a fixed rate, while
// nothing is dumped and while each way dumps, in turns. What relays a stream runs on the
// same two cores, and so does the client, which elsewhere has a machine of its own: so
// kubectl exec -- cat is the control, which sends the same files by the same way and does
// not hold back. It judges nothing: the machine may be busy. PROMDUMP_E2E_BENCH_RUNS says how many turns,
// PROMDUMP_E2E_BENCH_PHASE how long each of them takes (default 20s),
// PROMDUMP_E2E_BENCH_WAYS (a regular expression) which ways dump.
func TestBenchLatency(t *testing.T) {
	if os.Getenv("PROMDUMP_E2E_BENCH") != "1" {
		t.Skip("SKIPPED: make bench-e2e measures")
	}
	phase := 20 * time.Second
	if d, err := time.ParseDuration(os.Getenv("PROMDUMP_E2E_BENCH_PHASE")); err == nil {
		phase = d
	}
	b := newBench(t)
	program(t, "promdump") // it is built now, and not in a phase
	c := startClient(t, b.pod.host(), b.end)
	file := filepath.Join(t.TempDir(), "dump")
	dump := func(args ...string) func() *exec.Cmd {
		return func() *exec.Cmd {
			return pluginCommand(t, b.cluster.config, append([]string{"-n", b.pod.namespace, "-p", b.pod.name, "--min-time", "0", "--force", "-t", file}, args...)...)
		}
	}
	ways := []*latencyWay{
		{name: catWay, cmd: func() *exec.Cmd {
			return b.cluster.command(t.Context(), b.cluster.config, "-n", b.pod.namespace, "exec", b.pod.name, "--", "sh", "-c", catAll(b.data))
		}},
		{name: "promdump", cmd: dump()},
		{name: "promdump --head raw --compression none", cmd: dump("--head", "raw", "--compression", "none")},
		{name: "promdump --gentle", cmd: dump("--gentle")},
	}
	only := regexp.MustCompile(os.Getenv("PROMDUMP_E2E_BENCH_WAYS"))
	ways = slices.DeleteFunc(ways, func(w *latencyWay) bool { return !only.MatchString(w.name) })
	for _, w := range ways {
		w.start = &latencyWay{name: "  its first 4 s"}
	}
	idle := &latencyWay{name: "nothing"}
	for range benchRuns() {
		for _, w := range ways {
			idle.add(t, b, phase, c)
			w.add(t, b, phase, c)
		}
	}
	fmt.Fprintf(os.Stderr, "%-42s %28s %33s %10s\n", "way", "GET /metrics ms p50, p99", "instant query ms p50, p99", "MB/s read")
	defer printControl(idle, ways)
	for _, w := range append([]*latencyWay{idle}, ways...) {
		w.row(idle)
		if w.start != nil {
			w.start.row(idle)
		}
	}
	if n := b.pod.restarts(); n > 0 {
		t.Errorf("the server was restarted %d times", n)
	}
}

// printControl prints what each way adds to the p99 of /metrics beside what the control adds.
func printControl(idle *latencyWay, ways []*latencyWay) {
	i := slices.IndexFunc(ways, func(w *latencyWay) bool { return w.name == catWay })
	if i < 0 {
		return
	}
	none, control := idle.ms(askMetrics, 0.99), ways[i].ms(askMetrics, 0.99)
	for _, w := range slices.Delete(slices.Clone(ways), i, i+1) {
		p99 := w.ms(askMetrics, 0.99)
		fmt.Fprintf(os.Stderr, "%-42s p99 of /metrics %.2f of the control's, which adds %.1f ms; it adds %.1f ms\n",
			w.name, p99/control, control-none, p99-none)
	}
}

// latencyWay is a way to dump, and what was measured while it did.
type latencyWay struct {
	name  string
	cmd   func() *exec.Cmd // nil: nothing is done
	taken map[string][]time.Duration
	start *latencyWay // what was measured while it started; nil: that counts here
	read  int64       // bytes that were read in the container
	time  time.Duration
}

// add measures for a phase. A dump that ends earlier is made again, one that does not
// end is interrupted.
func (w *latencyWay) add(t *testing.T, b *bench, phase time.Duration, c *client) {
	t.Helper()
	time.Sleep(2 * time.Second) // what the phase before left
	ctx, cancel := context.WithTimeout(t.Context(), phase)
	defer cancel()
	begin := time.Now()
	read := make(chan int64, 1)
	go func() { read <- b.readBy(ctx) }()
	for w.cmd != nil && ctx.Err() == nil {
		cmd := w.cmd()
		var stderr strings.Builder
		cmd.Stderr, cmd.Stdout = &stderr, io.Discard
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Signal(syscall.SIGINT) })
		err := cmd.Wait()
		if stop() && err != nil {
			t.Fatalf("%s: %v\n%s", w.name, err, stderr.String())
		}
	}
	<-ctx.Done()
	end := time.Now()
	w.read += <-read
	w.time += end.Sub(begin)
	for _, a := range c.between(begin, end) {
		to := w
		if w.start != nil && a.Due.Sub(begin) < startTime {
			to = w.start
		}
		if to.taken == nil {
			to.taken = map[string][]time.Duration{}
		}
		to.taken[a.What] = append(to.taken[a.What], a.Took)
	}
}

// startTime is that in which the client starts, on the same machine, and an agent is
// uploaded: in a phase it has a greater share than in a dump.
const startTime = 4 * time.Second

// readBy counts what the processes in the container read that are not the server,
// until ctx is done. It looks rarely: that costs what is measured.
func (b *bench) readBy(ctx context.Context) (sum int64) {
	read := map[int]int64{}
	for {
		select {
		case <-ctx.Done():
			for _, n := range read {
				sum += n
			}
			return sum
		case <-time.After(time.Second):
		}
		for _, p := range b.pod.processes() {
			text, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", p.pid))
			if err != nil || p.inside == 1 {
				continue // it has ended
			}
			var n int64
			if _, err := fmt.Sscanf(string(text), "rchar: %d", &n); err == nil {
				read[p.pid] = n
			}
		}
	}
}

// ms is a quantile of what requests took, in milliseconds; 0: there were none.
func (w *latencyWay) ms(what string, share float64) float64 {
	all := slices.Sorted(slices.Values(w.taken[what]))
	if len(all) == 0 {
		return 0
	}
	return float64(all[int(share*float64(len(all)-1))].Microseconds()) / 1e3
}

func (w *latencyWay) row(idle *latencyWay) {
	fmt.Fprintf(os.Stderr, "%-42s", w.name)
	for _, what := range asked {
		p50, p99 := w.ms(what, 0.5), w.ms(what, 0.99)
		fmt.Fprintf(os.Stderr, "  %6.1f %6.1f (%.2f, %.2f) of %d", p50, p99, p50/idle.ms(what, 0.5), p99/idle.ms(what, 0.99), len(w.taken[what]))
	}
	fmt.Fprintf(os.Stderr, " %6.1f\n", float64(w.read)/1e6/max(w.time.Seconds(), 1))
}

// An answered is a request of the client and how long its answer took, counted from
// when it was due.
type answered struct {
	What string
	Due  time.Time
	Took time.Duration
}

const (
	askMetrics = "metrics"
	askQuery   = "query"
	askEvery   = 50 * time.Millisecond
)

var asked = []string{askMetrics, askQuery}

// client sends requests to the server from a separate process with a high priority: what
// is measured is the server, not the client.
type client struct {
	mu  sync.Mutex
	all []answered
}

func startClient(t *testing.T, pid int, end time.Time) *client {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestLatencyClient$", "-test.count=1", "-test.timeout=0")
	cmd.Env = append(os.Environ(), "PROMDUMP_E2E_CLIENT="+strconv.Itoa(pid), "PROMDUMP_E2E_CLIENT_TIME="+seconds(end.Add(-time.Minute)))
	cmd.Stderr = os.Stderr
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.ExtraFiles = []*os.File{w}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	c := &client{}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for lines := bufio.NewScanner(r); lines.Scan(); {
			var a answered
			if err := json.Unmarshal(lines.Bytes(), &a); err != nil {
				t.Errorf("the client says %q: %v", lines.Text(), err)
				return
			}
			c.mu.Lock()
			c.all = append(c.all, a)
			c.mu.Unlock()
		}
	}()
	t.Cleanup(func() {
		stdin.Close()
		<-done
		if err := cmd.Wait(); err != nil {
			t.Errorf("the client: %v", err)
		}
	})
	return c
}

// between gives what was due in a phase. All of it is answered a moment later.
func (c *client) between(begin, end time.Time) (all []answered) {
	time.Sleep(time.Second)
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, a := range c.all {
		if a.Due.After(begin) && a.Due.Before(end) {
			all = append(all, a)
		}
	}
	return all
}

// TestLatencyClient is that process, and not a test.
func TestLatencyClient(t *testing.T) {
	pid, err := strconv.Atoi(os.Getenv("PROMDUMP_E2E_CLIENT"))
	if err != nil {
		t.Skip("SKIPPED: it is a part of TestBenchLatency")
	}
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks { // threads to come inherit it
		tid, _ := strconv.Atoi(task.Name()) // a number
		if err := unix.Setpriority(unix.PRIO_PROCESS, tid, -20); err != nil {
			t.Fatal(err)
		}
	}
	web := &http.Client{Timeout: time.Minute, Transport: &http.Transport{
		MaxIdleConnsPerHost: 100,
		DialContext: func(ctx context.Context, network, addr string) (conn net.Conn, err error) {
			err = within(pid, "net", func() (err error) {
				conn, err = (&net.Dialer{}).DialContext(ctx, network, addr)
				return err
			})
			return conn, err
		},
	}}
	urls := map[string]string{
		askMetrics: "http://127.0.0.1:9090/metrics",
		askQuery: "http://127.0.0.1:9090/api/v1/query?" + url.Values{
			"query": {`sum by (namespace) (rate(app_000_requests_total[5m]))`}, "time": {os.Getenv("PROMDUMP_E2E_CLIENT_TIME")},
		}.Encode(),
	}
	gone := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(gone)
	}()
	out := json.NewEncoder(os.NewFile(3, "answers"))
	var mu sync.Mutex
	var asking sync.WaitGroup
	defer asking.Wait()
	due := time.Now()
	for i := 0; ; i++ {
		due = due.Add(askEvery / time.Duration(len(asked)))
		select {
		case <-gone:
			return
		case <-time.After(time.Until(due)):
		}
		what, due := asked[i%len(asked)], due
		asking.Go(func() { // whether the one before is answered or not
			if err := ask(web, urls[what]); err != nil {
				t.Errorf("%s: %v", what, err)
				return
			}
			a := answered{what, due, time.Since(due)}
			mu.Lock()
			defer mu.Unlock()
			if err := out.Encode(a); err != nil {
				t.Error(err)
			}
		})
	}
}

func ask(web *http.Client, u string) error {
	resp, err := web.Get(u)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s", resp.Status)
	}
	return nil
}
