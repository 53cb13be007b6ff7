package query

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/route"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/storage/remote"

	"github.com/promdump/promdump/internal/view"
)

// many is a dump of an hour of n series of one metric.
func many(t *testing.T, n int) *view.View {
	t.Helper()
	series := map[string]func(float64) (float64, bool){}
	for i := range n {
		name := fmt.Sprintf(`m{i="%d",pod="shop-%d"}`, i, i%7)
		series[name] = func(m float64) (float64, bool) { return m/3 + float64(i), true }
	}
	return viewOf(t, time.Date(2026, 1, 1, 10, 0, 0, 0, time.UTC), series)
}

// served is a server that reports the end of each request.
type served struct {
	*Server
	url   string
	ended chan struct{}
}

func serve(t *testing.T, v *view.View, l Limits) *served {
	t.Helper()
	config := ServerConfig{View: v, Addr: "127.0.0.1:9090", Limits: l, Logger: quiet, Now: time.Now}
	s := &served{Server: NewServer(config), ended: make(chan struct{}, 1000)}
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() { s.ended <- struct{}{} }()
		s.ServeHTTP(w, r)
	}))
	s.url = h.URL
	t.Cleanup(func() {
		h.CloseClientConnections()
		h.Close()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// wait fails when a request goes on.
func (s *served) wait(t *testing.T, atMost time.Duration) {
	t.Helper()
	select {
	case <-s.ended:
	case <-time.After(atMost):
		t.Fatalf("the request goes on after %s", atMost)
	}
	// Nothing of it is held any more: each level lets in as many as ever.
	for i, l := range s.engine.budget.levels {
		all := int64(mediumPart)
		if i == 0 {
			all = int64(s.engine.limits.Concurrency)
		}
		if !l.gate.TryAcquire(all) {
			t.Errorf("level %d is held by a request that ended", i)
			continue
		}
		l.gate.Release(all)
	}
}

func get(t *testing.T, u string) (int, http.Header, string) {
	t.Helper()
	r, err := http.Get(u)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, r.Header, string(body)
}

func query(expr string) string { return "/api/v1/query?" + url.Values{"query": {expr}}.Encode() }

// endless takes a minute, and little memory.
var endless = strings.Repeat("sum_over_time(", 5) + `m{i=~"1.."}` + strings.Repeat("[1h:1s])", 5)

func TestLimits(t *testing.T) {
	v := many(t, 2*familyPart+5)
	t.Run("client leaves", func(t *testing.T) { testClientLeaves(t, v) })
	t.Run("timeout", func(t *testing.T) { testTimeout(t, v) })
	t.Run("stalled reader", func(t *testing.T) { testStalledReader(t, v) })
	t.Run("answer too long", func(t *testing.T) { testAnswerTooLong(t, v) })
	t.Run("hostile text", func(t *testing.T) { testHostileText(t, v) })
	t.Run("busy", func(t *testing.T) { testBusy(t, v) })
	t.Run("federate in parts", func(t *testing.T) { testFederateParts(t, v) })
	t.Run("remote read", func(t *testing.T) { testRemoteRead(t, v) })
	t.Run("memory", func(t *testing.T) { testMemory(t, v) })
}

// A client that leaves ends its query.
func testClientLeaves(t *testing.T, v *view.View) {
	s := serve(t, v, Limits{})
	ctx, leave := context.WithCancel(t.Context())
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+query(endless), nil)
	if err != nil {
		t.Fatal(err)
	}
	went := make(chan struct{})
	go func() {
		defer close(went)
		if r, err := http.DefaultClient.Do(r); err == nil {
			t.Errorf("it was answered with %s", r.Status)
			r.Body.Close()
		}
	}()
	for s.engine.budget.largest() == nil {
		time.Sleep(time.Millisecond)
	}
	leave()
	<-went
	s.wait(t, 10*time.Second)
}

// The time of a request ends its evaluation, and the answer says so.
func testTimeout(t *testing.T, v *view.View) {
	s := serve(t, v, Limits{Timeout: 100 * time.Millisecond})
	code, _, body := get(t, s.url+query(endless))
	s.wait(t, time.Second)
	said := strings.Contains(body, `"errorType":"timeout"`) && strings.Contains(body, "longer than 100ms")
	if code != http.StatusServiceUnavailable || !said {
		t.Errorf("%d %s", code, body)
	}
}

// Its time also ends an answer that the client does not read.
func testStalledReader(t *testing.T, v *view.View) {
	s := serve(t, v, Limits{Timeout: 300 * time.Millisecond})
	for _, path := range []string{
		query("m[1h]"), "/federate?match[]=m", "/api/v1/series?match[]=m",
		"/api/v1/query_range?query=m&step=5&start=1767261600&end=1767265200",
	} {
		u, err := url.Parse(s.url)
		if err != nil {
			t.Fatal(err)
		}
		conn, err := net.Dial("tcp", u.Host)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := conn.(*net.TCPConn).SetReadBuffer(1 << 12); err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", path); err != nil {
			t.Fatal(err)
		}
		s.wait(t, 5*time.Second)
	}
}

