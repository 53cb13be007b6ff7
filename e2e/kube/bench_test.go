//go:build linux

package kube

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/promdump/promdump/internal/tsdbtest"
)

// slowLinkRate is that of the slow link, in bytes a second.
const slowLinkRate = 20 << 20

// TestBench is make bench-e2e: dumps through exec, side by side, in turns, of a
// data dir of more than 1 GiB, and how the server that is dumped answers
// meanwhile. It measures and judges nothing. The first ways are those that have goals,
// see [benchGoals]; a proxy makes the slow link. PROMDUMP_E2E_BENCH_HOURS makes the data
// dir smaller, _RUNS says how often, _WAYS (a regular expression) which.
func TestBench(t *testing.T) {
	if os.Getenv("PROMDUMP_E2E_BENCH") != "1" {
		t.Skip("SKIPPED: make bench-e2e measures")
	}
	b := newBench(t)
	slow := newProxy(t)
	slow.slow(slowLinkRate)
	ways := b.ways(t, b.cluster.config, slow.config("admin"))
	fmt.Fprintf(os.Stderr, "%d MB in the data dir\n\n%s", b.size/1e6, benchHead)
	b.row("nothing, for 10 s", b.measure(t, func() *exec.Cmd { return exec.Command("sleep", "10") }))
	only := regexp.MustCompile(os.Getenv("PROMDUMP_E2E_BENCH_WAYS"))
	walls, whole := map[string][]time.Duration{}, int64(0)
	for range benchRuns() {
		for _, w := range ways {
			if only.MatchString(w.name) {
				f := b.measure(t, w.cmd)
				b.row(w.name, f)
				if w.name == catWay {
					whole = f.out
				}
				if w.name == slowCatWay && f.out < whole { // what it would have taken
					f.wall = time.Duration(float64(f.wall) * float64(whole) / float64(f.out))
				}
				walls[w.name] = append(walls[w.name], f.wall)
			}
		}
	}
	printGoals(walls)
	if n := b.pod.restarts(); n > 0 {
		t.Errorf("the server was restarted %d times", n)
	}
}

const (
	catWay      = "exec -- cat, all files"
	tarWay      = "exec -- tar czf -"
	rawWay      = "promdump --head raw --compression none"
	defaultWay  = "promdump"
	slowCatWay  = "20 MiB/s: exec -- cat, all files"
	slowDumpWay = "20 MiB/s: promdump"
)

func (b *bench) ways(t *testing.T, config, slow string) []benchWay {
	file := filepath.Join(t.TempDir(), "dump")
	kubectl := func(config string, args ...string) func() *exec.Cmd {
		return func() *exec.Cmd {
			cmd := b.cluster.command(t.Context(), config, append([]string{"-n", b.pod.namespace, "exec", b.pod.name, "--"}, args...)...)
			_ = os.Remove(file)
			out, err := os.Create(file) // as a dump, and not by this process: that would cost
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = out.Close() }) // what is in it is not used
			cmd.Stdout = out
			return cmd
		}
	}
	dump := func(config string, args ...string) func() *exec.Cmd {
		args = append([]string{"-n", b.pod.namespace, "-p", b.pod.name, "--min-time", "0", "--force", "-t", file}, args...)
		return func() *exec.Cmd {
			// What is kept is not written over: that would cost the next one.
			_ = os.Remove(file)
			return pluginCommand(t, config, args...)
		}
	}
	all := catAll(b.data)
	return []benchWay{
		{catWay, kubectl(config, "sh", "-c", all)},
		{rawWay, dump(config, "--head", "raw", "--compression", "none")},
		{defaultWay, dump(config)},
		{tarWay, kubectl(config, "tar", "czf", "-", b.data)},
		{slowCatWay, kubectl(slow, "sh", "-c", all)},
		{slowDumpWay, dump(slow)},
		{"exec -- tar cf -", kubectl(config, "tar", "cf", "-", b.data)},
		{"promdump --head raw", dump(config, "--head", "raw")},
		{"promdump --compression zstd", dump(config, "--compression", "zstd")},
		{"promdump --via tar --head raw", dump(config, "--via", "tar", "--head", "raw")},
		{"promdump, 30 minutes", dump(config, "--min-time", at(b.end.Add(-3*time.Hour)), "--max-time", at(b.end.Add(-150*time.Minute)))},
	}
}

