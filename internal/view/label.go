package view

import (
	"context"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"
)

// labelled is the common part of the queriers of samples and of chunks that add a label
// to each series of a block.
type labelled struct {
	storage.LabelQuerier
	name, value string
	held        func(ctx context.Context, bytes int64) error // see View.Held
}

// heldBytes is the memory of a series without its labels and chunks.
const heldBytes = 400

// hold counts the memory of a series that is kept until all series can be sorted.
func (l labelled) hold(ctx context.Context, ls labels.Labels) error {
	if err := ctx.Err(); err != nil || l.held == nil {
		return err
	}
	return l.held(ctx, heldBytes+2*int64(ls.ByteSize()))
}

// strip removes the matchers of the added label. It returns no = true if one of them does
// not match the label's value, so that nothing is selected.
func (l labelled) strip(matchers []*labels.Matcher) (rest []*labels.Matcher, no bool) {
	for _, m := range matchers {
		if m.Name != l.name {
			rest = append(rest, m)
		} else if !m.Matches(l.value) {
			return nil, true
		}
	}
	return rest, false
}

// orAll returns the matchers, or the one that selects everything if there are none: a
// block's querier needs at least one.
func orAll(matchers []*labels.Matcher) []*labels.Matcher {
	if len(matchers) == 0 {
		return []*labels.Matcher{{Type: labels.MatchEqual}}
	}
	return matchers
}

func (l labelled) add(ls labels.Labels) labels.Labels {
	return labels.NewBuilder(ls).Set(l.name, l.value).Labels()
}

// LabelNames implements storage.LabelQuerier.
func (l labelled) LabelNames(ctx context.Context, hints *storage.LabelHints, matchers ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	rest, no := l.strip(matchers)
	if no {
		return nil, nil, nil
	}
	names, warnings, err := l.LabelQuerier.LabelNames(ctx, hints, rest...)
	if err != nil || len(names) == 0 {
		return nil, warnings, err
	}
	if i, found := slices.BinarySearch(names, l.name); !found {
		names = slices.Insert(slices.Clone(names), i, l.name)
	}
	return names, warnings, nil
}

// LabelValues implements storage.LabelQuerier.
func (l labelled) LabelValues(ctx context.Context, name string, hints *storage.LabelHints, matchers ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	rest, no := l.strip(matchers)
	if no {
		return nil, nil, nil
	}
	if name != l.name {
		return l.LabelQuerier.LabelValues(ctx, name, hints, rest...)
	}
	// The label has its value only if a series is selected; that series has labels.
	names, warnings, err := l.LabelQuerier.LabelNames(ctx, nil, rest...)
	if err != nil || len(names) == 0 {
		return nil, warnings, err
	}
	return []string{l.value}, warnings, nil
}

type labelQuerier struct {
	labelled
	q storage.Querier
}

// Select implements storage.Querier. The added label changes the order of the series
// ({b} is before {a,b}, but after it once both have a label a0), so they are sorted
// again. The series stay valid after the end of their set, which the engine needs too.
func (l *labelQuerier) Select(ctx context.Context, sorted bool, hints *storage.SelectHints, matchers ...*labels.Matcher) storage.SeriesSet {
	rest, no := l.strip(matchers)
	if no {
		return storage.EmptySeriesSet()
	}
	set := l.q.Select(ctx, sorted, hints, orAll(rest)...)
	var all []storage.Series
	for set.Next() {
		s := set.At()
		all = append(all, &labelSeries{s, l.add(s.Labels())})
		if err := l.hold(ctx, s.Labels()); err != nil {
			return storage.ErrSeriesSet(err)
		}
	}
	slices.SortFunc(all, func(a, b storage.Series) int { return labels.Compare(a.Labels(), b.Labels()) })
	return &list[storage.Series]{all: all, err: set.Err(), warnings: set.Warnings()}
}

type labelSeries struct {
	storage.Series
	labels labels.Labels
}

func (s *labelSeries) Labels() labels.Labels { return s.labels }

type labelChunkQuerier struct {
	labelled
	q storage.ChunkQuerier
}

// Select implements storage.ChunkQuerier.
func (l *labelChunkQuerier) Select(ctx context.Context, sorted bool, hints *storage.SelectHints, matchers ...*labels.Matcher) storage.ChunkSeriesSet {
	rest, no := l.strip(matchers)
	if no {
		return storage.EmptyChunkSeriesSet()
	}
	set := l.q.Select(ctx, sorted, hints, orAll(rest)...)
	var all []storage.ChunkSeries
	for set.Next() {
		s := set.At()
		all = append(all, &labelChunkSeries{s, l.add(s.Labels())})
		if err := l.hold(ctx, s.Labels()); err != nil {
			return storage.ErrChunkSeriesSet(err)
		}
	}
	slices.SortFunc(all, func(a, b storage.ChunkSeries) int { return labels.Compare(a.Labels(), b.Labels()) })
	return &list[storage.ChunkSeries]{all: all, err: set.Err(), warnings: set.Warnings()}
}

type labelChunkSeries struct {
	storage.ChunkSeries
	labels labels.Labels
}

func (s *labelChunkSeries) Labels() labels.Labels { return s.labels }

// list is a set of series in memory.
type list[S any] struct {
	all      []S
	next     int
	err      error
	warnings annotations.Annotations
}

func (l *list[S]) Next() bool {
	if l.err != nil || l.next == len(l.all) {
		return false
	}
	l.next++
	return true
}

func (l *list[S]) At() S                             { return l.all[l.next-1] }
func (l *list[S]) Err() error                        { return l.err }
func (l *list[S]) Warnings() annotations.Annotations { return l.warnings }