// What is sent is bounded, and a client gets a reason and not a part.
func testAnswerTooLong(t *testing.T, v *view.View) {
	s := serve(t, v, Limits{Answer: 40_000})
	for path, fits := range map[string]bool{
		query("m[1h]"): false, query(`m{pod="shop-1"}`): true, query(`m{i="1"}[1h]`): true,
		"/api/v1/series?match[]=m": false, "/api/v1/label/i/values": true,
	} {
		code, h, body := get(t, s.url+path)
		if fits != (code == http.StatusOK) {
			t.Errorf("%s: %d %.200s", path, code, body)
		}
		said := h.Get("Content-Type") == "application/json" && strings.Contains(body, "longer than")
		if !fits && (code != http.StatusUnprocessableEntity || !said) {
			t.Errorf("%s: %d %.200s", path, code, body)
		}
	}
	// The length of this is not known before: it is cut, and the client sees it.
	r, err := http.Get(s.url + "/federate?match[]=m")
	if err != nil {
		return
	}
	defer r.Body.Close()
	if _, err := io.ReadAll(r.Body); err == nil && r.StatusCode == http.StatusOK {
		t.Error("the answer is cut, and does not say so")
	}
}

// Texts that would take the server with them are refused: Prometheus' parser and
// engine descend into them, or compile them.
func testHostileText(t *testing.T, v *view.View) {
	s := serve(t, v, Limits{})
	for name, path := range map[string]string{
		"deep":        query(strings.Repeat("-", 40_000) + "m"),
		"parentheses": query(strings.Repeat("(", 30_000) + "1" + strings.Repeat(")", 30_000)),
		"long":        query("1" + strings.Repeat("+1", 200_000)),
		"formatted":   "/api/v1/format_query?query=" + strings.Repeat("-", 20_000) + "m",
		"parsed":      "/api/v1/parse_query?query=" + strings.Repeat("-", 20_000) + "m",
		"selector":    "/api/v1/series?" + url.Values{"match[]": {"{" + strings.Repeat(`a="b",`, 50_000) + "}"}}.Encode(),
		"repeated":    query(`{a=~"` + strings.Repeat(".{1000}", 3000) + `"}`),
		"doubled":     query(strings.Repeat("label_replace(", 40) + "m" + strings.Repeat(`,"a","$1$1","i","(.*)")`, 40)),
		"joined":      query(strings.Repeat("label_join(", 40) + "m" + strings.Repeat(`,"i","","i","i","i")`, 40)),
		"steps":       query("sum_over_time(absent[100y:1ms])"),
		"nested":      query(strings.Repeat("sum_over_time(", 400) + "absent" + strings.Repeat("[1d:1s])", 400)),
		"computed":    query("sum_over_time(absent[(1000d * 30):(1ms * 1)])"),
		"literal":     query(`label_replace(vector(1),"a","` + strings.Repeat("x", 100_000) + `","","")`),
	} {
		began := time.Now()
		code, _, body := get(t, s.url+path)
		if took := time.Since(began); took > 3*time.Second {
			t.Errorf("%s takes %s", name, took)
		}
		want := http.StatusUnprocessableEntity
		if name == "literal" {
			want = http.StatusOK
		}
		if code != want {
			t.Errorf("%s: %d %.300s", name, code, body)
		}
	}
	r, err := http.PostForm(s.url+"/api/v1/query", url.Values{"query": {strings.Repeat(" ", 2<<20) + "m"}})
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	if r.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("a long body: %s", r.Status)
	}
	usual := query(`sum by (pod) (rate(m{pod=~"shop-[0-9]{1,3}"}[5m])) > 0`)
	if code, _, body := get(t, s.url+usual); code != http.StatusOK {
		t.Errorf("a usual query: %d %s", code, body)
	}
}