// catAll is the command that sends the files of a dump.
func catAll(data string) string {
	return "cat " + data + "/*/chunks/* " + data + "/*/index " + data + "/wal/0*"
}

// benchGoals are ratios of the wall times of two ways, in one run.
var benchGoals = []struct {
	name, way, to string
	goal          float64 // at most
}{
	{"uncompressed ÷ cat", rawWay, catWay, 1.0},
	{"default ÷ cat", defaultWay, catWay, 1.3},
	{"default ÷ tar czf", defaultWay, tarWay, 0.25},
	{"20 MiB/s: default ÷ cat", slowDumpWay, slowCatWay, 0.6},
}

// printGoals prints the median of the ratios, turn by turn: the machine's speed changes
// between turns.
func printGoals(walls map[string][]time.Duration) {
	for _, g := range benchGoals {
		way, to := walls[g.way], walls[g.to]
		var ratios []float64
		for i := range min(len(way), len(to)) {
			ratios = append(ratios, way[i].Seconds()/to[i].Seconds())
		}
		if len(ratios) == 0 {
			continue
		}
		slices.Sort(ratios)
		median := (ratios[(len(ratios)-1)/2] + ratios[len(ratios)/2]) / 2
		verdict := "met"
		if median > g.goal {
			verdict = "missed"
		}
		fmt.Fprintf(os.Stderr, "%-26s %5.2f (%.2f to %.2f), goal at most %.2f: %s\n", g.name, median, ratios[0], ratios[len(ratios)-1], g.goal, verdict)
	}
}

func benchRuns() int {
	if n, err := strconv.Atoi(os.Getenv("PROMDUMP_E2E_BENCH_RUNS")); err == nil {
		return n
	}
	return 2
}

type benchWay struct {
	name string
	cmd  func() *exec.Cmd
}

// bench is a Prometheus to be dumped.
type bench struct {
	cluster *cluster
	pod     *pod
	data    string // the data dir in the container
	size    int64  // bytes
	end     time.Time
}

func newBench(t *testing.T) *bench {
	b := &bench{cluster: booted(t), end: time.Now().Add(-time.Hour).Truncate(2 * time.Hour)}
	hours := 52
	if n, err := strconv.Atoi(os.Getenv("PROMDUMP_E2E_BENCH_HOURS")); err == nil {
		hours = n
	}
	dir, err := os.MkdirTemp(b.cluster.dir, "seed-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := tsdbtest.Bench(context.Background(), dir, tsdbtest.Scale{Series: 58_000, Blocks: time.Duration(hours) * time.Hour, End: b.end, Head: time.Hour}); err != nil {
		t.Fatal(err)
	}
	// It scrapes itself every second, and compacts nothing: tar fails where files go away.
	b.pod = startPod(t, "bb", podOptions{data: dir, edit: func(pod object) {
		server := pod["spec"].(object)["containers"].([]any)[0].(object)
		server["args"] = []any{
			"--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus", "--web.enable-remote-write-receiver",
			"--storage.tsdb.min-block-duration=2h", "--storage.tsdb.max-block-duration=2h",
		}
	}})
	b.data = b.pod.dataDir()
	for _, f := range b.pod.files(b.data) {
		if f.Mode().IsRegular() {
			b.size += f.Size()
		}
	}
	return b
}

// figures of one run.
type figures struct {
	wall   time.Duration
	rss    int64         // of the agent at its most, bytes
	cpu    time.Duration // of the agent, or what else was run in the container
	out    int64         // bytes that kubectl exec wrote
	client time.Duration // CPU of kubectl, or of the plugin
	relays time.Duration // CPU of API server, kubelet, container runtime and shims
	query  []time.Duration
	scrape float64 // the longest, seconds
}

const benchHead = `way                                       wall s  MB/s of the data dir  agent's RSS MiB  CPU s: container  client  relays  query ms p50  p95  longest scrape ms
`

