package query

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"

	"github.com/promdump/promdump/internal/dump/dumptest"
	"github.com/promdump/promdump/internal/view"
	"github.com/promdump/promdump/internal/wire"
)

// viewOf is an opened dump of an hour of series, a sample each 15 seconds.
func viewOf(t *testing.T, start time.Time, series map[string]func(minute float64) (v float64, ok bool)) *view.View {
	t.Helper()
	dir := t.TempDir()
	db, err := tsdb.Open(filepath.Join(dir, "data"), quiet, nil, tsdb.DefaultOptions(), nil)
	if err != nil {
		t.Fatal(err)
	}
	app := db.Appender(t.Context())
	for name, f := range series {
		p, err := NewParser().ParseMetric(name)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 4 * 60 {
			if v, ok := f(float64(i) / 4); ok {
				if _, err := app.Append(0, p, start.Add(time.Duration(i)*15*time.Second).UnixMilli(), v); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	if err := app.Commit(); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	return viewIn(t, dumptest.Of(t, filepath.Join(dir, "data"), wire.HeadBlock))
}

// Alerts become pending and fire when a Prometheus would have said so.
func TestAlerts(t *testing.T) {
	start := time.Date(2026, 1, 1, 10, 0, 0, 0, time.UTC)
	between := func(spans ...[2]float64) func(float64) (float64, bool) {
		return func(m float64) (float64, bool) {
			for _, s := range spans {
				if m >= s[0] && m < s[1] {
					return 1, true
				}
			}
			return 0, true
		}
	}
	v := viewOf(t, start, map[string]func(float64) (float64, bool){
		`broken{pod="a"}`: between([2]float64{5, 20}, [2]float64{22, 23}, [2]float64{40, 60}),
		`broken{pod="b"}`: between([2]float64{30, 31}),
		`broken{pod="c"}`: between(),
	})
	file := filepath.Join(t.TempDir(), "rules.yml")
	text := `groups:
- name: shop
  interval: 1m
  labels: {team: shop}
  rules:
  - record: x
    expr: vector(1)
  - alert: Broken
    expr: broken > 0
    for: 2m
    keep_firing_for: 5m
    labels: {severity: page}
    annotations: {summary: "{{ $labels.pod }} is {{ $value }} of {{ with query \"count(broken)\" }}{{ . | first | value }}{{ end }}"}
  - alert: AtTheEnd
    expr: broken @ end() > 0
- name: odd
  rules:
  - alert: Many
    expr: broken + on() broken
`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	rules, err := ReadRules(file)
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(ServerConfig{View: v, Addr: "127.0.0.1:9090", Rules: rules, Logger: quiet, Now: time.Now})
	defer s.Close()
	w := httptest.NewRecorder()
	s.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "http://127.0.0.1/api/promdump/v1/alerts", nil))
	var got alertsView
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
		t.Fatal(err, w.Body)
	}
	at := func(from, to int64) [2]int64 {
		return [2]int64{start.UnixMilli() + from*60_000, start.UnixMilli() + to*60_000}
	}
	if len(got.Groups) != 2 || len(got.Groups[0].Rules) != 2 {
		t.Fatalf("%s", w.Body)
	}
	broken := got.Groups[0].Rules[0]
	byPod := map[string]*instanceView{}
	for _, i := range broken.Instances {
		byPod[i.Labels["pod"]] = i
	}
	want := map[string]*instanceView{
		"a": {
			Labels:      map[string]string{"alertname": "Broken", "pod": "a", "severity": "page", "team": "shop"},
			Annotations: map[string]string{"summary": "a is 1 of 3"},
			// Kept firing from 20 to 25 for its keep_firing_for: gone at 22, back at 22, gone
			// again from 23 to 28. At the end it is firing still.
			Pending: [][2]int64{at(5, 7), at(40, 42)}, Firing: [][2]int64{at(7, 28), at(42, 59)},
		},
		"b": {
			Labels:      map[string]string{"alertname": "Broken", "pod": "b", "severity": "page", "team": "shop"},
			Annotations: map[string]string{"summary": "b is 1 of 3"},
			Pending:     [][2]int64{at(30, 31)}, Firing: [][2]int64{},
		},
	}
	if d := cmp.Diff(want, byPod, cmp.AllowUnexported(instanceView{})); d != "" {
		t.Error(d)
	}
	// end() is the moment of each evaluation, not the end of many that are asked at once.
	seen := ""
	for _, i := range got.Groups[0].Rules[1].Instances {
		if i.Labels["pod"] == "a" {
			seen = fmt.Sprint(i.Firing)
		}
	}
	if want := fmt.Sprint([][2]int64{at(5, 20), at(22, 23), at(40, 59)}); seen != want {
		t.Errorf("AtTheEnd: %s, want %s", seen, want)
	}
	if err := got.Groups[1].Rules[0].Error; !strings.Contains(err, "many-to-many matching not allowed") {
		t.Errorf("Many: %q", err)
	}
}

// With one more label series sort otherwise, and Prometheus' merging needs them
// sorted.
func TestLabelSorts(t *testing.T) {
	start := time.Date(2026, 1, 1, 10, 0, 0, 0, time.UTC)
	one := func(float64) (float64, bool) { return 1, true }
	v := viewOf(t, start, map[string]func(float64) (float64, bool){`m`: one, `m{a="1"}`: one, `m{z="1"}`: one, `m{a="1",z="1"}`: one})
	v.Label = "dump"
	q, err := v.Querier(math.MinInt64, math.MaxInt64)
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	set := q.Select(t.Context(), true, nil, labels.MustNewMatcher(labels.MatchEqual, "dump", "dump"))
	var last labels.Labels
	n := 0
	for set.Next() {
		if ls := set.At().Labels(); labels.Compare(last, ls) >= 0 && n > 0 {
			t.Errorf("%s stands before %s", last, ls)
		} else {
			last = ls
		}
		if n++; last.Get("dump") != "dump" {
			t.Errorf("%s has no name", last)
		}
	}
	if n != 4 || set.Err() != nil {
		t.Errorf("%d series, %v", n, set.Err())
	}
}