// A request that has to wait too long gets the time to wait in Retry-After.
func testBusy(t *testing.T, v *view.View) {
	s := serve(t, v, Limits{Timeout: 200 * time.Millisecond})
	gate := s.engine.budget.levels[0].gate
	if !gate.TryAcquire(int64(s.engine.limits.Concurrency)) {
		t.Fatal("it is busy")
	}
	code, h, body := get(t, s.url+query("m"))
	unavailable := code == http.StatusServiceUnavailable && strings.Contains(body, `"errorType":"unavailable"`)
	if !unavailable || h.Get("Retry-After") == "" {
		t.Errorf("%d %v %s", code, h, body)
	}
	gate.Release(int64(s.engine.limits.Concurrency))
	if code, _, body := get(t, s.url+query("m")); code != http.StatusOK {
		t.Errorf("afterwards: %d %s", code, body)
	}
}

// Through all that, answers are those of Prometheus' own API with its own codec.
func TestSameAsTheAPI(t *testing.T) {
	v := many(t, 30)
	s := serve(t, v, Limits{})
	router := route.New()
	s.api(prometheus.NewRegistry()).Register(router)
	reference := http.StripPrefix("/api/v1", router)
	times := "&start=1767261600&end=1767265200&step=15&time=1767263400"
	for _, path := range []string{
		query("m") + times, query("m[10m]") + times, query("1") + times, query(`"a"`) + times,
		query("m") + times + "&limit=3", query("m{") + times, query("sum(m)+on()m") + times,
		query("rate(m[5m])") + times + "&timeout=0", query("topk(2,m)") + times + "&stats=x",
		"/api/v1/query_range?query=m" + times, "/api/v1/query_range?query=m&start=5", "/api/v1/query_range?query=none" + times,
		"/api/v1/series?match[]=m", "/api/v1/series?match[]=m&match[]={i=%221%22}&limit=2", "/api/v1/series",
		"/api/v1/labels", "/api/v1/labels?match[]=m&limit=1", "/api/v1/label/i/values",
		"/api/v1/label/none/values", "/api/v1/label/i/values?match[]=m{pod=%22shop-1%22}",
		"/api/v1/status/tsdb/blocks", "/api/v1/metadata", "/api/v1/targets", "/api/v1/rules", "/api/v1/query_exemplars?query=m",
		"/api/v1/format_query?query=m%2b1", "/api/v1/parse_query?query=m", "/api/v1/nothing",
	} {
		r := httptest.NewRequest(http.MethodGet, path, nil)
		want := httptest.NewRecorder()
		reference.ServeHTTP(want, r)
		code, h, body := get(t, s.url+path)
		took := regexp.MustCompile(`[0-9.e-]+`) // stats have the time that it took
		if strings.Contains(path, "stats") {
			body = took.ReplaceAllString(body, "0")
			want.Body = bytes.NewBufferString(took.ReplaceAllString(want.Body.String(), "0"))
		}
		sameHead := code == want.Code && h.Get("Content-Type") == want.Header().Get("Content-Type")
		if !sameHead || body != want.Body.String() {
			t.Errorf("%s: %d %s\n%.1000s\nwant %d %s\n%.1000s", path, code, h, body, want.Code, want.Header(), want.Body)
		}
		if len(h["Vary"]) > 1 {
			t.Errorf("%s: %v", path, h["Vary"])
		}
	}
}

// A metric of many series is one family, though it is written in parts.
func testFederateParts(t *testing.T, v *view.View) {
	s := serve(t, v, Limits{})
	code, _, body := get(t, s.url+"/federate?match[]=m")
	types, samples := strings.Count(body, "# TYPE"), strings.Count(body, "\nm{")
	if code != http.StatusOK || types != 1 || samples != 2*familyPart+5 {
		t.Errorf("%d: %d types and %d samples in %.200s", code, types, samples, body)
	}
}

