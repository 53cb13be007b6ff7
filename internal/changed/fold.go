package changed

import (
	"math"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// fold collects the samples of one series in the steps of a plan. It is used for one
// series after another.
type fold struct {
	plan *plan

	sum, n  []float64 // of a step's values
	inc, dt []float64 // how much a counter increased in a step, and in how many milliseconds
	high    []float64 // the 99th percentile of native histograms
	hsum    []float64 // how much the sum of native histograms increased

	extent  []extent // of each segment
	samples int64
	pairs   int     // of successive samples
	ups     int     // pairs that increased
	downs   int     // pairs that decreased
	quantum float64 // the smallest difference of two successive samples that is not 0
	whole   bool    // all values are integers
	native  bool    // the series has native histograms
	times   int     // values that are close to the time of their sample in Unix seconds
	least   float64 // of all values
	most    float64

	prevT   int64 // 0: none
	prevV   float64
	prevSum float64

	order []int // segments of the read, by time
	cur   int   // place in order
	hist  nativeFold
}

// extent is what a segment has of a series.
type extent struct {
	first, last int64 // of its samples; 0: none
	n           int
	gap         int64 // the longest time without a sample between two samples
	stale       int64 // the last staleness mark that no sample follows
	resets      int   // decreases
	breaks      int   // staleness marks that samples follow
	past        int64 // first sample at which a time named by the value has passed
	future      bool  // a sample named a time that was to come
}

func newFold(p *plan) *fold {
	f := &fold{plan: p}
	for _, v := range []*[]float64{&f.sum, &f.n, &f.inc, &f.dt, &f.high, &f.hsum} {
		*v = make([]float64, p.width)
	}
	f.extent = make([]extent, len(p.segments))
	return f
}

func (f *fold) reset() {
	for _, v := range [][]float64{f.sum, f.n, f.inc, f.dt} {
		clear(v)
	}
	if f.native {
		clear(f.high)
		clear(f.hsum)
	}
	clear(f.extent)
	f.samples, f.pairs, f.ups, f.downs, f.times = 0, 0, 0, 0, 0
	f.quantum, f.whole, f.native = math.Inf(1), true, false
	f.least, f.most = math.Inf(1), math.Inf(-1)
}

// read adds the samples of a series that a read of the plan gives.
func (f *fold) read(r *read, it chunkenc.Iterator) error {
	f.order, f.cur, f.prevT = r.segments, 0, 0
	f.hist = nativeFold{}
	for {
		switch it.Next() {
		case chunkenc.ValNone:
			f.hist.flush(f)
			return it.Err()
		case chunkenc.ValFloat:
			f.float(it.At())
		case chunkenc.ValHistogram, chunkenc.ValFloatHistogram:
			t, h := it.AtFloatHistogram(nil)
			f.histogram(t, h)
		}
	}
}

// step returns the step of a time and its segment, or -1.
func (f *fold) step(t int64) (step, seg int) {
	for f.cur < len(f.order) && t > f.plan.segments[f.order[f.cur]].To {
		f.cur++
	}
	if f.cur == len(f.order) {
		return -1, -1
	}
	seg = f.order[f.cur]
	s := &f.plan.segments[seg]
	if t <= s.From {
		return -1, seg
	}
	return s.at + int((t-s.From-1)/f.plan.step), seg
}

// longest is the time between two samples of a counter after which nothing is said of
// its rate.
const longest = 15 * 60_000

func (f *fold) float(t int64, v float64) {
	step, seg := f.step(t)
	if math.IsNaN(v) || math.IsInf(v, 0) {
		if value.IsStaleNaN(v) {
			f.end(t, step, seg)
		}
		return
	}
	f.samples++
	e := f.live(t, step, seg)
	if step >= 0 {
		f.sum[step] += v
		f.n[step]++
	}
	f.least, f.most = min(f.least, v), max(f.most, v)
	if f.whole && v != math.Trunc(v) {
		f.whole = false
	}
	if at := float64(t) / 1000; v > 1e9 && math.Abs(v-at) < 10*365*86400 {
		f.times++
		if e != nil && v > at {
			e.future = true
		} else if e != nil && e.past == 0 {
			e.past = t
		}
	}
	if f.prevT != 0 && t-f.prevT <= longest {
		f.pair(step, e, v-f.prevV, v, float64(t-f.prevT))
	}
	f.prevT, f.prevV = t, v
}

// pair adds the difference of two successive samples.
func (f *fold) pair(step int, e *extent, d, v, dt float64) {
	f.pairs++
	switch {
	case d > 0:
		f.ups++
		f.quantum = min(f.quantum, d)
	case d < 0:
		f.downs++
		f.quantum = min(f.quantum, -d)
		if e != nil {
			e.resets++
		}
		d = max(v, 0) // a counter began anew
	}
	if step >= 0 {
		f.inc[step] += d
		f.dt[step] += dt
	}
}

// live counts a sample in the extent of its segment.
func (f *fold) live(t int64, step, seg int) *extent {
	if step < 0 {
		return nil
	}
	e := &f.extent[seg]
	if e.n == 0 {
		e.first = t
	} else if e.stale == 0 {
		e.gap = max(e.gap, t-e.last)
	}
	if e.stale != 0 {
		e.breaks++
		e.gap = max(e.gap, t-e.last)
		e.stale = 0
	}
	e.last = t
	e.n++
	return e
}

// end counts a staleness mark.
func (f *fold) end(t int64, step, seg int) {
	if step >= 0 {
		if e := &f.extent[seg]; e.n > 0 {
			e.stale = t
		}
	}
	f.prevT = 0
}

func (f *fold) histogram(t int64, h *histogram.FloatHistogram) {
	step, seg := f.step(t)
	if value.IsStaleNaN(h.Sum) {
		f.end(t, step, seg)
		f.hist.flush(f)
		f.hist = nativeFold{}
		return
	}
	f.native = true
	f.samples++
	e := f.live(t, step, seg)
	if f.prevT != 0 && t-f.prevT <= longest {
		before := h.Count < f.prevV
		f.pair(step, e, h.Count-f.prevV, h.Count, float64(t-f.prevT))
		if step >= 0 {
			d := h.Sum - f.prevSum
			if before {
				d = h.Sum
			}
			f.hsum[step] += d
		}
	}
	f.hist.add(f, step, h)
	f.prevT, f.prevV, f.prevSum = t, h.Count, h.Sum
}

// nativeFold keeps the native histograms at the borders of a step.
type nativeFold struct {
	step        int
	begin, last *histogram.FloatHistogram
}

func (n *nativeFold) add(f *fold, step int, h *histogram.FloatHistogram) {
	if n.last != nil && step != n.step {
		n.flush(f)
		n.begin = n.last
	}
	if n.begin == nil {
		n.begin = h
	}
	n.step, n.last = step, h
}

// flush computes the percentile of the observations in a step.
func (n *nativeFold) flush(f *fold) {
	if n.last == nil || n.begin == n.last || n.step < 0 {
		return
	}
	d := n.last
	if n.last.Count >= n.begin.Count {
		diff, _, _, err := n.last.Copy().Sub(n.begin)
		if err != nil {
			return
		}
		d = diff
	}
	if d.Count < leastObservations {
		return
	}
	f.high[n.step] = nativeQuantile(d, quantile)
}

// quantile is the percentile of histograms that is compared.
const quantile = 0.99

// leastObservations of a step are enough to name its 99th percentile.
const leastObservations = 10

// nativeQuantile finds the bucket of a quantile, and a place in it.
func nativeQuantile(h *histogram.FloatHistogram, q float64) float64 {
	rank, seen := q*h.Count, 0.0
	out := 0.0
	for it := h.AllBucketIterator(); it.Next(); {
		b := it.At()
		if b.Count <= 0 {
			continue
		}
		out = b.Upper
		if seen+b.Count >= rank {
			part := (rank - seen) / b.Count
			if b.Lower > 0 {
				return b.Lower * math.Pow(b.Upper/b.Lower, part)
			}
			return b.Lower + (b.Upper-b.Lower)*part
		}
		seen += b.Count
	}
	return out
}
