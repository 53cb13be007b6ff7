package block

import (
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/record"
	"github.com/prometheus/prometheus/tsdb/tombstones"
)

// generator writes random logs. All samples of a series at the same time are equal, because it is
// not defined which of two a server prefers.
type generator struct {
	r        *rand.Rand
	enc      record.Encoder
	wal, wbl [][]byte
	series   []*genSeries
	now      int64
	nextRef  chunks.HeadSeriesRef
}

type genSeries struct {
	ref  chunks.HeadSeriesRef
	lset labels.Labels
	kind int // 0 float, 1 histogram, 2 float histogram, 3 gauge histogram, 4 custom buckets, 5 changes
	salt uint64
	st   int64
}

func newGenerator(seed uint64) *generator {
	return &generator{r: rand.New(rand.NewPCG(seed, 3)), now: 1_000_000, nextRef: 1, enc: record.Encoder{EnableSTStorage: seed%3 == 2}}
}

func (g *generator) logs() (wal, wbl [][]byte) {
	for i := range 18 {
		s := &genSeries{
			lset: labels.FromStrings("__name__", "m", "i", fmt.Sprint(i), "ü", "long "+fmt.Sprint(g.r.Uint64())),
			kind: i % 6, salt: g.r.Uint64(),
		}
		if g.enc.EnableSTStorage && g.r.IntN(3) > 0 {
			s.st = g.now - g.r.Int64N(1000)
		}
		g.series = append(g.series, s)
		g.addRecord(s)
	}
	for range 400 {
		g.now += 2 * (1 + g.r.Int64N(7_000))
		g.scrape()
		switch g.r.IntN(60) {
		case 0: // deleted by a user
			s := g.any()
			// Not before the head's first in-order sample: the TSDB does not log such a deletion.
			mint := max(1_030_000, g.now-g.r.Int64N(1_000_000))
			g.delete(s, mint, mint+g.r.Int64N(300_000)-1000) // sometimes empty
		case 1: // removed from the head; may be added again
			s := g.any()
			g.delete(s, math.MinInt64, math.MaxInt64)
			if g.r.IntN(3) > 0 {
				g.addRecord(s)
			}
		case 2: // a sample without a series
			g.wal = append(g.wal, g.enc.Samples([]record.RefSample{{Ref: 1 << 40, T: g.now, V: 1}}, nil))
		case 3:
			g.wal = append(g.wal, []byte{200, 1, 2, 3}, g.enc.Exemplars(nil, nil))
		}
	}
	return g.wal, g.wbl
}

func (g *generator) any() *genSeries { return g.series[g.r.IntN(len(g.series))] }

func (g *generator) addRecord(s *genSeries) {
	s.ref = g.nextRef
	g.nextRef += 1 + chunks.HeadSeriesRef(g.r.IntN(300))
	g.wal = append(g.wal, g.enc.Series([]record.RefSeries{{Ref: s.ref, Labels: s.lset}}, nil))
}

func (g *generator) delete(s *genSeries, mint, maxt int64) {
	g.wal = append(g.wal, g.enc.Tombstones([]tombstones.Stone{{Ref: 1 << 41, Intervals: tombstones.Intervals{{Mint: 1, Maxt: 2}}},
		{Ref: storage.SeriesRef(s.ref), Intervals: tombstones.Intervals{{Mint: mint, Maxt: maxt}}}}, nil))
}

// scrape appends in-order samples at even times, and out-of-order ones at odd times or at times
// that may have an in-order one.
func (g *generator) scrape() {
	var in, late genBatch
	for _, s := range g.series {
		if g.r.IntN(6) == 0 {
			continue
		}
		t := g.now
		if g.r.IntN(20) == 0 {
			t -= 2 * g.r.Int64N(5_000) // dropped unless later than the last
		}
		in.add(s, t, g.r.IntN(40) == 0)
		if g.r.IntN(8) == 0 {
			t := g.now - g.r.Int64N(900_000)
			late.add(s, t, t%2 != 0 && g.r.IntN(20) == 0 && s.salt%2 == 0)
		}
	}
	g.wal = append(g.wal, in.records(g.enc)...)
	g.wbl = append(g.wbl, late.records(g.enc)...)
}