// The memory of the process stays below the limit, whatever many clients ask for at
// once: together it would be many times that. Small requests are answered meanwhile.
func testMemory(t *testing.T, v *view.View) {
	const limit = 256 << 20
	s := serve(t, v, Limits{Memory: limit, Timeout: 4 * time.Second})
	read := remoteRead(t)
	stop, peak := make(chan struct{}), make(chan int64)
	go func() {
		most := int64(0)
		for {
			select {
			case <-stop:
				peak <- most
				return
			case <-time.After(time.Millisecond):
				most = max(most, anonymous(t))
			}
		}
	}()
	times := "&start=1767261600&end=1767265200&step=1"
	asked := []string{
		query("m[1h:1s]"), query("m[1h]"), "read", "/federate?match[]=m", "/api/v1/series?match[]=m",
		"/api/v1/query_range?query=m" + times, "/api/v1/query_range?query=rate(m[30m])" + times,
		"/api/v1/query_range?query=" + url.QueryEscape(`count_values("v",m)`) + times,
		query(strings.TrimSuffix(strings.Repeat("m or ", 200), " or ")),
	}
	var clients sync.WaitGroup
	var mu sync.Mutex
	codes := map[int]int{}
	for i := range 20 {
		clients.Go(func() {
			path := asked[i%len(asked)]
			var r *http.Response
			var err error
			if path == "read" {
				r, err = http.Post(s.url+"/api/v1/read", "application/x-protobuf", bytes.NewReader(read))
			} else {
				r, err = http.Get(s.url + path)
			}
			if err != nil {
				t.Error(err)
				return
			}
			defer r.Body.Close()
			_, err = io.Copy(io.Discard, r.Body)
			mu.Lock()
			defer mu.Unlock()
			if codes[r.StatusCode]++; err != nil {
				codes[0]++ // it was cut by its time
			}
		})
	}
	for range 3 {
		if code, _, body := get(t, s.url+query("sum(m)")); code != http.StatusOK {
			t.Errorf("a small request: %d %s", code, body)
		}
	}
	clients.Wait()
	close(stop)
	if most := <-peak; most > limit {
		t.Errorf("the peak was %d MiB, the limit is %d MiB", most>>20, limit>>20)
	} else {
		t.Logf("the peak was %d MiB, the limit is %d MiB; answers: %v", most>>20, limit>>20, codes)
	}
	for code := range codes {
		if code != 0 && code != http.StatusOK && code != http.StatusUnprocessableEntity && code != http.StatusServiceUnavailable {
			t.Errorf("answers: %v", codes)
		}
	}
}

// anonymous is the memory of this process that is not of files.
func anonymous(t *testing.T) int64 {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return memory().inUse
	}
	m := regexp.MustCompile(`RssAnon:\s+(\d+)`).FindSubmatch(status)
	if m == nil {
		t.Fatal("no RssAnon")
	}
	n, err := strconv.ParseInt(string(m[1]), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n << 10
}

// remoteRead asks for all samples in one piece.
func remoteRead(t *testing.T) []byte {
	t.Helper()
	m := labels.MustNewMatcher(labels.MatchEqual, "__name__", "m")
	q, err := remote.ToQuery(0, 1<<50, []*labels.Matcher{m}, nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := (&prompb.ReadRequest{Queries: []*prompb.Query{q, q, q, q, q}}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return snappy.Encode(nil, b)
}

// Remote read in one piece holds all of it three times, so it has a limit; the
// stream has none.
func testRemoteRead(t *testing.T, v *view.View) {
	s := serve(t, v, Limits{Memory: MinMemory})
	r, err := http.Post(s.url+"/api/v1/read", "application/x-protobuf", bytes.NewReader(remoteRead(t)))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	var e struct{ Error string }
	err = json.NewDecoder(r.Body).Decode(&e)
	if err != nil || r.StatusCode != http.StatusUnprocessableEntity || !strings.Contains(e.Error, "memory") {
		t.Errorf("%s %q %v", r.Status, e.Error, err)
	}
}