func (b *bench) row(name string, f figures) {
	slices.Sort(f.query)
	rank := func(share float64) float64 {
		if len(f.query) == 0 {
			return 0
		}
		return float64(f.query[int(share*float64(len(f.query)-1))].Microseconds()) / 1e3
	}
	// At once: all of them take minutes.
	fmt.Fprintf(os.Stderr, "%-40s %7.2f %21.1f %16.1f %17.2f %7.2f %7.2f %13.0f %4.0f %18.0f\n", name, f.wall.Seconds(), float64(b.size)/1e6/f.wall.Seconds(),
		float64(f.rss)/(1<<20), f.cpu.Seconds(), f.client.Seconds(), f.relays.Seconds(), rank(0.5), rank(0.95), 1e3*f.scrape)
}

func (b *bench) measure(t *testing.T, command func() *exec.Cmd) (f figures) {
	t.Helper()
	done := make(chan struct{})
	watched, asked := make(chan figures, 1), make(chan []time.Duration, 1)
	cmd := command()
	go func() { watched <- b.watch(done) }()
	go func() { asked <- b.ask(t, done) }()
	var stderr strings.Builder
	cmd.Stderr = &stderr
	begin, relays := time.Now(), b.cluster.cpu(t)
	err := cmd.Run()
	f.wall, f.relays = time.Since(begin), b.cluster.cpu(t)-relays
	f.client = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	close(done)
	if out, ok := cmd.Stdout.(*os.File); ok {
		fi, e := out.Stat()
		if e != nil {
			t.Fatal(e)
		}
		f.out = fi.Size()
	}
	if err != nil && f.out == 0 {
		t.Fatalf("%s: %v: %s", strings.Join(cmd.Args, " "), err, stderr.String())
	}
	if err != nil {
		// Streams of kubectl exec lose their end on a slow link (kubernetes#124571).
		fmt.Fprintf(os.Stderr, "%v after %d bytes: %s\n", err, f.out, strings.ReplaceAll(stderr.String(), "\n", "; "))
	}
	w := <-watched
	f.rss, f.cpu, f.query = w.rss, w.cpu, <-asked
	f.scrape = b.pod.number(fmt.Sprintf("max_over_time(scrape_duration_seconds[%ds])", int(f.wall.Seconds())+2), time.Now())
	return f
}

// cpu is what the programs have used that relay a stream.
func (c *cluster) cpu(t *testing.T) (sum time.Duration) {
	t.Helper()
	names, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range names {
		comm, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		switch name := strings.TrimSpace(string(comm)); {
		case name == "kube-apiserver", name == "kubelet", strings.HasPrefix(name, "containerd"):
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path))) // a number by the pattern
			sum += process{pid: pid}.cpu()
		}
	}
	return sum
}

// watch sums what the processes take that are in the container beside the server.
func (b *bench) watch(done chan struct{}) (f figures) {
	cpu := map[int]time.Duration{}
	for {
		for _, x := range b.pod.processes() {
			if x.inside == 1 {
				continue
			}
			cpu[x.pid] = max(cpu[x.pid], x.cpu())
			if strings.Contains(x.args, ".promdump-agent") && !strings.Contains(x.args, "sh -c") {
				f.rss = max(f.rss, x.peak)
			}
		}
		select {
		case <-done:
			for _, d := range cpu {
				f.cpu += d
			}
			return f
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// ask is a person with a dashboard: a query over the newest hour, four times a
// second.
func (b *bench) ask(t *testing.T, done chan struct{}) (all []time.Duration) {
	now := b.end.Add(50 * time.Minute)
	for {
		begin := time.Now()
		b.pod.queryRange(`sum by (namespace) (rate(app_000_requests_total[5m]))`, now.Add(-time.Hour), now, time.Minute)
		all = append(all, time.Since(begin))
		select {
		case <-done:
			return all
		case <-t.Context().Done():
			return all
		case <-time.After(250 * time.Millisecond):
		}
	}
}

// cpu is what a process has used so far.
func (p process) cpu() time.Duration {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.pid))
	if err != nil {
		return 0 // it has ended
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	words := strings.Fields(rest)
	if len(words) < 13 {
		return 0
	}
	ticks := 0
	for _, w := range words[11:13] { // utime, stime
		n, _ := strconv.Atoi(w) // the kernel's own numbers
		ticks += n
	}
	return time.Duration(ticks) * (time.Second / 100)
}
