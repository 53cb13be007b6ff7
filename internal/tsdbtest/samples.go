package tsdbtest

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/promdump/promdump/internal/wire"
)

// Sample is a sample that a server serves. The operator == compares all bits of its value.
type Sample struct {
	T    int64              // Unix milliseconds
	ST   int64              // start timestamp, Unix milliseconds; 0 if there is none
	Kind chunkenc.ValueType // float, histogram or float histogram

	// Value has the bits of a float, including the payload of a NaN.
	Value uint64

	// Histogram is a canonical form of a histogram without its counter reset hint. It does not
	// depend on the layout of empty buckets in spans, which depends on the chunk.
	Histogram string

	// Hint is the histogram's counter reset hint. Only whether it is a gauge is a property of the
	// sample. The rest depends on the beginning of a chunk.
	Hint histogram.CounterResetHint

	// Reset reports whether the counts of the histogram show a counter reset after the previous
	// sample.
	Reset bool
}

// String returns all fields, for a message.
func (s Sample) String() string {
	var b strings.Builder
	b.WriteString(time.UnixMilli(s.T).UTC().Format("01-02T15:04:05.000"))
	if s.ST != 0 {
		fmt.Fprintf(&b, " st=%d", s.ST)
	}
	if s.Kind == chunkenc.ValFloat {
		fmt.Fprintf(&b, " %v", math.Float64frombits(s.Value))
		if v := math.Float64frombits(s.Value); v != v {
			fmt.Fprintf(&b, "(%#x)", s.Value)
		}
		return b.String()
	}
	fmt.Fprintf(&b, " %s hint=%d %s", s.Kind, s.Hint, s.Histogram)
	return b.String()
}

// falseHint reports whether the hint contradicts the counts. PromQL relies on these two hints without
// checking the counts.
func (s Sample) falseHint() bool {
	return s.Hint == histogram.CounterReset && !s.Reset || s.Hint == histogram.NotCounterReset && s.Reset
}

// Same reports whether got is equivalent to want. Counter reset hints may differ, because they depend on
// the borders of chunks in Prometheus too. But got must not have a wrong hint that want does not have: with
// it PromQL detects a reset that does not exist, or misses one.
func Same(want, got Sample) bool {
	if got.falseHint() && !want.falseHint() {
		return false
	}
	if (want.Hint == histogram.GaugeType) != (got.Hint == histogram.GaugeType) {
		return false
	}
	want.Hint, want.Reset = got.Hint, got.Reset
	return want == got
}

// Served maps the labels of series to their samples.
type Served map[string][]Sample

// Count returns the number of samples.
func (s Served) Count() int {
	n := 0
	for _, samples := range s {
		n += len(samples)
	}
	return n
}

// Everything returns the selection of all series at all times.
func Everything() wire.Selection {
	return wire.Selection{MinTime: math.MinInt64 / 2, MaxTime: math.MaxInt64 / 2}
}

// Samples returns the samples that q serves of a selection. It omits series without samples, like the API.
func Samples(t testing.TB, q storage.Queryable, sel wire.Selection) Served {
	t.Helper()
	served, err := read(context.Background(), q, sel)
	if err != nil {
		t.Fatalf("read samples: %v", err)
	}
	return served
}

// SamplesDir returns the samples of a selection that a Prometheus serves after it started on a copy of dir.
func SamplesDir(t testing.TB, dir string, sel wire.Selection) Served {
	t.Helper()
	return Samples(t, Open(t, dir), sel)
}

func read(ctx context.Context, q storage.Queryable, sel wire.Selection) (_ Served, err error) {
	served := Served{}
	if sel.MinTime > sel.MaxTime {
		return served, nil
	}
	lists, err := Matchers(sel)
	if err != nil {
		return nil, err
	}
	// Queries all samples and restricts them here: with tombstones, a query of one millisecond can
	// panic in Prometheus (tombstones.Intervals.Add).
	querier, err := q.Querier(Everything().MinTime, Everything().MaxTime)
	if err != nil {
		return nil, err
	}
	defer func() {
		if e := querier.Close(); err == nil {
			err = e
		}
	}()
	for _, list := range lists {
		set := querier.Select(ctx, true, nil, list...)
		if err := Collect(served, set, sel.MinTime, sel.MaxTime); err != nil {
			return nil, err
		}
	}
	return served, nil
}

