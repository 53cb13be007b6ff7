package changed

import (
	"context"
	"errors"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// reader reads the series of metrics, one after the other, from all storages and ranges
// of a plan.
type reader struct {
	engine   *engine
	queriers []storage.Querier // one for each read of the plan
	fold     *fold
	it       chunkenc.Iterator
}

func (e *engine) newReader() (*reader, error) {
	r := &reader{engine: e, fold: newFold(e.plan)}
	for _, one := range e.plan.reads {
		q, err := one.data.Queryable.Querier(one.span.From+1, one.span.To)
		if err != nil {
			return nil, errors.Join(err, r.close())
		}
		if len(e.IgnoreLabels) > 0 {
			q = &withoutLabels{q, e.IgnoreLabels}
		}
		r.queriers = append(r.queriers, q)
	}
	return r, nil
}

func (r *reader) close() error {
	var err error
	for _, q := range r.queriers {
		err = errors.Join(err, q.Close())
	}
	return err
}

// metric calls each for every series of a metric, in the order of their labels, with the
// reader's fold, which holds its samples.
func (r *reader) metric(ctx context.Context, name string, each func(labels.Labels, *fold) error) error {
	e := r.engine
	own := labels.MustNewMatcher(labels.MatchEqual, model.MetricNameLabel, name)
	sets := make([]storage.SeriesSet, len(r.queriers))
	more := make([]bool, len(sets))
	for i, q := range r.queriers {
		sets[i] = selectAll(ctx, q, e.Match, own)
		more[i] = sets[i].Next()
	}
	for n := 0; ; n++ {
		if n%64 == 0 && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		var ls labels.Labels
		found := false
		for i, set := range sets {
			if more[i] && (!found || labels.Compare(set.At().Labels(), ls) < 0) {
				ls, found = set.At().Labels(), true
			}
		}
		if !found {
			break
		}
		ignored := matchesAny(ls, e.Ignore)
		if !ignored {
			r.fold.reset()
		}
		for i, set := range sets {
			// The same labels may come again where labels are ignored.
			for more[i] && labels.Equal(set.At().Labels(), ls) {
				if !ignored {
					r.it = set.At().Iterator(r.it)
					if err := r.fold.read(&e.plan.reads[i], r.it); err != nil {
						return err
					}
				}
				more[i] = set.Next()
			}
		}
		if ignored || r.fold.samples == 0 {
			continue
		}
		if err := each(ls, r.fold); err != nil {
			return err
		}
	}
	for _, set := range sets {
		if err := set.Err(); err != nil {
			return err
		}
	}
	return nil
}

func selectAll(ctx context.Context, q storage.Querier, match [][]*labels.Matcher, own *labels.Matcher) storage.SeriesSet {
	if len(match) == 0 {
		return q.Select(ctx, true, nil, own)
	}
	var sets []storage.SeriesSet
	for _, list := range match {
		sets = append(sets, q.Select(ctx, true, nil, append(list[:len(list):len(list)], own)...))
	}
	return storage.NewMergeSeriesSet(sets, 0, storage.ChainedSeriesMerge)
}

func matchesAny(ls labels.Labels, lists [][]*labels.Matcher) bool {
	for _, list := range lists {
		all := true
		for _, m := range list {
			if all = m.Matches(ls.Get(m.Name)); !all {
				break
			}
		}
		if all {
			return true
		}
	}
	return false
}
