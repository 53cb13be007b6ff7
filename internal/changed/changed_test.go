package changed_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/promdump/promdump/internal/changed"
)

const (
	minute = int64(60_000)
	start  = int64(1_790_000_000_000)
)

// made is a storage of two hours whose second hour is the window. value gives a sample
// of a series; NaN: none.
func made(series []labels.Labels, value func(i int, minute float64) float64) *memory {
	m := &memory{series: map[string]*memorySeries{}}
	for i, ls := range series {
		s := m.at(ls.String(), func() labels.Labels { return ls })
		for t := int64(0); t <= 120*minute; t += 30_000 {
			if v := value(i, float64(t)/float64(minute)); !math.IsNaN(v) {
				s.points = append(s.points, point{start + t, v})
			}
		}
	}
	m.sort()
	return m
}

func options(m *memory) changed.Options {
	return changed.Options{
		Data:   changed.Data{Queryable: m, MinTime: start, MaxTime: start + 120*minute},
		Window: changed.Span{From: start + 60*minute, To: start + 120*minute},
	}
}

func run(t *testing.T, o changed.Options) *changed.Result {
	t.Helper()
	r, err := changed.Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func pods(name string, n int) (all []labels.Labels) {
	for i := range n {
		all = append(all, labels.FromStrings("__name__", name, "pod", fmt.Sprintf("p-%d", i), "job", "j"))
	}
	return all
}

// What is steady has not changed, however noisy it is; what moves beyond its own noise has.
func TestNoise(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	steady := made(pods("queue_length", 200), func(i int, _ float64) float64 {
		return 100 + float64(i)*r.NormFloat64()
	})
	if got := run(t, options(steady)); !got.Quiet {
		t.Errorf("noise is a change: %+v", got.Rows[0])
	}
	moved := made(pods("queue_length", 200), func(i int, at float64) float64 {
		v := 100 + 10*r.NormFloat64()
		if i == 7 && at > 80 {
			v += 200
		}
		return v
	})
	got := run(t, options(moved))
	if len(got.Rows) != 1 || got.Rows[0].Labels["pod"] != "p-7" || got.Rows[0].Query != `queue_length{pod="p-7"}` {
		t.Fatalf("rows are %+v", got.Rows)
	}
	if began := (got.Rows[0].Began - start) / minute; began < 79 || began > 82 {
		t.Errorf("it began after %d minutes, not 80", began)
	}
}

// A counter is compared by its rate: it always rises.
func TestCounter(t *testing.T) {
	m := made(pods("requests_total", 10), func(i int, at float64) float64 {
		v := 600 * at
		if i == 3 && at > 90 {
			v += 6000 * (at - 90)
		}
		return math.Floor(v)
	})
	got := run(t, options(m))
	if len(got.Rows) != 1 || got.Rows[0].Aspect != changed.Rate || got.Rows[0].Labels["pod"] != "p-3" {
		t.Fatalf("rows are %+v", got.Rows)
	}
	if after := *got.Rows[0].After; math.Abs(after-110) > 1 {
		t.Errorf("the rate is %g after, not 110", after)
	}
}

// Series that end together are one row, of the metric up if there is one.
func TestEnded(t *testing.T) {
	series := append(pods("up", 10), pods("memory_bytes", 10)...)
	m := made(series, func(i int, at float64) float64 {
		if i%10 == 4 && at > 75 {
			return math.NaN()
		}
		return 1
	})
	got := run(t, options(m))
	if len(got.Rows) != 1 || got.Rows[0].Kind != changed.Ended || got.Rows[0].Metric != "up" || got.Rows[0].Metrics != 2 {
		t.Fatalf("rows are %+v", got.Rows)
	}
}

func TestErrors(t *testing.T) {
	m := made(pods("up", 1), func(int, float64) float64 { return 1 })
	for _, c := range []struct {
		name   string
		change func(*changed.Options)
		is     func(error) bool
	}{
		{"window outside", func(o *changed.Options) { o.Window = changed.Span{From: 1, To: 2} }, is[*changed.WindowError]},
		{"no baseline", func(o *changed.Options) { o.Window.From = start }, is[*changed.BaselineError]},
		{"short", func(o *changed.Options) { o.Window.From = o.Window.To - 20_000 }, is[*changed.ShortError]},
		{"overlap", func(o *changed.Options) { o.Baseline = o.Window }, is[*changed.OverlapError]},
		{"nothing", func(o *changed.Options) {
			o.Match = [][]*labels.Matcher{{labels.MustNewMatcher(labels.MatchEqual, "pod", "none")}}
		}, func(err error) bool { return errors.Is(err, changed.ErrNothingSelected) }},
	} {
		o := options(m)
		c.change(&o)
		if _, err := changed.Run(t.Context(), o); !c.is(err) {
			t.Errorf("%s: the error is %v", c.name, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := changed.Run(ctx, options(m)); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled run gives %v", err)
	}
}

func is[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}

// Queries are valid PromQL for any label.
func TestHostileLabels(t *testing.T) {
	evil := "a\"b\\c\n\x1b[31m" + strings.Repeat("x", 3000)
	m := made([]labels.Labels{labels.FromStrings("__name__", "depth", "pod", evil), labels.FromStrings("__name__", "depth", "pod", "b")},
		func(i int, at float64) float64 {
			if i == 0 && at > 70 {
				return 900
			}
			return 10
		})
	got := run(t, options(m))
	if len(got.Rows) != 1 || got.Rows[0].Labels["pod"] != evil {
		t.Fatalf("rows are %+v", got.Rows)
	}
	parsed, err := parseSelector(got.Rows[0].Query)
	if err != nil {
		t.Fatal(err)
	}
	if !parsed(labels.FromStrings("__name__", "depth", "pod", evil)) {
		t.Errorf("%q does not select the series", got.Rows[0].Query)
	}
}

func parseSelector(s string) (func(labels.Labels) bool, error) {
	list, err := parser.NewParser(parser.Options{}).ParseMetricSelector(s)
	return func(ls labels.Labels) bool {
		for _, m := range list {
			if !m.Matches(ls.Get(m.Name)) {
				return false
			}
		}
		return true
	}, err
}