// Collect adds the samples of a set of series to served, from minTime to maxTime in Unix milliseconds,
// inclusive. It replaces an existing series.
func Collect(served Served, set storage.SeriesSet, minTime, maxTime int64) error {
	for set.Next() {
		name := set.At().Labels().String()
		samples, err := collect(set.At().Iterator(nil), minTime, maxTime)
		if err != nil {
			return fmt.Errorf("series %.200s: %w", name, err)
		}
		if len(samples) > 0 {
			served[name] = samples
		}
	}
	return set.Err()
}

func collect(it chunkenc.Iterator, minTime, maxTime int64) ([]Sample, error) {
	var samples []Sample
	var before *histogram.FloatHistogram
	for kind := it.Next(); kind != chunkenc.ValNone; kind = it.Next() {
		if t := it.AtT(); t < minTime || t > maxTime {
			continue
		}
		s := Sample{T: it.AtT(), ST: it.AtST(), Kind: kind}
		var h *histogram.FloatHistogram
		switch kind {
		case chunkenc.ValFloat:
			_, v := it.At()
			s.Value = math.Float64bits(v)
		case chunkenc.ValHistogram:
			_, ih := it.AtHistogram(nil)
			s.Hint = ih.CounterResetHint
			h = ih.ToFloat(nil)
			s.Histogram = canonical(h.Copy())
		case chunkenc.ValFloatHistogram:
			_, h = it.AtFloatHistogram(nil)
			s.Hint = h.CounterResetHint
			s.Histogram = canonical(h.Copy())
		}
		if h != nil && value.IsStaleNaN(h.Sum) {
			// PromQL removes stale markers before it checks for resets.
			s.Hint = histogram.UnknownCounterReset
			samples = append(samples, s)
			continue
		}
		if h != nil && before != nil && s.Hint != histogram.GaugeType {
			byCounts := h.Copy()
			byCounts.CounterResetHint = histogram.UnknownCounterReset
			s.Reset = byCounts.DetectReset(before)
		}
		before = h
		samples = append(samples, s)
	}
	return samples, it.Err()
}

// canonical returns a string that is equal for equal histograms only. Floats that are not finite are
// written as bits.
func canonical(h *histogram.FloatHistogram) string {
	h = h.Compact(0)
	b := make([]byte, 0, 128)
	number := func(name string, v float64) {
		b = append(b, name...)
		if math.IsNaN(v) {
			b = append(b, "NaN:"...)
			b = strconv.AppendUint(b, math.Float64bits(v), 16)
			return
		}
		b = strconv.AppendFloat(b, v, 'g', -1, 64)
	}
	b = strconv.AppendInt(append(b, "schema="...), int64(h.Schema), 10)
	number(" sum=", h.Sum)
	number(" count=", h.Count)
	number(" zero=", h.ZeroCount)
	number(" threshold=", h.ZeroThreshold)
	side := func(name string, spans []histogram.Span, buckets []float64) {
		if len(buckets) == 0 {
			return
		}
		b = append(b, name...)
		var at int32
		var i int
		for _, span := range spans {
			at += span.Offset
			for range span.Length {
				if buckets[i] != 0 {
					b = strconv.AppendInt(append(b, ' '), int64(at), 10)
					number(":", buckets[i])
				}
				i, at = i+1, at+1
			}
		}
	}
	side(" pos", h.PositiveSpans, h.PositiveBuckets)
	side(" neg", h.NegativeSpans, h.NegativeBuckets)
	for _, v := range h.CustomValues {
		number(" le=", v)
	}
	return string(b)
}

