package e2e

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/prometheus/prompb"

	"github.com/promdump/promdump/internal/tsdbtest"
)

// balance is a TCP load balancer that takes turns, and ends a connection after so many
// bytes of answers.
func balance(t *testing.T, most int64, servers ...*server) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for i := 0; ; i++ {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			back, err := net.Dial("tcp", strings.TrimPrefix(servers[i%len(servers)].url, "http://"))
			if err != nil {
				conn.Close()
				continue
			}
			pass := func(to, from net.Conn, most int64) {
				_, _ = io.CopyN(to, from, most)
				to.Close()
				from.Close()
			}
			go pass(conn, back, most)
			go pass(back, conn, 1<<40)
		}
	}()
	return "http://" + l.Addr().String()
}

// Two replicas of an HA pair behind one URL: a dump is of one of them, with or without
// labels that tell them apart, or it is refused.
func TestReplicas(t *testing.T) {
	now := time.Now().UnixMilli()
	from := now - 8*time.Hour.Milliseconds()
	for _, labels := range []string{"{cluster: eu, replica: %s}", "{cluster: eu}"} {
		one := func(name string, value float64) *server {
			global := "  external_labels: " + labels + "\n"
			if strings.Contains(labels, "%s") {
				global = fmt.Sprintf(global, name)
			}
			s := start(t, filepath.Join(t.TempDir(), name), serverOptions{global: global, args: []string{"--web.enable-remote-write-receiver"}})
			for at := from; at < now; at += 60 * 60_000 {
				var all []prompb.TimeSeries
				for i := range 20 {
					ts := prompb.TimeSeries{Labels: label("__name__", "up", "i", fmt.Sprint(i))}
					for n := range int64(240) {
						ts.Samples = append(ts.Samples, prompb.Sample{Timestamp: at + n*15_000, Value: value * float64(n*int64(i)%17)})
					}
					all = append(all, ts)
				}
				if err := s.write(t.Context(), all...); err != nil {
					t.Fatal(err)
				}
			}
			return s
		}
		a, b := one("a", 1), one("b", 1.25)
		args := []string{"--min-time", ms(from), "--max-time", ms(now), "--concurrency", "3"}
		// What remote read adds to each series comes off again.
		want := map[bool]tsdbtest.Served{}
		for _, s := range []*server{a, b} {
			want[s == a], _ = dumped(t, append([]string{"--url", s.url}, args...)...)
		}
		if want[true].Count() < 30_000 || tsdbtest.Diff(want[true], want[false]) == "" {
			t.Fatalf("%d samples, or the replicas are the same", want[true].Count())
		}
		for _, most := range []int64{1 << 40, 100_000} { // connections that last, and that end between windows or in one
			got, said := dumped(t, append([]string{"--url", balance(t, most, a, b)}, args...)...)
			if da, db := tsdbtest.Diff(want[true], got), tsdbtest.Diff(want[false], got); da != "" && db != "" {
				t.Errorf("%s, connections of %d bytes: it is of neither server:\n%.300s\n%.300s", labels, most, da, db)
			}
			if !strings.Contains(said, "several servers answer at this URL") {
				t.Errorf("%s: no note: %s", labels, said)
			}
		}

		var n atomic.Int64
		turns := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			u, err := url.Parse([]string{a.url, b.url}[n.Add(1)%2])
			if err != nil {
				t.Error(err)
				return
			}
			httputil.NewSingleHostReverseProxy(u).ServeHTTP(w, r)
		}))
		t.Cleanup(turns.Close)
		for _, command := range [][]string{append([]string{"dump", "-t", filepath.Join(t.TempDir(), "f"), "--url", turns.URL}, args...), {"meta", "--url", turns.URL}} {
			out, err := exec.Command(binary(t).promdump, command...).CombinedOutput()
			if err == nil || !strings.Contains(string(out), "several servers answer") || !strings.Contains(string(out), "-p POD --via remote-read") {
				t.Errorf("%s: %v: %s", command[0], err, out)
			}
		}
	}
}

// A server that is restarted while it is dumped is the same server, and a note says so.
func TestRestartWhileDumped(t *testing.T) {
	now := time.Now().UnixMilli()
	from := now - 8*time.Hour.Milliseconds()
	dir := filepath.Join(t.TempDir(), "data")
	s := start(t, dir, serverOptions{args: []string{"--web.enable-remote-write-receiver"}})
	for at := from; at < now; at += 60 * 60_000 {
		ts := prompb.TimeSeries{Labels: label("__name__", "up", "i", "1")}
		for n := range int64(60) {
			ts.Samples = append(ts.Samples, prompb.Sample{Timestamp: at + n*60_000, Value: float64(n)})
		}
		if err := s.write(t.Context(), ts); err != nil {
			t.Fatal(err)
		}
	}
	args := []string{"--min-time", ms(from), "--max-time", ms(now), "--concurrency", "1"}
	want, _ := dumped(t, append([]string{"--url", s.url}, args...)...)

	var reads, restarts atomic.Int64
	current := atomic.Pointer[server]{}
	current.Store(s)
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/read") && reads.Add(1) == 6 && restarts.Add(1) == 1 {
			current.Load().stop()
			current.Store(start(t, dir, serverOptions{}))
		}
		u, err := url.Parse(current.Load().url)
		if err != nil {
			t.Error(err)
			return
		}
		httputil.NewSingleHostReverseProxy(u).ServeHTTP(w, r)
	}))
	t.Cleanup(proxy.Close)
	got, said := dumped(t, append([]string{"--url", proxy.URL}, args...)...)
	if d := tsdbtest.Diff(want, got); d != "" || !strings.Contains(said, "the server was restarted while it was read") {
		t.Errorf("%s\n%s", said, d)
	}
}
