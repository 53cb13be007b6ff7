package changed

import (
	"context"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/util/annotations"
)

// withoutLabels is a querier whose series lack some labels. Series that become the same
// follow each other.
type withoutLabels struct {
	storage.Querier
	names []string
}

// Select implements storage.Querier.
func (w *withoutLabels) Select(
	ctx context.Context, _ bool, hints *storage.SelectHints, matchers ...*labels.Matcher,
) storage.SeriesSet {
	set := w.Querier.Select(ctx, false, hints, matchers...)
	out := &sortedSet{next: -1}
	b := labels.NewBuilder(labels.EmptyLabels())
	for set.Next() {
		if len(out.all)%1024 == 0 && ctx.Err() != nil {
			return storage.ErrSeriesSet(context.Cause(ctx))
		}
		s := set.At()
		b.Reset(s.Labels())
		out.all = append(out.all, renamed{s, b.Del(w.names...).Labels()})
	}
	out.err, out.warnings = set.Err(), set.Warnings()
	slices.SortStableFunc(out.all, func(a, b renamed) int { return labels.Compare(a.labels, b.labels) })
	return out
}

type renamed struct {
	series storage.Series
	labels labels.Labels
}

func (r renamed) Labels() labels.Labels                           { return r.labels }
func (r renamed) Iterator(it chunkenc.Iterator) chunkenc.Iterator { return r.series.Iterator(it) }

type sortedSet struct {
	all      []renamed
	next     int
	err      error
	warnings annotations.Annotations
}

func (s *sortedSet) Next() bool {
	s.next++
	return s.err == nil && s.next < len(s.all)
}

func (s *sortedSet) At() storage.Series                { return s.all[s.next] }
func (s *sortedSet) Err() error                        { return s.err }
func (s *sortedSet) Warnings() annotations.Annotations { return s.warnings }