// Matchers returns the selection's lists of matchers as those of Prometheus. Without matchers it returns
// one list that matches every series.
func Matchers(sel wire.Selection) ([][]*labels.Matcher, error) {
	if len(sel.Matchers) == 0 {
		return [][]*labels.Matcher{{labels.MustNewMatcher(labels.MatchRegexp, "", ".*")}}, nil
	}
	var lists [][]*labels.Matcher
	for _, list := range sel.Matchers {
		var ms []*labels.Matcher
		for _, m := range list {
			i := slices.Index([]string{"=", "!=", "=~", "!~"}, m.Type)
			if i < 0 {
				return nil, fmt.Errorf("unknown matcher type %q", m.Type)
			}
			types := []labels.MatchType{labels.MatchEqual, labels.MatchNotEqual, labels.MatchRegexp, labels.MatchNotRegexp}
			matcher, err := labels.NewMatcher(types[i], m.Name, m.Value)
			if err != nil {
				return nil, fmt.Errorf("matcher %s%s%q: %w", m.Name, m.Type, m.Value, err)
			}
			ms = append(ms, matcher)
		}
		lists = append(lists, ms)
	}
	return lists, nil
}

// Restrict returns the samples from minTime to maxTime in Unix milliseconds, inclusive.
func (s Served) Restrict(minTime, maxTime int64) Served {
	part := Served{}
	for name, samples := range s {
		from, _ := slices.BinarySearchFunc(samples, minTime, func(s Sample, t int64) int { return compareTimes(s.T, t) })
		to := from
		for to < len(samples) && samples[to].T <= maxTime {
			to++
		}
		if from == to {
			continue
		}
		part[name] = slices.Clone(samples[from:to])
		part[name][0].Reset = false
	}
	return part
}

func compareTimes(a, b int64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// Diff describes how got differs from want, one difference a line, shortened. It is empty if they are
// equivalent, see [Same].
func Diff(want, got Served) string {
	const most = 12
	var lines []string
	n := 0
	add := func(format string, args ...any) {
		if n++; n <= most {
			lines = append(lines, fmt.Sprintf(format, args...))
		}
	}
	names := maps.Clone(want)
	maps.Copy(names, got)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		w, wok := want[name]
		g, gok := got[name]
		switch {
		case !gok:
			add("series missing: %s, %d samples from %v", short(name), len(w), w[0])
			continue
		case !wok:
			add("series too many: %s, %d samples from %v", short(name), len(g), g[0])
			continue
		}
		for len(w) > 0 || len(g) > 0 {
			switch {
			case len(g) == 0 || len(w) > 0 && w[0].T < g[0].T:
				add("sample missing: %s %v", short(name), short(w[0].String()))
				w = w[1:]
			case len(w) == 0 || g[0].T < w[0].T:
				add("sample too many: %s %v", short(name), short(g[0].String()))
				g = g[1:]
			default:
				if !Same(w[0], g[0]) {
					add("sample differs: %s\n\twant %v\n\tgot  %v", short(name), short(w[0].String()), short(g[0].String()))
				}
				w, g = w[1:], g[1:]
			}
		}
	}
	if n > most {
		lines = append(lines, fmt.Sprintf("… and %d more differences", n-most))
	}
	if n > 0 {
		lines = append(lines, fmt.Sprintf("want %d series with %d samples, got %d with %d", len(want), want.Count(), len(got), got.Count()))
	}
	return strings.Join(lines, "\n")
}

// Missing reports the samples of want that are not in got, in the form of [Diff].
// Further samples of got are ignored.
func Missing(want, got Served) string {
	common := Served{}
	for series, samples := range want {
		for _, s := range samples {
			i, ok := slices.BinarySearchFunc(got[series], s.T, func(g Sample, t int64) int { return compareTimes(g.T, t) })
			if ok {
				common[series] = append(common[series], got[series][i])
			}
		}
	}
	return Diff(want, common)
}

func short(s string) string {
	if len(s) > 300 {
		return fmt.Sprintf("%s…(%d bytes)", s[:300], len(s))
	}
	return s
}
