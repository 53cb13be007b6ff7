package e2e

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"

	"github.com/promdump/promdump/internal/tsdbtest"
	"github.com/promdump/promdump/internal/wire"
)

// dumped makes a dump, and gives what a server on it would serve and what was said.
func dumped(t *testing.T, args ...string) (tsdbtest.Served, string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "dump.tar.gz")
	said := promdump(t, append([]string{"dump", "-t", file}, args...)...)
	promdump(t, "verify", file)
	dir := t.TempDir()
	promdump(t, "restore", "-d", dir, "-t", file, "--ignore-retention")
	return tsdbtest.SamplesDir(t, dir, tsdbtest.Everything()), said
}

// A server that is asked by remote read gives what its data dir gives: blocks, head,
// out-of-order samples, every kind of histogram, deletions. It has a login, a route
// prefix and external labels.
func TestRemoteRead(t *testing.T) {
	source := filepath.Join(t.TempDir(), "source")
	d := tsdbtest.Random(t, source, 11, tsdbtest.Options{Start: time.Now().Add(-24 * time.Hour)})
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	web := filepath.Join(t.TempDir(), "web.yml")
	if err := os.WriteFile(web, []byte("basic_auth_users:\n  jane: $2a$04$aZHXEgALDQjNga5gVL0m7ePlVBVtHAz/Qp9X8TJhgWcpYVn14sS5W\n"), 0o600); err != nil { // secret-word
		t.Fatal(err)
	}
	password := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte("secret-word\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := start(t, source, serverOptions{
		window: "2d", prefix: "/prom", global: "  external_labels: {cluster: eu, i: '3', zone: '1'}\n",
		args:  []string{"--web.config.file=" + web, "--web.route-prefix=/prom"},
		login: func(r *http.Request) { r.SetBasicAuth("jane", "secret-word") },
	})
	url := []string{"--url", s.url, "--basic-auth-user", "jane", "--basic-auth-password-file", password, "--concurrency", "3"}
	span := func(from, to int64) []string { return []string{"--min-time", ms(from), "--max-time", ms(to)} }
	hour := time.Hour.Milliseconds()
	for what, args := range map[string][]string{
		"all":      span(d.MinTime, d.MaxTime),
		"some":     append(span(d.MinTime+5*hour+1, d.MaxTime-hour), "--match", `{namespace="ns-1"}`, "--match", `{__name__=~"latency.*|odd.*",namespace!="ns-2"}`),
		"external": append(span(d.MinTime, d.MaxTime), "--match", `{i="3"}`),
	} {
		t.Run(what, func(t *testing.T) {
			want, _ := dumped(t, append([]string{"-d", source}, args...)...)
			got, said := dumped(t, append(url, args...)...)
			if diff := tsdbtest.Diff(want, got); diff != "" || want.Count() < 100 {
				t.Errorf("%d samples\n%s", want.Count(), diff)
			}
			t.Logf("%d samples: %s", got.Count(), strings.TrimSpace(said))
		})
	}
	kept, _ := dumped(t, append(url, append(span(d.MaxTime-hour, d.MaxTime), "--match", `{i="5"}`, "--keep-external-labels")...)...)
	for name := range kept {
		if !strings.Contains(name, `cluster="eu"`) || !strings.Contains(name, `zone="1"`) {
			t.Errorf("an external label is gone: %s", name)
		}
	}
	if len(kept) == 0 {
		t.Error("no series with its external labels")
	}

	meta := promdump(t, append([]string{"meta"}, url...)...)
	for _, row := range []string{"Latest time:", "Number of series", "Total number of blocks", "Total number of samples"} {
		if !strings.Contains(meta, row) {
			t.Errorf("meta has no row %q:\n%s", row, meta)
		}
	}
	if strings.Contains(meta, "ize") {
		t.Errorf("meta knows sizes:\n%s", meta)
	}
	plan := promdump(t, append(append([]string{"dump", "--dry-run"}, url...), span(d.MinTime+hour, d.MinTime+4*hour)...)...)
	if !strings.Contains(plan, "windows to ask for") {
		t.Errorf("dry run:\n%s", plan)
	}
	for _, bad := range []struct {
		code int
		say  string
		args []string
	}{
		{11, "who you are", []string{"--url", s.url}},
		{10, "path prefix", []string{"--url", strings.TrimSuffix(s.url, "/prom") + "/other", "--basic-auth-user", "jane", "--basic-auth-password-file", password}},
		{2, "--head=raw", append(url, "--head=raw")},
		{10, "can the server be reached", []string{"--url", "http://127.0.0.1:1"}},
	} {
		cmd := exec.Command(binary(t).promdump, append([]string{"dump", "--debug", "-t", filepath.Join(t.TempDir(), "f")}, bad.args...)...)
		out, _ := cmd.CombinedOutput()
		if code := cmd.ProcessState.ExitCode(); code != bad.code || !strings.Contains(string(out), bad.say) || strings.Contains(string(out), "secret-word") {
			t.Errorf("%v: exit %d, want %d and %q:\n%s", bad.args, code, bad.code, bad.say, out)
		}
	}
}

// What a server reads from others by its own remote_read is in its dump.
func TestRemoteReadOfBackEnds(t *testing.T) {
	back := start(t, filepath.Join(t.TempDir(), "back"), serverOptions{args: []string{"--web.enable-remote-write-receiver"}})
	now := time.Now().UnixMilli()
	from := now - 3*time.Hour.Milliseconds()
	for at := from; at < now; at += 60 * 60_000 {
		var all []prompb.TimeSeries
		for i := range 5 {
			ts := prompb.TimeSeries{Labels: label("__name__", "far", "i", fmt.Sprint(i))}
			for n := range int64(60) {
				ts.Samples = append(ts.Samples, prompb.Sample{Timestamp: at + n*60_000, Value: float64(n)})
			}
			all = append(all, ts)
		}
		hs := prompb.TimeSeries{Labels: label("__name__", "far_histogram")}
		for n := range int64(60) {
			hs.Histograms = append(hs.Histograms, prompb.FromIntHistogram(at+n*60_000, tsdbutil.GenerateTestHistogram(at/60_000%1000+n)))
		}
		if err := back.write(t.Context(), append(all, hs)...); err != nil {
			t.Fatal(err)
		}
	}
	front := start(t, filepath.Join(t.TempDir(), "front"), serverOptions{
		config: "remote_read: [{url: '" + back.url + "/api/v1/read', read_recent: true}]\n", target: target(t),
	})
	sel := wire.Selection{MinTime: from, MaxTime: now}
	want := back.export(sel)
	got, said := dumped(t, "--url", front.url, "--min-time", ms(from), "--max-time", ms(now), "--match", `{__name__=~"far.*"}`)
	if diff := tsdbtest.Diff(want, got); diff != "" || want.Count() < 1000 {
		t.Errorf("%d samples\n%s", want.Count(), diff)
	}
	if !strings.Contains(said, "remote_read back end") {
		t.Errorf("nothing is said of the back end: %s", said)
	}
}
