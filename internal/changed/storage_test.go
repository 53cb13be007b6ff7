package changed_test

import (
	"context"
	"errors"
	"slices"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/util/annotations"
)

// memory is a storage of floats for the quality bench, which needs a new one for each
// incident.
type memory struct {
	series map[string]*memorySeries
	sorted []*memorySeries
}

type memorySeries struct {
	labels labels.Labels
	points []point
}

type point struct {
	t int64
	v float64
}

func (p point) ST() int64                     { return 0 }
func (p point) T() int64                      { return p.t }
func (p point) F() float64                    { return p.v }
func (p point) H() *histogram.Histogram       { return nil }
func (p point) FH() *histogram.FloatHistogram { return nil }
func (p point) Type() chunkenc.ValueType      { return chunkenc.ValFloat }
func (p point) Copy() chunks.Sample           { return p }

func (m *memory) at(key string, make func() labels.Labels) *memorySeries {
	s := m.series[key]
	if s == nil {
		s = &memorySeries{labels: make()}
		m.series[key] = s
	}
	return s
}

func (m *memory) sort() {
	for _, s := range m.series {
		m.sorted = append(m.sorted, s)
	}
	slices.SortFunc(m.sorted, func(a, b *memorySeries) int { return labels.Compare(a.labels, b.labels) })
}

func (m *memory) Querier(mint, maxt int64) (storage.Querier, error) {
	return &memoryQuerier{m, mint, maxt}, nil
}

type memoryQuerier struct {
	*memory
	mint, maxt int64
}

func (q *memoryQuerier) Close() error { return nil }

func (q *memoryQuerier) LabelNames(
	context.Context, *storage.LabelHints, ...*labels.Matcher,
) ([]string, annotations.Annotations, error) {
	return nil, nil, errors.ErrUnsupported
}

func (q *memoryQuerier) LabelValues(
	_ context.Context, name string, _ *storage.LabelHints, _ ...*labels.Matcher,
) (all []string, _ annotations.Annotations, _ error) {
	for _, s := range q.sorted {
		all = append(all, s.labels.Get(name))
	}
	slices.Sort(all)
	return slices.Compact(all), nil, nil
}

func (q *memoryQuerier) Select(
	_ context.Context, _ bool, _ *storage.SelectHints, matchers ...*labels.Matcher,
) storage.SeriesSet {
	set := &memorySet{next: -1}
	for _, s := range q.sorted {
		no := slices.ContainsFunc(matchers, func(m *labels.Matcher) bool { return !m.Matches(s.labels.Get(m.Name)) })
		if no {
			continue
		}
		from, _ := slices.BinarySearchFunc(s.points, q.mint, func(p point, t int64) int { return int(p.t - t) })
		to, _ := slices.BinarySearchFunc(s.points, q.maxt+1, func(p point, t int64) int { return int(p.t - t) })
		if from < to {
			set.all = append(set.all, storage.NewListSeries(s.labels, samples(s.points[from:to])))
		}
	}
	return set
}

func samples(points []point) []chunks.Sample {
	out := make([]chunks.Sample, len(points))
	for i, p := range points {
		out[i] = p
	}
	return out
}

type memorySet struct {
	all  []storage.Series
	next int
}

func (s *memorySet) Next() bool                        { s.next++; return s.next < len(s.all) }
func (s *memorySet) At() storage.Series                { return s.all[s.next] }
func (s *memorySet) Err() error                        { return nil }
func (s *memorySet) Warnings() annotations.Annotations { return nil }
