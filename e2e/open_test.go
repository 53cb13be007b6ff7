package e2e

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/promdump/promdump/internal/tsdbtest"
	"github.com/promdump/promdump/internal/wire"
)

// opened is a running promdump open.
type opened struct {
	server // its url and API
	stderr *logBuffer
	pid    int
	ended  chan error // what Wait gave, once
}

// ends waits until it has ended, and gives the exit code.
func (o *opened) ends(t *testing.T) int {
	t.Helper()
	select {
	case err := <-o.ended:
		o.ended <- nil // for the end of the test
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			return exit.ExitCode()
		}
		if err != nil {
			t.Error(err)
		}
		return 0
	case <-time.After(20 * time.Second):
		t.Fatalf("promdump open does not end:\n%s", o.stderr)
		return -1
	}
}

// open runs promdump open until it serves. At the end of the test it must end on
// SIGINT by itself, with exit code 0.
func open(t *testing.T, args ...string) *opened {
	t.Helper()
	o := &opened{server: server{t: t}, stderr: &logBuffer{}, ended: make(chan error, 1)}
	if !slices.Contains(args, "--cache-dir") {
		args = append(args, "--cache-dir", t.TempDir())
	}
	if !slices.Contains(args, "--listen") {
		args = append(args, "--listen", "127.0.0.1:0")
	}
	cmd := exec.Command(binary(t).promdump, append([]string{"open", "--no-browser"}, args...)...)
	cmd.Stderr = o.stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	o.pid = cmd.Process.Pid
	lines := make(chan string, 1)
	go func() {
		line, err := bufio.NewReader(out).ReadString('\n')
		if err != nil {
			line = ""
		}
		lines <- line
		o.ended <- cmd.Wait() // it closes the pipe, so after the line
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGINT)
		select {
		case err := <-o.ended:
			if err != nil {
				t.Errorf("promdump open ended with %v:\n%s", err, o.stderr)
			}
		case <-time.After(20 * time.Second):
			_ = cmd.Process.Kill()
			t.Errorf("promdump open did not end on SIGINT:\n%s", o.stderr)
		}
	})
	select {
	case line := <-lines:
		if o.url = strings.TrimSuffix(strings.TrimSpace(line), "/"); o.url == "" {
			t.Fatalf("promdump open printed no URL:\n%s", o.stderr)
		}
	case <-time.After(time.Minute):
		t.Fatalf("promdump open did not serve:\n%s", o.stderr)
	}
	return o
}

// exitOf runs promdump and gives its exit code and what it printed.
func exitOf(t *testing.T, args ...string) (int, string) {
	t.Helper()
	out, err := exec.Command(binary(t).promdump, args...).CombinedOutput()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode(), string(out)
	}
	if err != nil {
		t.Fatal(err)
	}
	return 0, string(out)
}

// pair is what the comparison runs on: two dumps opened together, and a real
// Prometheus on both restored into one data dir.
type pair struct {
	files        [2]string
	real         *server
	open         *opened
	minMs, maxMs int64 // of the first dump
}

func newPair(t *testing.T) *pair {
	t.Helper()
	p := &pair{}
	dir := t.TempDir()
	d := tsdbtest.Random(t, filepath.Join(dir, "random"), 7, tsdbtest.Options{Start: time.Now().Add(-10 * time.Hour), Series: 32, Interval: time.Minute, Duration: 9 * time.Hour})
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := tsdbtest.Demo(t.Context(), filepath.Join(dir, "demo"), time.UnixMilli(d.MaxTime).Truncate(time.Minute)); err != nil {
		t.Fatal(err)
	}
	p.minMs, p.maxMs = d.MinTime, d.MaxTime
	restored := filepath.Join(dir, "restored")
	for i, name := range []string{"random", "demo"} {
		p.files[i] = filepath.Join(dir, name+".tar.gz")
		promdump(t, "dump", "-d", filepath.Join(dir, name), "--min-time", "0", "--max-time", ms(d.MaxTime), "-t", p.files[i])
		promdump(t, "restore", "-d", restored, "-t", p.files[i])
	}
	p.open = open(t, p.files[0], p.files[1])
	p.real = start(t, restored, serverOptions{args: []string{
		"--storage.tsdb.retention.time=10y", "--enable-feature=promql-experimental-functions,promql-extended-range-selectors,promql-binop-fill-modifiers",
	}})
	return p
}

