package e2e

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/prompb"

	"github.com/promdump/promdump/internal/tsdbtest"
	"github.com/promdump/promdump/internal/wire"
)

// restored dumps all of a data dir and restores it into a new one.
func restored(t *testing.T, dir string, args ...string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "dump.tar.gz")
	promdump(t, append([]string{"dump", "-d", dir, "--min-time", "0", "--max-time", "now", "-t", file}, args...)...)
	promdump(t, "verify", file)
	to := filepath.Join(t.TempDir(), "restored")
	if err := os.MkdirAll(to, 0o777); err != nil {
		t.Fatal(err)
	}
	promdump(t, "restore", "-d", to, "-t", file)
	return to
}

var damage = regexp.MustCompile(`(?i)(attempting|successfully) repair|corrupt|level=error`)

// A server on what was restored answers as one on the original.
func TestServesTheSame(t *testing.T) {
	source := filepath.Join(t.TempDir(), "source")
	d := tsdbtest.Random(t, source, 11, tsdbtest.Options{Start: time.Now().Add(-24 * time.Hour)})
	all := wire.Selection{MinTime: d.MinTime, MaxTime: d.MaxTime}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	original := filepath.Join(t.TempDir(), "original") // a server writes
	if err := tsdbtest.CopyDir(original, source); err != nil {
		t.Fatal(err)
	}
	s := start(t, original, serverOptions{})
	want, answers := s.export(all), answersOf(s, d)
	s.stop()
	if want.Count() < 10_000 {
		t.Fatalf("the original serves just %d samples", want.Count())
	}
	for _, head := range []string{"block", "raw"} {
		t.Run(head, func(t *testing.T) {
			dir := restored(t, source, "--head="+head)
			s := start(t, dir, serverOptions{})
			if diff := tsdbtest.Diff(want, s.export(all)); diff != "" {
				t.Errorf("samples:\n%s", diff)
			}
			started := s.log.String() // before queries that make it panic, see below
			compared := 0
			for query, got := range answersOf(s, d) {
				want, ok := answers[query]
				if !ok {
					continue
				}
				if compared++; got != want {
					t.Errorf("%s:\nwant %.2000s\ngot  %.2000s", query, want, got)
				}
			}
			if t.Logf("%d of %d answers compared", compared, len(answers)); compared < 30 {
				t.Errorf("too few to prove anything")
			}
			if found := damage.FindString(started); found != "" {
				t.Errorf("the server's log says %q:\n%s", found, started)
			}
		})
	}
}

// answersOf asks in PromQL. Without sums: their last digits depend on the order
// in which series come.
func answersOf(s *server, d *tsdbtest.TSDB) map[string]string {
	all := map[string]string{}
	for _, query := range []string{
		`count({__name__=~".+"})`, `rate({__name__=~"requests_total.*"}[30m])`, `max by (namespace, pod) ({__name__=~"temperature.*"})`,
		`histogram_quantile(0.9, rate({__name__=~"latency_.*"}[1h]))`, `{"größe"="groß"}`, `changes({__name__=~"odd.*"}[2h])`,
	} {
		for i := range int64(9) {
			at := d.MinTime + (d.MaxTime-d.MinTime)*(i+1)/9
			data, ok := s.get("/api/v1/query", url.Values{"query": {query}, "time": {fmt.Sprintf("%.3f", float64(at)/1000)}})
			if !ok {
				continue // Prometheus panics on some queries of a short range of a series with tombstones
			}
			var answer struct{ Result []json.RawMessage }
			if err := json.Unmarshal([]byte(data), &answer); err != nil {
				s.t.Fatal(err)
			}
			var lines []string
			for _, r := range answer.Result {
				lines = append(lines, string(r))
			}
			slices.Sort(lines)
			all[fmt.Sprintf("%s @ %d", query, at)] = strings.Join(lines, "\n")
		}
	}
	return all
}

