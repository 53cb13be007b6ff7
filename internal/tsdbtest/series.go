package tsdbtest

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
)

// kind is the type of the values of a series.
type kind int

const (
	counter kind = iota
	gauge
	constant
	special // NaN payloads, infinities, the smallest numbers
	intHistogram
	floatHistogram
	gaugeHistogram
	gaugeFloatHistogram
	customHistogram
	customFloatHistogram
	mixed // a float series that becomes a histogram
	once  // a single sample
	kinds
)

func (k kind) histogram() bool { return k >= intHistogram && k <= customFloatHistogram }
func (k kind) isGauge() bool   { return k == gaugeHistogram || k == gaugeFloatHistogram }

// series is the state of a series.
type series struct {
	labels   labels.Labels
	kind     kind
	from, to int     // first and last tick
	gaps     float64 // chance that a tick has no sample
	start    int64   // of its counter, Unix milliseconds

	sum     float64
	buckets [8]uint64
	zero    uint64
	wide    bool // uses buckets far apart: other spans
}

// specials returns floats that an inexact copy changes. The neighbours of the stale marker are NaNs
// without a meaning.
func specials() []float64 {
	return []float64{
		math.Float64frombits(value.NormalNaN), math.Float64frombits(0x7ff8000000c0ffee), math.Float64frombits(0xfff8000000000001),
		math.Float64frombits(value.StaleNaN + 1), math.Float64frombits(value.StaleNaN),
		math.Inf(1), math.Inf(-1), math.Copysign(0, -1), math.SmallestNonzeroFloat64, math.MaxFloat64, 0, 1,
	}
}

// HugeValue is the length in bytes of the longest label value of a random TSDB.
const HugeValue = 300 << 10

func newSeries(r *rand.Rand, i, ticks int, plain bool) *series {
	s := &series{kind: kind(i) % kinds, from: 0, to: ticks - 1}
	if plain && (s.kind.histogram() || s.kind == mixed) {
		s.kind = kind(i) % intHistogram
	}
	lb := labels.NewBuilder(labels.EmptyLabels())
	lb.Set("__name__", fmt.Sprintf("%s_%d", []string{
		"requests_total", "temperature", "build_info", "odd", "latency", "latency_float", "queue", "queue_float",
		"custom", "custom_float", "changing", "once",
	}[s.kind], r.IntN(3)))
	lb.Set("i", fmt.Sprint(i))
	lb.Set("namespace", fmt.Sprintf("ns-%d", i%5))
	lb.Set("pod", fmt.Sprintf("pod-%d", r.IntN(6)))
	if i%7 == 3 {
		lb.Set("quoted", "a\"b\\c\nd\te{}=~!,'`")
	}
	if !plain && i%4 == 1 {
		lb.Set("http.status", fmt.Sprint(200+100*r.IntN(4)))
		lb.Set("größe", []string{"klein", "groß", "🐘"}[r.IntN(3)])
	}
	if !plain && i%9 == 5 {
		lb.Set("__name__", "日本.語 "+fmt.Sprint(r.IntN(2)))
	}
	if i == 9 {
		lb.Set("huge", strings.Repeat("x", HugeValue-1)+"y")
	}
	s.labels = lb.Labels()

	// Churn: half of the series exist all the time, the others begin or end in between.
	switch life := r.IntN(8); {
	case s.kind == once:
		s.from = r.IntN(ticks)
		s.to = s.from
	case i < int(kinds): // one of each kind exists all the time
	case i < 2*int(kinds): // and one ends
		s.to = ticks*3/4 - r.IntN(ticks/4)
	case life == 0:
		s.from = r.IntN(ticks / 2)
	case life == 1:
		s.to = ticks/2 + r.IntN(ticks/2)
	case life <= 3:
		s.from = r.IntN(ticks)
		s.to = min(ticks-1, s.from+1+r.IntN(ticks/4))
	}
	if r.IntN(4) == 0 && s.kind != once {
		s.gaps = 0.1
	}
	return s
}