// reply is an answer of the API as it came.
type reply struct {
	code int
	body string
}

func ask(t *testing.T, method, base, path string, params url.Values, header ...string) reply {
	t.Helper()
	var body io.Reader
	target := base + path
	if method == http.MethodPost {
		body = strings.NewReader(params.Encode())
	} else if len(params) > 0 {
		target += "?" + params.Encode()
	}
	req, err := http.NewRequestWithContext(t.Context(), method, target, body)
	if err != nil {
		t.Fatal(err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for i := 0; i+1 < len(header); i += 2 {
		if header[i] == "Host" {
			req.Host = header[i+1]
		} else {
			req.Header.Set(header[i], header[i+1])
		}
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply{resp.StatusCode, string(b)}
}

// differ compares two answers of the API: numbers but for the last digits of a
// sum, whose order is the storage's; series in any order, unless they are sorted.
func differ(want, got reply, sorted bool) string {
	if want.code != got.code {
		return fmt.Sprintf("status %d, want %d: %.300s / %.300s", got.code, want.code, got.body, want.body)
	}
	var a, b any
	if json.Unmarshal([]byte(want.body), &a) != nil || json.Unmarshal([]byte(got.body), &b) != nil {
		if want.body != got.body {
			return fmt.Sprintf("%.300q, want %.300q", got.body, want.body)
		}
		return ""
	}
	for _, v := range []any{a, b} {
		if m, ok := v.(map[string]any); ok {
			sortNotes(m)
			if !sorted {
				sortResult(m)
			}
		}
	}
	return deep("", a, b)
}

var inQuotes = regexp.MustCompile(`"[^"]*"`)

// sortNotes leaves out which metric a note names: of several Prometheus takes any.
func sortNotes(v map[string]any) {
	for _, key := range []string{"warnings", "infos"} {
		list, _ := v[key].([]any)
		for i := range list {
			list[i] = inQuotes.ReplaceAllString(fmt.Sprint(list[i]), `"…"`)
		}
		slices.SortFunc(list, func(x, y any) int { return strings.Compare(fmt.Sprint(x), fmt.Sprint(y)) })
	}
}

func sortResult(v map[string]any) {
	data, _ := v["data"].(map[string]any)
	result, _ := data["result"].([]any)
	slices.SortFunc(result, func(x, y any) int { return strings.Compare(metricOf(x), metricOf(y)) })
}

func metricOf(v any) string {
	m, ok := v.(map[string]any)
	if !ok {
		return fmt.Sprint(v)
	}
	text, _ := json.Marshal(m["metric"])
	return string(text)
}

func deep(at string, want, got any) string {
	switch w := want.(type) {
	case map[string]any:
		g, ok := got.(map[string]any)
		if !ok || len(g) != len(w) {
			return fmt.Sprintf("%s: %.300v, want %.300v", at, got, want)
		}
		for k := range w {
			if d := deep(at+"."+k, w[k], g[k]); d != "" {
				return d
			}
		}
		return ""
	case []any:
		g, ok := got.([]any)
		if !ok || len(g) != len(w) {
			return fmt.Sprintf("%s: %.300v, want %.300v", at, got, want)
		}
		for i := range w {
			if d := deep(fmt.Sprintf("%s[%d]", at, i), w[i], g[i]); d != "" {
				return d
			}
		}
		return ""
	case string:
		if g, ok := got.(string); ok && near(w, g) {
			return ""
		}
	}
	if want != got {
		return fmt.Sprintf("%s: %.300v, want %.300v", at, got, want)
	}
	return ""
}

func near(a, b string) bool {
	if a == b {
		return true
	}
	x, errX := strconv.ParseFloat(a, 64)
	y, errY := strconv.ParseFloat(b, 64)
	return errX == nil && errY == nil && math.Abs(x-y) <= 1e-9*max(math.Abs(x), math.Abs(y))
}

// queries are made of what the parser itself knows, so that a new function of a
// new Prometheus is tried too.
func queries() []string {
	selectors := []string{`{__name__=~"requests_total.*"}`, `{__name__=~"temperature.*"}`, `{__name__=~"latency_.*"}`, `http_requests_total`, `rpc_duration_seconds`}
	special := map[string][]string{
		"label_replace":                {`label_replace(http_requests_total, "app", "$1", "pod", "(.*)-.*")`},
		"label_join":                   {`label_join(http_requests_total, "where", "/", "namespace", "pod")`},
		"histogram_quantile":           {`histogram_quantile(0.9, rate(rpc_duration_seconds[10m]))`, `histogram_quantile(0.9, sum by (le, pod) (rate(http_request_duration_seconds_bucket[5m])))`, `histogram_quantile(0.5, {__name__=~"latency_.*"})`},
		"histogram_quantiles":          {`histogram_quantiles(rpc_duration_seconds, "q", 0.5, 0.9)`},
		"histogram_fraction":           {`histogram_fraction(0, 0.2, rate(rpc_duration_seconds[10m]))`, `histogram_fraction(0, 0.2, rate(http_request_duration_seconds_bucket[10m]))`},
		"double_exponential_smoothing": {`double_exponential_smoothing({__name__=~"temperature.*"}[30m], 0.5, 0.1)`},
		"quantile_over_time":           {`quantile_over_time(0.3, {__name__=~"temperature.*"}[30m])`},
		"predict_linear":               {`predict_linear({__name__=~"temperature.*"}[1h], 600)`},
		"clamp":                        {`clamp({__name__=~"temperature.*"}, 1, 10)`},
		"clamp_min":                    {`clamp_min({__name__=~"temperature.*"}, 5)`},
		"clamp_max":                    {`clamp_max({__name__=~"temperature.*"}, 5)`},
		"round":                        {`round({__name__=~"temperature.*"}, 0.5)`, `round(http_requests_total)`},
		"info":                         {`info(http_requests_total)`},
		"sort_by_label":                {`sort_by_label(http_requests_total, "pod", "code")`},
		"sort_by_label_desc":           {`sort_by_label_desc(http_requests_total, "pod")`},
		"absent":                       {`absent(nothing{a="b"})`, `absent(http_requests_total)`},
		"absent_over_time":             {`absent_over_time(nothing{a="b"}[5m])`},
		"scalar":                       {`scalar(sum(http_requests_total))`, `scalar(http_requests_total)`},
		"vector":                       {`vector(7)`},
		"time":                         {`time()`}, "pi": {`pi()`}, "start": {`start()`}, "end": {`end()`}, "range": {`range()`}, "step": {`step()`},
	}
	var all []string
	for _, name := range slices.Sorted(mapKeys(parser.Functions)) {
		if made, ok := special[name]; ok {
			all = append(all, made...)
			continue
		}
		f := parser.Functions[name]
		if f.Variadic != 0 && len(f.ArgTypes) == 1 && f.ArgTypes[0] == parser.ValueTypeVector {
			all = append(all, name+"()")
		}
		for _, s := range selectors {
			var args []string
			for _, a := range f.ArgTypes {
				args = append(args, map[parser.ValueType]string{
					parser.ValueTypeVector: s, parser.ValueTypeMatrix: s + "[20m]", parser.ValueTypeScalar: "0.5", parser.ValueTypeString: `"pod"`,
				}[a])
			}
			if f.Variadic > 0 && len(args) > 1 && f.ArgTypes[len(args)-1] != parser.ValueTypeMatrix {
				args = args[:len(args)-1]
			}
			all = append(all, name+"("+strings.Join(args, ", ")+")")
		}
	}
	for _, s := range selectors {
		for _, op := range []string{"sum", "avg", "count", "min", "max", "group", "stddev", "stdvar"} {
			all = append(all, op+"("+s+")", op+" by (pod) ("+s+")", op+" without (code, pod) ("+s+")")
		}
		all = append(all, s, s+"[10m]", s+" offset 30m", s+" offset -30m", s+" @ end()", s+" @ start()", "-"+s,
			`quantile(0.7, `+s+`)`, `topk(3, `+s+` + on() group_left() vector(0))`, `bottomk by (pod) (2, `+s+`)`, `count_values("v", round(`+s+`))`, `count(limitk(2, `+s+`))`,
			`rate(`+s+`[5m])[30m:1m]`, `max_over_time(rate(`+s+`[5m])[30m:])`, `rate(`+s+`[10m] anchored)`, `increase(`+s+`[10m] smoothed)`,
			s+` * 2`, s+` > 3`, s+` >bool 3`, s+` % 7`, s+` ^ 0.5`, `2 atan2 `+s, s+` == `+s, s+` / ignoring(code) group_left sum without(code) (`+s+`)`,
			s+` and `+s+` > 5`, s+` or vector(1)`, s+` unless `+s+` > 5`, s+` - `+s+` offset 10m`)
	}
	return append(all, `1 + 1`, `"a string"`, `{"größe"="groß"}`, `{__name__=~".+"}`, `count({__name__=~".+"})`, `count by (__name__) ({__name__=~".+"})`,
		`http_requests_total @ 1e9`, `up{`, `rate(http_requests_total)`, `http_requests_total + on(pod) http_requests_total`, `nothing`, `{pod=~".*"}`,
		`http_requests_total[20m:1m] offset 5m`, `sum(http_requests_total) by (code) / ignoring(code) group_left sum(http_requests_total)`,
		`http_requests_total[1m+4m]`, `http_requests_total + fill(0) rpc_duration_seconds`)
}

func mapKeys[V any](m map[string]V) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// A dump that is opened answers as a Prometheus does into which it was restored.
func TestOpenAnswersAsPrometheus(t *testing.T) {
	p := newPair(t)
	compared, values, errs := 0, 0, 0
	compare := func(path string, params url.Values, sorted bool) {
		want := ask(t, http.MethodGet, p.real.url, path, params)
		got := ask(t, http.MethodGet, p.open.url, path, params)
		if compared++; want.code == http.StatusOK {
			if !strings.Contains(want.body, `"result":[]`) {
				values++
			}
		} else {
			errs++
			if got.code == want.code { // which of two series is named first is the storage's order
				return
			}
		}
		if d := differ(want, got, sorted); d != "" {
			t.Errorf("%s %v:\n%s", path, params, d)
		}
	}
	stamp := func(ms int64) string { return fmt.Sprintf("%.3f", float64(ms)/1000) }
	late := p.maxMs/60_000*60_000 - 100*60_000 // in the demo's incident; both dumps have it
	for i, q := range queries() {
		at := []int64{late, late - int64(i+1)*137_000%(4*3_600_000)}
		for _, ms := range at {
			compare("/api/v1/query", url.Values{"query": {q}, "time": {stamp(ms)}}, strings.HasPrefix(q, "sort"))
		}
		compare("/api/v1/query_range", url.Values{"query": {q}, "start": {stamp(late - 3_600_000)}, "end": {stamp(late)}, "step": {"7m"}}, true)
	}
	t.Logf("%d answers compared, %d of them with values, %d errors", compared, values, errs)
	if values < 1200 || len(queries()) < 300 {
		t.Errorf("%d queries, %d with values: too few to prove anything", len(queries()), values)
	}

	names := strings.Split("__name__ pod namespace code le nothing job", " ")
	for _, match := range []string{"", `http_requests_total`, `{pod=~"c.*"}`, `{__name__=~"latency_.*"}`} {
		for _, span := range []url.Values{{}, {"start": {stamp(late - 600_000)}, "end": {stamp(late)}}} {
			params := url.Values{"start": span["start"], "end": span["end"]}
			if len(span) == 0 {
				params = url.Values{}
			}
			if match != "" {
				params.Set("match[]", match)
				compare("/api/v1/series", params, true)
			}
			compare("/api/v1/labels", params, true)
			for _, n := range names {
				compare("/api/v1/label/"+n+"/values", params, true)
			}
			params.Set("limit", "2")
			compare("/api/v1/label/__name__/values", params, true)
		}
	}
	for _, path := range []string{"metadata", "query_exemplars?query=up", "format_query?query=sum(up)by(job)", "parse_query?query=sum(up)by(job)",
		"parse_query?query=sum(", "targets", "targets/metadata", "alertmanagers", "rules", "alerts", "scrape_pools", "label/a-b/values", "series", "query", "nothing"} {
		path, q, _ := strings.Cut(path, "?")
		params, err := url.ParseQuery(q)
		if err != nil {
			t.Fatal(err)
		}
		compare("/api/v1/"+path, params, true)
	}
	for _, path := range []string{"/-/ready", "/-/healthy"} {
		compare(path, nil, true)
	}

	// Remote read, streamed.
	all := wire.Selection{MinTime: p.minMs, MaxTime: p.maxMs}
	if d := tsdbtest.Diff(p.real.export(all), p.open.export(all)); d != "" {
		t.Errorf("remote read: %s", d)
	}
	t.Run("grafana", func(t *testing.T) { grafana(t, p, late) })
	t.Run("promtool", func(t *testing.T) { promtool(t, p, late) })
	t.Run("backfill", func(t *testing.T) { backfill(t, p) })
	t.Run("remote read", func(t *testing.T) { remoteRead(t, p, late) })
	t.Run("label", func(t *testing.T) { labelFromName(t, p, late) })
	t.Run("safe", func(t *testing.T) { safe(t, p) })
}

// grafana replays what Grafana's Prometheus data source asks: its health check,
// the query builder's look-ups, a panel, annotations. POST forms are its default.
func grafana(t *testing.T, p *pair, late int64) {
	from, to := fmt.Sprint(late/1000-3600), fmt.Sprint(late/1000)
	header := []string{"User-Agent", "Grafana/12.0.0", "Accept-Encoding", "gzip", "X-Grafana-Org-Id", "1", "X-Datasource-Uid", "abc"}
	for _, r := range []struct {
		method, path string
		params       url.Values
	}{
		{"POST", "/api/v1/query", url.Values{"query": {"1+1"}, "time": {to}}},
		{"POST", "/api/v1/query_range", url.Values{"query": {`sum(rate(http_requests_total[1m0s])) by (code)`}, "start": {from}, "end": {to}, "step": {"15"}}},
		{"POST", "/api/v1/query_range", url.Values{"query": {`histogram_quantile(0.95, sum(rate(http_request_duration_seconds_bucket[5m])) by (le))`}, "start": {from + ".000"}, "end": {to + ".000"}, "step": {"60.000"}}},
		{"POST", "/api/v1/query", url.Values{"query": {"topk(5, http_requests_total)"}, "time": {to}}},
		{"POST", "/api/v1/labels", url.Values{"start": {from}, "end": {to}}},
		{"POST", "/api/v1/labels", url.Values{"start": {from}, "end": {to}, "match[]": {`{__name__="http_requests_total"}`}, "limit": {"40000"}}},
		{"GET", "/api/v1/label/__name__/values", url.Values{"start": {from}, "end": {to}, "limit": {"40000"}}},
		{"GET", "/api/v1/label/pod/values", url.Values{"start": {from}, "end": {to}, "match[]": {`http_requests_total`}}},
		{"POST", "/api/v1/series", url.Values{"start": {from}, "end": {to}, "match[]": {`http_requests_total{code="200"}`}}},
		{"GET", "/api/v1/metadata", url.Values{"limit": {"40000"}}},
		{"POST", "/api/v1/query_exemplars", url.Values{"query": {`http_requests_total`}, "start": {from}, "end": {to}}},
		{"GET", "/api/v1/rules", nil},
		{"GET", "/api/v1/alerts", nil},
	} {
		// Go undoes gzip only where it asked for it itself.
		want, got := ask(t, r.method, p.real.url, r.path, r.params, header[:2]...), ask(t, r.method, p.open.url, r.path, r.params, header[:2]...)
		if d := differ(want, got, false); d != "" || got.code != http.StatusOK {
			t.Errorf("%s %s %v: %d %s", r.method, r.path, r.params, got.code, d)
		}
		if zipped := ask(t, r.method, p.open.url, r.path, r.params, header...); zipped.code != http.StatusOK {
			t.Errorf("%s %s with Grafana's headers: %d", r.method, r.path, zipped.code)
		}
	}
	var info struct{ Data struct{ Version string } }
	if got := ask(t, "GET", p.open.url, "/api/v1/status/buildinfo", nil, header[:2]...); json.Unmarshal([]byte(got.body), &info) != nil || info.Data.Version == "" {
		t.Errorf("buildinfo: %v", got)
	}
	// The real one here is built from its module and says nothing.
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/prometheus/prometheus").Output()
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(out)), "VERSION"))
	if err != nil || strings.TrimSpace(string(want)) != info.Data.Version {
		t.Errorf("buildinfo says %s, the library is %s (%v)", info.Data.Version, want, err)
	}
}

