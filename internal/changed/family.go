package changed

import (
	"cmp"
	"context"
	"math"
	"slices"
	"strconv"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
)

// family reads a family and adds its rows.
func (e *engine) family(ctx context.Context, r *reader, f family) (err error) {
	t := newTable(e, f.name)
	t.classic = !f.single
	defer t.release()
	if f.single {
		err = r.metric(ctx, f.name, func(ls labels.Labels, fold *fold) error {
			if err := e.count(fold); err != nil {
				return err
			}
			return t.series(ls, fold)
		})
	} else {
		err = e.histograms(ctx, r, f, t)
	}
	if err != nil {
		return err
	}
	e.add(t.rows())
	return nil
}

func sortBuckets(all []bucket) {
	slices.SortFunc(all, func(a, b bucket) int { return cmp.Compare(a.le, b.le) })
}

// classic is a classic histogram or a summary.
type classic struct {
	item    int // of the table
	count   []float32
	buckets []bucket
}

// bucket has the observations of a step that are no larger than le.
type bucket struct {
	le  float64
	inc []float32
}

// vectors computes the aspects of a series' samples. The first is the one that the
// series is compared by; native histograms have three.
func (t *table) vectors(f *fold, name string) (out []aspectVector) {
	a := f.aspect(name)
	v := t.buffer(0)
	for i := range v {
		v[i] = math.NaN()
		switch {
		case a == Rate && f.dt[i] > 0:
			v[i] = f.inc[i] / f.dt[i] * 1000
		case a == Level && f.n[i] > 0:
			v[i] = f.sum[i] / f.n[i]
		case a == Age && f.n[i] > 0:
			v[i] = float64(t.plan.middle(i))/1000 - f.sum[i]/f.n[i]
		}
	}
	out = append(out, aspectVector{a, v, f.floor(name, a), 0})
	if a == Rate && (f.whole || f.native) {
		out[0].event = out[0].floor
	}
	if !f.native {
		return out
	}
	mean, high := t.buffer(1), t.buffer(2)
	for i := range mean {
		mean[i], high[i] = math.NaN(), math.NaN()
		if f.inc[i] > 0 {
			mean[i] = f.hsum[i] / f.inc[i]
		}
		if f.inc[i] >= leastObservations {
			high[i] = f.high[i]
		}
	}
	return append(out, aspectVector{Mean, mean, unitFloor(name, Mean), 0}, aspectVector{P99, high, unitFloor(name, P99), 0})
}

type aspectVector struct {
	aspect Aspect
	values []float64
	floor  float64
	event  float64
}

// histograms reads the metrics of a classic histogram, or of a summary: counts, then
// sums, then buckets.
func (e *engine) histograms(ctx context.Context, r *reader, f family, t *table) error {
	all := map[uint64]*classic{}
	var order []*classic
	perOne := int64(e.plan.width)*4 + 100
	err := r.metric(ctx, f.name+"_count", func(ls labels.Labels, fold *fold) error {
		if err := e.count(fold); err != nil {
			return err
		}
		c := &classic{item: len(t.items)}
		if err := t.series(ls, fold); err != nil {
			return err
		}
		if !t.hold(perOne) {
			return nil
		}
		c.count = increases(fold)
		all[key(ls)] = c
		order = append(order, c)
		return nil
	})
	if err != nil {
		return err
	}
	if f.sum {
		if err := e.means(ctx, r, f, t, all); err != nil {
			return err
		}
	}
	if !f.bucket {
		return nil
	}
	short := 0
	err = r.metric(ctx, f.name+"_bucket", func(ls labels.Labels, fold *fold) error {
		if err := e.count(fold); err != nil {
			return err
		}
		c := all[key(ls)]
		le, err := strconv.ParseFloat(ls.Get(model.BucketLabel), 64)
		if c == nil || err != nil {
			return nil //nolint:nilerr // a label that is no number is no bucket
		}
		if !t.hold(perOne) {
			short++
			return nil
		}
		c.buckets = append(c.buckets, bucket{le, increases(fold)})
		return nil
	})
	if err != nil {
		return err
	}
	if short > 0 {
		e.note("the histogram %s has more buckets than fit into memory: its 99th percentile is not compared", f.name)
		return nil
	}
	for _, c := range order {
		t.value(c.item, f.name, aspectVector{P99, c.percentiles(t.buffer(0)), unitFloor(f.name, P99), 0})
	}
	return ctx.Err()
}

func (e *engine) means(ctx context.Context, r *reader, f family, t *table, all map[uint64]*classic) error {
	return r.metric(ctx, f.name+"_sum", func(ls labels.Labels, fold *fold) error {
		if err := e.count(fold); err != nil {
			return err
		}
		c := all[key(ls)]
		if c == nil {
			return nil
		}
		mean := t.buffer(0)
		for i := range mean {
			mean[i] = math.NaN()
			if c.count[i] > 0 {
				mean[i] = fold.inc[i] / float64(c.count[i])
			}
		}
		t.value(c.item, f.name, aspectVector{Mean, mean, unitFloor(f.name, Mean), 0})
		return nil
	})
}

func key(ls labels.Labels) uint64 {
	h, _ := ls.HashWithoutLabels(nil, model.BucketLabel)
	return h
}

// increases copies what a counter increased in each step; -1: not known.
func increases(f *fold) []float32 {
	v := make([]float32, len(f.inc))
	for i := range v {
		v[i] = -1
		if f.dt[i] > 0 {
			v[i] = float32(f.inc[i])
		}
	}
	return v
}

// percentiles writes the 99th percentile of each step into v.
func (c *classic) percentiles(v []float64) []float64 {
	sortBuckets(c.buckets)
	for i := range v {
		v[i] = math.NaN()
		n := len(c.buckets)
		if n < 2 || c.buckets[n-1].inc[i] < leastObservations {
			continue
		}
		rank := quantile * float64(c.buckets[n-1].inc[i])
		lower, below := 0.0, 0.0
		for _, b := range c.buckets {
			// A bucket's counter may lack a sample: counts never decrease with le.
			count := max(float64(b.inc[i]), below)
			if count >= rank {
				v[i] = lower
				if !math.IsInf(b.le, 1) {
					v[i] += (b.le - lower) * (rank - below) / max(count-below, 1e-9)
				}
				break
			}
			lower, below = b.le, count
		}
	}
	return v
}