type genBatch struct {
	floats []record.RefSample
	hists  []record.RefHistogramSample
	fhists []record.RefFloatHistogramSample
}

func (b *genBatch) records(enc record.Encoder) (recs [][]byte) {
	if len(b.floats) > 0 {
		recs = append(recs, enc.Samples(b.floats, nil))
	}
	if len(b.hists) > 0 {
		rec, custom := enc.HistogramSamples(b.hists, nil)
		recs = append(recs, rec)
		if len(custom) > 0 {
			recs = append(recs, enc.CustomBucketsHistogramSamples(custom, nil))
		}
	}
	if len(b.fhists) > 0 {
		rec, custom := enc.FloatHistogramSamples(b.fhists, nil)
		recs = append(recs, rec)
		if len(custom) > 0 {
			recs = append(recs, enc.CustomBucketsFloatHistogramSamples(custom, nil))
		}
	}
	return recs
}

func (b *genBatch) add(s *genSeries, t int64, stale bool) {
	r := rand.New(rand.NewPCG(s.salt, uint64(t)))
	kind := s.kind
	if kind == 5 {
		kind = int(uint64(t)/60_000+s.salt) % 5
	}
	st := s.st
	if r.IntN(10) == 0 {
		st = 0
	}
	if stale {
		// The server stores the marker as the type of the previous sample. It would differ from a
		// sample with the same time in the other log.
		if t%2 == 0 {
			t += 1
		}
		b.floats = append(b.floats, record.RefSample{Ref: s.ref, ST: st, T: t, V: staleNaN})
		return
	}
	if kind == 0 {
		v := r.NormFloat64()
		switch r.IntN(8) {
		case 0:
			v = math.Float64frombits(0x7ff8_0000_dead_0000 | uint64(r.IntN(100)))
		case 1:
			v = math.Inf(-1)
		case 2, 3:
			v = 7
		}
		b.floats = append(b.floats, record.RefSample{Ref: s.ref, ST: st, T: t, V: v})
		return
	}
	h := &histogram.Histogram{Schema: int32(r.IntN(2)), ZeroThreshold: 0.001, Sum: r.NormFloat64()}
	reset := int64(50_000) * (1 + int64(s.salt%5))
	n := uint64(t%reset)/1000 + 1 // a counter with resets
	h.Schema = int32(t / 400_000 % 2)
	h.ZeroCount, h.Count = n, n
	spans := []histogram.Span{{Offset: int32(s.salt % 3), Length: 2}, {Offset: 1 + int32(t/100_000%3), Length: 1}}
	h.PositiveSpans, h.PositiveBuckets = spans, []int64{int64(n), 1, -1}
	h.Count += 3*n + 1
	h.NegativeSpans, h.NegativeBuckets = []histogram.Span{{Offset: 4, Length: 1}}, []int64{2}
	h.Count += 2
	switch kind {
	case 3:
		h.CounterResetHint = histogram.GaugeType
	case 4:
		h = &histogram.Histogram{
			Schema: histogram.CustomBucketsSchema, Count: 3*n + 1, Sum: 1,
			PositiveSpans: []histogram.Span{{Offset: 0, Length: 3}}, PositiveBuckets: []int64{int64(n), 1, -1},
			CustomValues: []float64{0.1, 2, float64(3 + t/300_000%2)},
		}
	}
	if kind == 2 || kind == 4 && s.salt%2 == 0 {
		b.fhists = append(b.fhists, record.RefFloatHistogramSample{Ref: s.ref, ST: st, T: t, FH: h.ToFloat(nil)})
		return
	}
	b.hists = append(b.hists, record.RefHistogramSample{Ref: s.ref, ST: st, T: t, H: h})
}