func promtool(t *testing.T, p *pair, late int64) {
	tool := filepath.Join(filepath.Dir(binary(t).prometheus), "promtool")
	from, to := fmt.Sprint(late/1000-3600), fmt.Sprint(late/1000)
	for _, args := range [][]string{
		{"query", "instant", "--time=" + to, "URL", `sum by (code) (rate(http_requests_total[5m]))`},
		{"query", "range", "--start=" + from, "--end=" + to, "--step=5m", "URL", `sum by (code) (rate(http_requests_total[5m]))`},
		{"query", "series", "--match=http_requests_total", "URL"},
		{"query", "labels", "URL", "pod"},
	} {
		var outs []string
		for _, base := range []string{p.real.url, p.open.url} {
			a := slices.Clone(args)
			a[slices.Index(a, "URL")] = base
			out, err := exec.Command(tool, a...).CombinedOutput()
			if err != nil {
				t.Errorf("promtool %v: %v\n%s", a, err, out)
			}
			lines := strings.Split(strings.TrimSpace(string(out)), "\n")
			slices.Sort(lines)
			outs = append(outs, strings.Join(lines, "\n"))
		}
		if outs[0] != outs[1] || len(outs[0]) < 20 {
			t.Errorf("promtool %v:\n%.500s\nwant\n%.500s", args, outs[1], outs[0])
		}
	}
}

