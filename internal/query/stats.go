package query

import (
	"cmp"
	"context"
	"errors"
	"math"
	"slices"
	"sync"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/index"

	"github.com/promdump/promdump/internal/view"
)

// errReadOnly is what an API that changes something answers.
var errReadOnly = errors.New("this is a dump: it is read-only")

// cardinality answers status/tsdb. It counts all series once, when it is first
// asked; what it holds is one number for each pair of a label and a value.
type cardinality struct {
	view *view.View

	mu     sync.Mutex
	done   bool
	series uint64
	pairs  map[string]map[string]uint64 // label, value: series
}

func (c *cardinality) count(ctx context.Context) (err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.done {
		return nil
	}
	q, err := c.view.Querier(math.MinInt64, math.MaxInt64)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, q.Close()) }()
	c.series, c.pairs = 0, map[string]map[string]uint64{}
	// Func "series": labels are asked for, no chunk is looked at. Merged in order, so
	// that a series of many blocks counts once.
	hints := &storage.SelectHints{Start: math.MinInt64, End: math.MaxInt64, Func: "series"}
	set := q.Select(ctx, true, hints, &labels.Matcher{Type: labels.MatchEqual})
	for set.Next() {
		if c.series++; c.series%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		set.At().Labels().Range(func(l labels.Label) {
			values := c.pairs[l.Name]
			if values == nil {
				values = map[string]uint64{}
				c.pairs[l.Name] = values
			}
			values[l.Value]++
		})
	}
	c.done = set.Err() == nil
	return set.Err()
}

// Stats implements api.TSDBAdminStats: of all blocks, where Prometheus has its
// head alone.
func (c *cardinality) stats(ctx context.Context, name string, limit int) (*tsdb.Stats, error) {
	if err := c.count(ctx); err != nil {
		return nil, err
	}
	p := &index.PostingsStats{}
	var byMetric, byLabel, bySize, byPair top
	for label, values := range c.pairs {
		p.NumLabelPairs += len(values)
		byLabel = append(byLabel, index.Stat{Name: label, Count: uint64(len(values))})
		var size uint64
		for value, series := range values {
			if label == name {
				byMetric = append(byMetric, index.Stat{Name: value, Count: series})
			}
			byPair = append(byPair, index.Stat{Name: label + "=" + value, Count: series})
			size += uint64(len(value)) * series // as a head counts it
		}
		bySize = append(bySize, index.Stat{Name: label, Count: size})
	}
	p.CardinalityMetricsStats, p.CardinalityLabelStats = byMetric.first(limit), byLabel.first(limit)
	p.LabelValueStats, p.LabelValuePairsStats = bySize.first(limit), byPair.first(limit)
	return &tsdb.Stats{NumSeries: c.series, MinTime: c.view.MinTime, MaxTime: c.view.MaxTime, IndexPostingStats: p}, nil
}

type top []index.Stat

func (t top) first(n int) []index.Stat {
	slices.SortFunc(t, func(a, b index.Stat) int { return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Name, b.Name)) })
	return t[:min(n, len(t))]
}

// admin is what the API knows of a TSDB beside its samples.
type admin struct {
	ctx  context.Context // of the server; the interface hands none in
	view *view.View
	card *cardinality
}

func (a *admin) Stats(name string, limit int) (*tsdb.Stats, error) {
	return a.card.stats(a.ctx, name, limit)
}

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
