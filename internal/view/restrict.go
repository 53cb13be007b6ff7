package view

import (
	"context"
	"maps"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"
)

// Restrict limits a view to the samples from minMs to maxMs, both included, of the
// series that any of the lists of matchers selects, or of all series if there is no
// list. It affects neither queriers that are already open nor chunk queriers (remote
// read).
func (v *View) Restrict(minMs, maxMs int64, lists [][]*labels.Matcher) {
	v.MinTime, v.MaxTime = max(v.MinTime, minMs), min(v.MaxTime, maxMs)
	v.restricted, v.lists = true, lists
}

// restrictQuerier is the querier of a restricted view.
type restrictQuerier struct {
	storage.Querier
	minMs, maxMs int64
	lists        [][]*labels.Matcher
}

// Select implements storage.Querier.
func (r *restrictQuerier) Select(
	ctx context.Context, sorted bool, hints *storage.SelectHints, matchers ...*labels.Matcher,
) storage.SeriesSet {
	if hints != nil {
		// A block's querier takes its range from the hints, if there are any.
		h := *hints
		h.Start, h.End = max(h.Start, r.minMs), min(h.End, r.maxMs)
		if h.Start > h.End {
			return storage.EmptySeriesSet()
		}
		hints = &h
	}
	if len(r.lists) == 0 {
		return r.Querier.Select(ctx, sorted, hints, matchers...)
	}
	var sets []storage.SeriesSet
	for _, list := range r.lists {
		sets = append(sets, r.Querier.Select(ctx, true, hints, slices.Concat(matchers, list)...))
	}
	return storage.NewMergeSeriesSet(sets, 0, storage.ChainedSeriesMerge)
}

// LabelNames implements storage.LabelQuerier.
func (r *restrictQuerier) LabelNames(
	ctx context.Context, hints *storage.LabelHints, matchers ...*labels.Matcher,
) ([]string, annotations.Annotations, error) {
	return r.union(matchers, func(m []*labels.Matcher) ([]string, annotations.Annotations, error) {
		return r.Querier.LabelNames(ctx, hints, m...)
	})
}

// LabelValues implements storage.LabelQuerier.
func (r *restrictQuerier) LabelValues(
	ctx context.Context, name string, hints *storage.LabelHints, matchers ...*labels.Matcher,
) ([]string, annotations.Annotations, error) {
	return r.union(matchers, func(m []*labels.Matcher) ([]string, annotations.Annotations, error) {
		return r.Querier.LabelValues(ctx, name, hints, m...)
	})
}

func (r *restrictQuerier) union(
	matchers []*labels.Matcher, ask func([]*labels.Matcher) ([]string, annotations.Annotations, error),
) ([]string, annotations.Annotations, error) {
	if len(r.lists) == 0 {
		return ask(matchers)
	}
	all := map[string]bool{}
	var warnings annotations.Annotations
	for _, list := range r.lists {
		some, w, err := ask(slices.Concat(matchers, list))
		if err != nil {
			return nil, w, err
		}
		for _, s := range some {
			all[s] = true
		}
		warnings.Merge(w)
	}
	return slices.Sorted(maps.Keys(all)), warnings, nil
}