// A restore beside a running server shows up without a restart. After one, the
// server's own head is whole: a block that ends later than its own blocks must
// not make it believe that its log is older than that.
func TestRestoreBesideARunningServer(t *testing.T) {
	now := time.Now().UnixMilli()
	write := func(s *server, name string, from, to int64) {
		for t := from; t < to; t += 60_000 { // 60 samples of each of 5 series a request
			var all []prompb.TimeSeries
			for i := range 5 {
				ts := prompb.TimeSeries{Labels: label("__name__", name, "i", fmt.Sprint(i))}
				for k := range int64(20) {
					ts.Samples = append(ts.Samples, prompb.Sample{Timestamp: t + k*3000, Value: float64(t + k)})
				}
				all = append(all, ts)
			}
			if err := s.write(s.t.Context(), all...); err != nil {
				s.t.Fatal(err)
			}
		}
	}
	args := []string{"--web.enable-remote-write-receiver", "--storage.tsdb.block-reload-interval=1s"}
	sourceDir, targetDir := t.TempDir(), t.TempDir()
	source := start(t, sourceDir, serverOptions{args: args})
	write(source, "theirs", now-30*60_000, now-60_000)
	everything := wire.Selection{MinTime: now - 3_600_000, MaxTime: now + 60_000}
	theirs := source.export(everything)
	source.stop()

	target := start(t, targetDir, serverOptions{args: args})
	write(target, "own", now-50*60_000, now-10*60_000)
	own := target.export(everything)
	if own.Count() != 4000 {
		t.Fatalf("the target has %d samples of its own, want 4000", own.Count())
	}
	want := tsdbtest.Served{}
	for _, served := range []tsdbtest.Served{own, theirs} {
		for name, samples := range served {
			want[name] = samples
		}
	}
	file := filepath.Join(t.TempDir(), "dump.tar.gz")
	promdump(t, "dump", "-d", sourceDir, "--min-time", ms(now-3_600_000), "--max-time", ms(now), "-t", file)
	promdump(t, "restore", "-d", targetDir, "-t", file, "--wait", target.url)
	var diff string
	if !poll(20*time.Second, func() bool { diff = tsdbtest.Diff(want, target.export(everything)); return diff == "" }) {
		t.Errorf("beside the running server:\n%s", diff)
	}
	promdump(t, "restore", "-d", targetDir, "-t", file) // again: nothing to do
	for restart := range 2 {
		target.stop()
		target = start(t, targetDir, serverOptions{args: args})
		if diff := tsdbtest.Diff(want, target.export(everything)); diff != "" {
			t.Errorf("after restart %d:\n%s", restart+1, diff)
		}
	}
	if found := damage.FindString(target.log.String()); found != "" {
		t.Errorf("the server's log says %q:\n%s", found, target.log)
	}
}

// Prometheus of 2023 as the writer and the reader.
func TestOldPrometheus(t *testing.T) {
	bin := oldPrometheus(t)
	if out, err := exec.Command(bin, "--version").CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", bin, err, out)
	} else {
		t.Logf("%.60s", out)
	}
	dir := t.TempDir()
	args := []string{"--storage.tsdb.min-block-duration=4s", "--storage.tsdb.max-block-duration=36s", "--web.enable-remote-write-receiver"}
	s := start(t, dir, serverOptions{binary: bin, target: target(t), window: "1m", args: args})
	begin := time.Now().UnixMilli()
	for sent := 0; len(blocks(t, dir)) < 2 || sent < 150; sent++ {
		now := time.Now().UnixMilli()
		if now-begin > 60_000 {
			t.Fatal("the old server makes no blocks")
		}
		late := max(begin, now-3000)
		if err := s.write(t.Context(), floats("pushed", 1, now, float64(now%1000)), floats("pushed", 1, late, float64(late%1000))); err != nil {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond) // the rate of sending
	}
	s.stop() // it must not scrape while we compare
	s = start(t, dir, serverOptions{binary: bin, window: "1m", args: args})
	all := wire.Selection{MinTime: begin - 60_000, MaxTime: time.Now().UnixMilli()}
	want := s.export(all)
	s.stop()
	if want.Count() < 300 {
		t.Fatalf("the old server serves just %d samples", want.Count())
	}
	for _, head := range []string{"block", "raw"} {
		back := restored(t, dir, "--head="+head)
		if diff := tsdbtest.Diff(want, tsdbtest.SamplesDir(t, back, all)); diff != "" {
			t.Errorf("its data, --head=%s, opened by today's library:\n%s", head, diff)
		}
		s = start(t, back, serverOptions{binary: bin, window: "1m", args: args})
		if diff := tsdbtest.Diff(want, s.export(all)); diff != "" {
			t.Errorf("its data, --head=%s, served by itself:\n%s", head, diff)
		}
		s.stop()
	}

	today := filepath.Join(t.TempDir(), "today")
	d := tsdbtest.Random(t, today, 5, tsdbtest.Options{Plain: true, Start: time.Now().Add(-24 * time.Hour)})
	all = wire.Selection{MinTime: d.MinTime, MaxTime: d.MaxTime}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	// After a restart: out-of-order samples that were deleted may come back then.
	want = tsdbtest.SamplesDir(t, today, all)
	s = start(t, restored(t, today), serverOptions{binary: bin})
	if diff := tsdbtest.Diff(want, s.export(all)); diff != "" {
		t.Errorf("today's data, served by the old server:\n%s", diff)
	}
}

// oldPrometheus finds Debian's Prometheus, which is of 2023.
func oldPrometheus(t *testing.T) string {
	t.Helper()
	const require = "PROMDUMP_E2E_REQUIRE_OLD"
	if bin := os.Getenv("PROMDUMP_E2E_PROMETHEUS_OLD"); bin != "" {
		return bin
	}
	dir, err := cache("debian")
	if err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(dir, "usr", "bin", "prometheus")
	if _, err := os.Stat(bin); err == nil {
		return bin
	}
	for _, tool := range []string{"apt-get", "dpkg"} {
		if _, err := exec.LookPath(tool); err != nil {
			missing(t, require, "no Prometheus 2.42 (PROMDUMP_E2E_PROMETHEUS_OLD names one): %v", err)
		}
	}
	cmd := exec.Command("sh", "-c", "apt-get download prometheus && dpkg -x prometheus_*.deb . && rm prometheus_*.deb")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		missing(t, require, "no Prometheus 2.42 from Debian: %v: %s", err, out)
	}
	return bin
}