// backfill makes blocks of an export with promtool: they hold the same values.
func backfill(t *testing.T, p *pair) {
	dir := t.TempDir()
	text := filepath.Join(dir, "x.om")
	promdump(t, "open", "--export", "openmetrics", "--cache-dir", filepath.Join(dir, "cache"), "-t", text, "--match", `http_requests_total`, "--match", `{__name__=~"requests_total.*"}`, p.files[0], p.files[1])
	out, err := exec.Command(filepath.Join(filepath.Dir(binary(t).prometheus), "promtool"), "tsdb", "create-blocks-from", "openmetrics", text, filepath.Join(dir, "blocks")).CombinedOutput()
	if err != nil {
		t.Fatalf("promtool: %v\n%s", err, out)
	}
	want, n := tsdbtest.Served{}, 0
	sel := wire.Selection{MinTime: p.minMs, MaxTime: p.maxMs, Matchers: [][]wire.Matcher{{{Type: "=~", Name: "__name__", Value: "http_requests_total|requests_total.*"}}}}
	for name, samples := range p.open.export(sel) {
		for _, s := range samples {
			if s.Kind == chunkenc.ValFloat && s.Value != value.StaleNaN {
				s.ST = 0 // text has none
				want[name] = append(want[name], s)
				n++
			}
		}
	}
	if d := tsdbtest.Diff(want, tsdbtest.SamplesDir(t, filepath.Join(dir, "blocks"), tsdbtest.Everything())); d != "" || n < 10_000 {
		t.Errorf("of %d values: %s", n, d)
	}
}

