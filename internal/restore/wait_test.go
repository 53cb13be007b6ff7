package restore

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/tsdb"
)

// balance is a TCP load balancer that takes turns.
func balance(t *testing.T, urls ...string) string {
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
			back, err := net.Dial("tcp", strings.TrimPrefix(urls[i%len(urls)], "http://"))
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

// Of several servers behind a URL the one on the data dir is waited for. Another one may
// serve the same blocks, as the server does that a dump is of.
func TestWaitOfReplicas(t *testing.T) {
	one := func(spans ...span) (string, *tsdb.DB, string) {
		dir := t.TempDir()
		addBlocks(t, dir, spans...)
		reg := prometheus.NewRegistry()
		db := openLevels(t, dir, reg)
		return dir, db, apiOf(t, db, reg, true)
	}
	src, _, there := one(span{"a", noon, noon + hour})
	dump := dumpOf(t, src, false)

	dir, db, here := one(span{"own", noon - 2*hour, noon})
	for _, urls := range [][]string{{there, here}, {here, there}} {
		p, err := Prepare(t.Context(), Spec{Dir: dir, Dump: bytes.NewReader(dump), WaitURL: balance(t, urls...), WaitTimeout: 20 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		p.server.every = 20 * time.Millisecond
		rep, err := p.Run(t.Context())
		if err != nil || !rep.Served || len(db.Blocks()) != 2 || !strings.Contains(strings.Join(p.Notes, "\n"), "Several servers answer") {
			t.Errorf("%+v, %v, %d blocks are loaded, notes %q", rep, err, len(db.Blocks()), p.Notes)
		}
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
	}

	// Neither server has a data dir in common with an empty one, so both are refused.
	refused := func(what string, spec Spec) {
		t.Helper()
		spec.Dump = bytes.NewReader(dump)
		_, err := Prepare(t.Context(), spec)
		if _, ok := errors.AsType[*ReplicaError](err); !ok || len(names(t, spec.Dir)) > 0 && spec.Dir != dir {
			t.Errorf("%s: %v", what, err)
		}
	}
	refused("an empty data dir", Spec{Dir: t.TempDir(), WaitURL: balance(t, here, there)})
	var n atomic.Int64
	turns := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u, err := url.Parse([]string{here, there}[n.Add(1)%2])
		if err != nil {
			t.Error(err)
			return
		}
		httputil.NewSingleHostReverseProxy(u).ServeHTTP(w, r)
	}))
	t.Cleanup(turns.Close)
	refused("requests that take turns", Spec{Dir: dir, WaitURL: turns.URL})
}

// A server that answers with something else is not taken for one without blocks.
func TestWaitOfOtherAnswers(t *testing.T) {
	for what, body := range map[string]string{
		"page": "<html>Log in.</html>", "object": "{}", "no data": `{"status":"success","data":null}`, "empty": "",
		"list": `{"status":"success","data":[]}`, "other data": `{"status":"success","data":{"totalSeries":0}}`,
	} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) }))
		t.Cleanup(s.Close)
		dir := t.TempDir()
		_, err := Prepare(t.Context(), Spec{Dir: dir, Dump: strings.NewReader("not read"), WaitURL: s.URL})
		if _, ok := errors.AsType[*AnswerError](err); !ok || len(names(t, dir)) > 0 {
			t.Errorf("%s: plan: %v", what, err)
		}
		srv, err := newServer(s.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		srv.every = time.Millisecond
		err = srv.wait(t.Context(), []PlannedBlock{{ULID: "X"}}, 20*time.Second, func(Progress) {})
		if _, ok := errors.AsType[*AnswerError](err); !ok || !strings.Contains(err.Error(), "cannot tell whether") {
			t.Errorf("%s: wait: %v", what, err)
		}
		if _, _, err := AskReplaced(t.Context(), nil, s.URL, []string{"X"}); err == nil {
			t.Errorf("%s: no block is served of a server that does not say", what)
		}
		if _, _, err := AskRetention(t.Context(), nil, s.URL); err == nil {
			t.Errorf("%s: a retention of a server that does not say", what)
		}
	}
}
