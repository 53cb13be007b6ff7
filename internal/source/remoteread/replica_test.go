package remoteread

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"

	"github.com/promdump/promdump/internal/source/sourcetest"
	"github.com/promdump/promdump/internal/tsdbtest"
	"github.com/promdump/promdump/internal/wire"
)

const replicaWindows = 6

var replicaStart = time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC).UnixMilli()

// replicaDB is one of a pair: the same series at the same times with other values.
func replicaDB(t *testing.T, value float64) *tsdb.DB {
	t.Helper()
	db, err := tsdb.Open(t.TempDir(), nil, nil, tsdb.DefaultOptions(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	app := db.Appender(t.Context())
	for i := range 3 {
		l := labels.FromStrings("__name__", "up", "i", fmt.Sprint(i))
		for at := replicaStart; at < replicaStart+replicaWindows*windowLength; at += 60_000 {
			if _, err := app.Append(0, l, at, value); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := app.Commit(); err != nil {
		t.Fatal(err)
	}
	return db
}

// balanceConnections is a TCP load balancer that takes turns.
func balanceConnections(t *testing.T, backends ...*server) string {
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
			back, err := net.Dial("tcp", backends[i%len(backends)].Listener.Addr().String())
			if err != nil {
				conn.Close()
				continue
			}
			pass := func(to, from net.Conn) {
				_, _ = io.Copy(to, from)
				to.Close()
				from.Close()
			}
			go pass(conn, back)
			go pass(back, conn)
		}
	}()
	return "http://" + l.Addr().String()
}

// balanceRequests is an HTTP load balancer.
func balanceRequests(t *testing.T, choose func(*http.Request) int, backends ...*server) string {
	t.Helper()
	var proxies []http.Handler
	for _, b := range backends {
		u, err := url.Parse(b.URL)
		if err != nil {
			t.Fatal(err)
		}
		p := httputil.NewSingleHostReverseProxy(u)
		p.FlushInterval = -1
		proxies = append(proxies, p)
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		i := choose(r)
		http.SetCookie(w, &http.Cookie{Name: "backend", Value: fmt.Sprint(i)})
		proxies[i].ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// readURL dumps what is behind a URL.
func readURL(t *testing.T, address string, change func(*Options)) (tsdbtest.Served, *notes, error) {
	t.Helper()
	u, err := ParseURL(address)
	if err != nil {
		t.Fatal(err)
	}
	said := &notes{}
	o := Options{URL: u, Staging: t.TempDir(), times: quick, Note: said.note}
	if change != nil {
		change(&o)
	}
	sel := wire.Selection{MinTime: replicaStart, MaxTime: replicaStart + replicaWindows*windowLength - 1}
	dir, _, _, err := sourcetest.Dump(t, New(o), wire.Request{Head: wire.HeadBlock, Selection: sel})
	if err != nil {
		return nil, said, err
	}
	return tsdbtest.SamplesDir(t, dir, tsdbtest.Everything()), said, nil
}

// A dump is of one server, whatever stands before several, or it is refused.
func TestReplicas(t *testing.T) {
	a, b := replicaDB(t, 1), replicaDB(t, 2)
	want := tsdbtest.Samples(t, a, tsdbtest.Everything())
	var reads atomic.Int64
	breaks := func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if reads.Add(1)%3 == 0 {
			panic(http.ErrAbortHandler)
		}
		next.ServeHTTP(w, r)
	}
	last := func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		w.Header().Set("Connection", "close")
		next.ServeHTTP(w, r)
	}
	takesTurns := func() func(*http.Request) int {
		var n atomic.Int64
		return func(*http.Request) int { return int(n.Add(1)-1) % 2 }
	}
	for _, c := range []struct {
		name     string
		same     bool // external labels
		silent   bool // about who it is
		read     func(w http.ResponseWriter, r *http.Request, next http.Handler)
		balance  func(*testing.T, ...*server) string
		requests func() func(*http.Request) int // instead of balance
		refused  error                          // nil: it is the first server's
	}{
		{name: "connections"},
		{name: "connections, same labels", same: true},
		{name: "connections that break", read: breaks},
		{name: "connections that break, same labels", same: true, read: breaks},
		{name: "connections that end", same: true, read: last},
		{name: "connections that break, silent", silent: true, read: breaks, refused: &LabelsError{}},
		{name: "requests", requests: takesTurns, refused: &ReplicaError{}},
		{name: "requests, same labels", same: true, requests: takesTurns, refused: &ReplicaError{}},
		{name: "requests at random", same: true, requests: func() func(*http.Request) int {
			return func(*http.Request) int { return rand.IntN(2) }
		}, refused: &ReplicaError{}},
		{name: "reads elsewhere", requests: func() func(*http.Request) int {
			return func(r *http.Request) int { return len(r.Method) % 3 } // GET 0, POST 1
		}, refused: &LabelsError{}},
		{name: "reads elsewhere, silent", silent: true, requests: func() func(*http.Request) int {
			return func(r *http.Request) int { return len(r.Method) % 3 }
		}, refused: &LabelsError{}},
		{name: "requests with a cookie", same: true, requests: func() func(*http.Request) int {
			next := takesTurns()
			return func(r *http.Request) int {
				if c, err := r.Cookie("backend"); err == nil {
					return int(c.Value[0] - '0')
				}
				return next(r)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			make := func(db *tsdb.DB, name string) *server {
				return serve(t, db, db, func(s *server) {
					s.read, s.external, s.silent = c.read, map[string]string{"cluster": "eu", "replica": name}, c.silent
					if c.same {
						delete(s.external, "replica")
					}
					s.identity["hostname"] = name
				})
			}
			sa, sb := make(a, "a"), make(b, "b")
			var address string
			if c.requests != nil {
				address = balanceRequests(t, c.requests(), sa, sb)
			} else {
				address = balanceConnections(t, sa, sb)
			}
			got, said, err := readURL(t, address, func(o *Options) { o.Concurrency = 3 })
			if c.refused != nil {
				_, replica := errors.AsType[*ReplicaError](err)
				_, label := errors.AsType[*LabelsError](err)
				_, wantLabel := errors.AsType[*LabelsError](c.refused)
				if replica == wantLabel || label != wantLabel {
					t.Errorf("%v, want a %T", err, c.refused)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if d := tsdbtest.Diff(want, got); d != "" {
				t.Errorf("samples of another server:\n%.500s", d)
			}
			if c.requests == nil && (!said.has("several servers answer at this URL") || sa.reads.Load() == 0) {
				t.Errorf("%d reads, notes %q", sa.reads.Load(), said.all)
			}
		})
	}
}

// A server that is restarted is the same server, and another one in its place is not.
func TestRestarts(t *testing.T) {
	db, other := replicaDB(t, 1), replicaDB(t, 2)
	want := tsdbtest.Samples(t, db, tsdbtest.Everything())
	for _, c := range []struct {
		name string
		next func(id map[string]any, s *server)
		says string // in an error; empty: none
	}{
		{"restarted", func(id map[string]any, _ *server) { id["startTime"] = time.Now().Add(time.Second) }, ""},
		{"restarted with other labels", func(id map[string]any, s *server) {
			id["startTime"] = time.Now().Add(time.Second)
			s.external = map[string]string{"replica": "b"}
		}, "external labels of the server changed"},
		{"another host", func(id map[string]any, _ *server) {
			id["startTime"], id["hostname"] = time.Now().Add(time.Second), "elsewhere"
		}, "several servers answer"},
		{"was there before", func(id map[string]any, _ *server) { id["startTime"] = time.Now().Add(-time.Hour) }, "several servers answer"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var once sync.Once
			s := serve(t, db, db, func(s *server) {
				s.external = map[string]string{"replica": "a"}
			})
			s.read = func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				if s.reads.Load() > 5 {
					once.Do(func() {
						s.mu.Lock()
						defer s.mu.Unlock()
						id := maps.Clone(s.identity)
						c.next(id, s)
						s.identity = id
					})
				}
				next.ServeHTTP(w, r)
			}
			got, said, err := readURL(t, s.URL, nil)
			if c.says != "" {
				if err == nil || !strings.Contains(err.Error(), c.says) {
					t.Errorf("%v, want %q", err, c.says)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if d := tsdbtest.Diff(want, got); d != "" {
				t.Error(d)
			}
			if !said.has("the server was restarted") {
				t.Errorf("%q", said.all)
			}
		})
	}

	// One that begins on the same host is another one if the first goes on.
	t.Run("beside it", func(t *testing.T) {
		t.Parallel()
		first := serve(t, db, db, nil)
		second := serve(t, other, other, nil)
		second.identity["startTime"] = time.Now().Add(time.Hour)
		first.read = func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			if n := first.reads.Load(); n > 4 && n%2 == 0 {
				panic(http.ErrAbortHandler)
			}
			next.ServeHTTP(w, r)
		}
		got, _, err := readURL(t, balanceConnections(t, first, second), nil)
		if err != nil {
			t.Fatal(err)
		}
		if d := tsdbtest.Diff(want, got); d != "" {
			t.Errorf("samples of another server:\n%.500s", d)
		}
	})
}