// remoteRead has another Prometheus, without any data, read from what is open.
func remoteRead(t *testing.T, p *pair, late int64) {
	other := start(t, t.TempDir(), serverOptions{config: "remote_read:\n- url: " + p.open.url + "/api/v1/read\n  read_recent: true\n"})
	for _, q := range []string{`sum by (code) (rate(http_requests_total[5m]))`, `last_over_time({__name__=~"latency_.*"}[6h])`, `histogram_quantile(0.9, rate(rpc_duration_seconds[10m]))`} {
		params := url.Values{"query": {q}, "time": {fmt.Sprint(late / 1000)}}
		want, got := ask(t, "GET", p.real.url, "/api/v1/query", params), ask(t, "GET", other.url, "/api/v1/query", params)
		if d := differ(want, got, false); d != "" || strings.Contains(want.body, `"result":[]`) {
			t.Errorf("%s through remote read: %s\n%.300s", q, d, got.body)
		}
	}
}

// labelFromName opens two replicas of a pair, here: the same dump under two names.
func labelFromName(t *testing.T, p *pair, late int64) {
	dir := t.TempDir()
	var files []string
	for _, name := range []string{"a.tar.gz", "b.tgz"} {
		files = append(files, filepath.Join(dir, name))
		b, err := os.ReadFile(p.files[1])
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(files[len(files)-1], b, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	apart := open(t, append(files, "--label-from-name")...)
	merged := open(t, files...)
	value := func(o *opened, q string) string {
		data, ok := o.get("/api/v1/query", url.Values{"query": {q}, "time": {fmt.Sprint(late / 1000)}})
		if !ok {
			t.Fatalf("%s failed", q)
		}
		var v struct {
			Result []struct {
				Metric map[string]string
				Value  [2]any
			}
		}
		if err := json.Unmarshal([]byte(data), &v); err != nil {
			t.Fatal(err)
		}
		var lines []string
		for _, r := range v.Result {
			lines = append(lines, fmt.Sprint(r.Metric["dump"], "=", r.Value[1]))
		}
		slices.Sort(lines)
		return strings.Join(lines, " ")
	}
	one := strings.TrimPrefix(value(merged, `count(http_requests_total)`), "=")
	for q, want := range map[string]string{
		`count by (dump) (http_requests_total)`:                                                        "a=" + one + " b=" + one,
		`count by (dump) (http_requests_total{dump="a"})`:                                              "a=" + one,
		`count by (dump) (http_requests_total{dump=~"a|c"})`:                                           "a=" + one,
		`count by (dump) (http_requests_total{dump!="a"})`:                                             "b=" + one,
		`count(http_requests_total{dump=""})`:                                                          "",
		`count by (dump) ({dump="b",__name__=~"http_req.+l"})`:                                         "b=" + one,
		`max by (dump) (http_requests_total{dump="a"} - ignoring(dump) http_requests_total{dump="b"})`: "=0",
	} {
		if got := value(apart, q); got != want {
			t.Errorf("%s: %q, want %q", q, got, want)
		}
	}
	for path, want := range map[string]string{
		"/api/v1/label/dump/values": `["a","b"]`,
		"/api/v1/label/dump/values?match[]=" + url.QueryEscape(`{dump="b"}`): `["b"]`,
		"/api/v1/label/dump/values?match[]=nothing":                          `[]`,
		"/api/v1/label/code/values?match[]=" + url.QueryEscape(`{dump="c"}`): `[]`,
	} {
		if got := ask(t, "GET", apart.url, path, nil); !strings.Contains(got.body, `"data":`+want) {
			t.Errorf("%s: %s, want %s", path, got.body, want)
		}
	}
	if got := ask(t, "GET", apart.url, "/api/v1/labels", nil); !strings.Contains(got.body, `"dump"`) {
		t.Errorf("labels: %s", got.body)
	}
	var series struct{ Data []map[string]string }
	got := ask(t, "GET", apart.url, "/api/v1/series", url.Values{"match[]": {"http_requests_total", `{dump="a",__name__="http_requests_total"}`}})
	if err := json.Unmarshal([]byte(got.body), &series); err != nil {
		t.Fatal(err)
	}
	if n, _ := strconv.Atoi(one); len(series.Data) != 2*n {
		t.Errorf("%d series, want twice %s", len(series.Data), one)
	}
	if code, out := exitOf(t, "query", files[0], "up", "--label-from-name=pod", "--cache-dir", t.TempDir()); code != 2 || !strings.Contains(out, "already") {
		t.Errorf("a label that series have: exit %d %s", code, out)
	}
}

// safe is about what must not get in.
func safe(t *testing.T, p *pair) {
	_, port, _ := strings.Cut(strings.TrimPrefix(p.open.url, "http://"), ":")
	q := url.Values{"query": {"1"}}
	for _, c := range []struct {
		method, path string
		header       []string
		code         int
	}{
		{"GET", "/api/v1/query", nil, 200},
		{"GET", "/api/v1/query", []string{"Host", "localhost:" + port}, 200},
		{"GET", "/api/v1/query", []string{"Host", "evil.example:" + port}, 403},
		{"GET", "/api/promdump/v1/dumps", []string{"Host", "evil.example"}, 403},
		{"GET", "/", []string{"Host", "evil.example"}, 403},
		{"GET", "/api/v1/query", []string{"Host", "127.0.0.1.evil.example:" + port}, 403},
		{"GET", "/api/v1/query", []string{"Origin", "http://evil.example"}, 403},
		{"POST", "/api/v1/query", []string{"Origin", "http://localhost:3000"}, 403},
		{"POST", "/api/v1/query", []string{"Origin", "null"}, 403},
		{"POST", "/api/v1/query", []string{"Origin", p.open.url}, 200},
		{"GET", "/api/v1/query", []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "no-cors"}, 403},
		{"GET", "/api/v1/query", []string{"Sec-Fetch-Site", "same-origin", "Sec-Fetch-Mode", "cors"}, 200},
		{"POST", "/api/v1/write", nil, 403},
		{"POST", "/api/v1/otlp/v1/metrics", nil, 403},
		{"POST", "/api/v1/admin/tsdb/delete_series", nil, 403},
		{"PUT", "/api/v1/admin/tsdb/snapshot", nil, 405},
		{"DELETE", "/api/v1/series", nil, 405},
	} {
		if got := ask(t, c.method, p.open.url, c.path, q, c.header...); got.code != c.code {
			t.Errorf("%s %s %v: %d, want %d: %.200s", c.method, c.path, c.header, got.code, c.code, got.body)
		}
	}
	small := open(t, "--max-samples", "1000", "--query-timeout", "30s", "--allow-host", "grafana.example", p.files[1])
	if got := ask(t, "GET", small.url, "/api/v1/query", url.Values{"query": {`sum(sum_over_time({__name__=~".+"}[6h]))`}}); got.code != 422 || !strings.Contains(got.body, "samples at once") {
		t.Errorf("a query beyond --max-samples: %d %.200s", got.code, got.body)
	}
	if got := ask(t, "GET", small.url, "/api/v1/query", q, "Host", "grafana.example:9090"); got.code != 200 {
		t.Errorf("--allow-host: %d", got.code)
	}
}