// next returns the next value of the series: a float, a histogram or a float histogram.
func (s *series) next(r *rand.Rand, t int64, late bool) (float64, *histogram.Histogram, *histogram.FloatHistogram) {
	reset := r.IntN(150) == 0
	if reset || s.start == 0 {
		s.start = t - 1 - r.Int64N(1000)
	}
	k := s.kind
	if k == mixed {
		k = counter
		if late {
			k = intHistogram
		}
	}
	switch k {
	case counter, once:
		if reset {
			s.sum = 0
		}
		s.sum += float64(r.IntN(100))
		return s.sum, nil, nil
	case gauge:
		s.sum += r.NormFloat64()
		return s.sum, nil, nil
	case constant:
		return 1, nil, nil
	case special:
		all := specials()
		return all[r.IntN(len(all))], nil, nil
	}
	h := s.histogram(r, k, reset)
	switch k {
	case floatHistogram, gaugeFloatHistogram, customFloatHistogram:
		fh := h.ToFloat(nil)
		if k == gaugeFloatHistogram {
			fh.CounterResetHint = histogram.GaugeType
		}
		if r.IntN(40) == 0 {
			fh.Sum = specials()[r.IntN(4)] // a NaN that is not the stale marker
		}
		return 0, nil, fh
	}
	return 0, h, nil
}

// stale returns the stale marker for a series of this kind.
func (s *series) stale(late bool) (float64, *histogram.Histogram, *histogram.FloatHistogram) {
	v := math.Float64frombits(value.StaleNaN)
	switch k := s.kind; {
	case k == intHistogram, k == gaugeHistogram, k == customHistogram, k == mixed && late:
		return 0, &histogram.Histogram{Sum: v}, nil
	case k.histogram():
		return 0, nil, &histogram.FloatHistogram{Sum: v}
	}
	return v, nil, nil
}

func (s *series) histogram(r *rand.Rand, k kind, reset bool) *histogram.Histogram {
	if reset {
		s.buckets, s.zero, s.sum = [8]uint64{}, 0, 0
		s.wide = r.IntN(2) == 0
	}
	if k.isGauge() {
		for i := range s.buckets {
			s.buckets[i] = r.Uint64N(10)
		}
	}
	for range 1 + r.IntN(6) {
		s.buckets[r.IntN(len(s.buckets))] += r.Uint64N(20)
	}
	s.sum += r.Float64() * 10

	h := &histogram.Histogram{Sum: s.sum}
	if k.isGauge() {
		h.CounterResetHint = histogram.GaugeType
	}
	if k == customHistogram || k == customFloatHistogram {
		h.Schema = histogram.CustomBucketsSchema
		h.CustomValues = []float64{0.005, 0.1, 1, 10, 60, 3600, 1e6}
		h.PositiveSpans = []histogram.Span{{Offset: 0, Length: 8}}
		h.PositiveBuckets = deltas(s.buckets[:])
		h.Count = total(s.buckets[:])
		return h
	}
	s.zero += r.Uint64N(3)
	h.Schema = 3
	h.ZeroThreshold = 1e-128
	h.ZeroCount = s.zero
	gap := int32(2)
	if s.wide {
		gap = 300
	}
	h.PositiveSpans = []histogram.Span{{Offset: -3, Length: 2}, {Offset: gap, Length: 3}}
	h.NegativeSpans = []histogram.Span{{Offset: 1, Length: 3}}
	h.PositiveBuckets = deltas(s.buckets[:5])
	h.NegativeBuckets = deltas(s.buckets[5:])
	h.Count = s.zero + total(s.buckets[:])
	return h
}

func deltas(counts []uint64) []int64 {
	d := make([]int64, len(counts))
	var before int64
	for i, c := range counts {
		d[i] = int64(c) - before
		before = int64(c)
	}
	return d
}

func total(counts []uint64) (n uint64) {
	for _, c := range counts {
		n += c
	}
	return n
}
