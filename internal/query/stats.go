package query

import (
	"cmp"
	"context"
	"errors"
	"math"
	"slices"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/index"

	"github.com/promdump/promdump/internal/view"
)

// errReadOnly is the error of requests that would change something.
var errReadOnly = errors.New("a dump is read-only")

// cardinality serves status/tsdb. The first request counts all series; cardinality keeps
// the counts that the API may return.
type cardinality struct {
	view *view.View
	turn chan struct{} // held by the request that counts

	stats *tsdb.Stats // at most mostStats entries in each list; nil: not counted yet
}

// mostStats is the maximum number of entries that the API returns of a list.
const mostStats = 10_000

// pairBytes is the memory of a label pair while it is counted.
const pairBytes = 200

func newCardinality(v *view.View) *cardinality {
	return &cardinality{view: v, turn: make(chan struct{}, 1)}
}

func (c *cardinality) count(ctx context.Context, m *meter) (err error) {
	select {
	case c.turn <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-c.turn }()
	if c.stats != nil {
		return nil
	}
	// The view's own: its series are counted and not kept.
	q, err := m.view.Querier(math.MinInt64, math.MaxInt64)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, q.Close()) }()
	pairs := map[string]map[string]uint64{} // label, value: series
	// Func "series" selects labels without chunks. The series are merged in order, so that
	// one in many blocks counts once.
	hints := &storage.SelectHints{Start: math.MinInt64, End: math.MaxInt64, Func: "series"}
	set := q.Select(ctx, true, hints, &labels.Matcher{Type: labels.MatchEqual})
	account, series := accountOf(ctx), uint64(0)
	for set.Next() {
		if series++; series%1024 == 0 && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		added := 0
		set.At().Labels().Range(func(l labels.Label) {
			values := pairs[l.Name]
			if values == nil {
				values = map[string]uint64{}
				pairs[strings.Clone(l.Name)] = values
			}
			if _, ok := values[l.Value]; !ok {
				// Cloned: a substring would keep all labels of the series in memory.
				l.Value = strings.Clone(l.Value)
				added += pairBytes + len(l.Value)
			}
			values[l.Value]++
		})
		if added > 0 {
			if err := account.charge(int64(added)); err != nil {
				return err
			}
		}
	}
	if set.Err() != nil {
		return set.Err()
	}
	p := &index.PostingsStats{}
	var byMetric, byLabel, bySize, byPair top
	for label, values := range pairs {
		p.NumLabelPairs += len(values)
		byLabel.add(index.Stat{Name: label, Count: uint64(len(values))})
		var size uint64
		for value, series := range values {
			if label == model.MetricNameLabel {
				byMetric.add(index.Stat{Name: value, Count: series})
			}
			byPair.add(index.Stat{Name: label + "=" + value, Count: series})
			size += uint64(len(value)) * series // as a head counts it
		}
		bySize.add(index.Stat{Name: label, Count: size})
	}
	p.CardinalityMetricsStats, p.CardinalityLabelStats = byMetric.first(mostStats), byLabel.first(mostStats)
	p.LabelValueStats, p.LabelValuePairsStats = bySize.first(mostStats), byPair.first(mostStats)
	c.stats = &tsdb.Stats{NumSeries: series, MinTime: c.view.MinTime, MaxTime: c.view.MaxTime, IndexPostingStats: p}
	return nil
}

// first returns the statistics of all blocks, with at most limit entries in each list.
// [Server.count] must have counted them.
func (c *cardinality) first(limit int) (*tsdb.Stats, error) {
	c.turn <- struct{}{}
	defer func() { <-c.turn }()
	if c.stats == nil {
		return nil, errors.New("series are not counted yet")
	}
	s, p := *c.stats, *c.stats.IndexPostingStats
	for _, list := range []*[]index.Stat{
		&p.CardinalityMetricsStats, &p.CardinalityLabelStats, &p.LabelValueStats, &p.LabelValuePairsStats,
	} {
		*list = (*list)[:min(limit, len(*list))]
	}
	s.IndexPostingStats = &p
	return &s, nil
}

type top []index.Stat

// add adds an entry. It keeps the largest, and a bounded number of others.
func (t *top) add(s index.Stat) {
	if *t = append(*t, s); len(*t) >= 4*mostStats {
		*t = slices.Clone(t.first(mostStats))
	}
}

func (t top) first(n int) []index.Stat {
	slices.SortFunc(t, func(a, b index.Stat) int { return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Name, b.Name)) })
	return t[:min(n, len(t))]
}

// admin implements the parts of a TSDB that the API needs besides its samples.
type admin struct {
	view *view.View
	card *cardinality
}

// Stats implements v1.TSDBAdminStats. The API requests only the statistics of metric names.
func (a *admin) Stats(_ string, limit int) (*tsdb.Stats, error) { return a.card.first(limit) }

func (a *admin) BlockMetas() ([]tsdb.BlockMeta, error) {
	metas := []tsdb.BlockMeta{}
	for _, d := range a.view.Dumps {
		for _, b := range d.Blocks {
			metas = append(metas, b.Meta())
		}
	}
	slices.SortFunc(metas, func(a, b tsdb.BlockMeta) int {
		return cmp.Or(cmp.Compare(a.MinTime, b.MinTime), a.ULID.Compare(b.ULID))
	})
	return metas, nil
}

func (a *admin) WALReplayStatus() (tsdb.WALReplayStatus, error) { return tsdb.WALReplayStatus{}, nil }

func (a *admin) CleanTombstones() error      { return errReadOnly }
func (a *admin) Snapshot(string, bool) error { return errReadOnly }
func (a *admin) Delete(context.Context, int64, int64, ...*labels.Matcher) error {
	return errReadOnly
}
