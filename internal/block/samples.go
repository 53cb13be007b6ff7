package block

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// Sample identifies a sample of a block.
type Sample struct {
	Labels map[string]string
	Time   int64 // Unix milliseconds
}

// Samples returns at most n samples of the block in dir, each of another series, that a PromQL
// query returns. It skips deleted samples, stale markers, and series with label names that
// older servers reject.
func Samples(ctx context.Context, dir string, n int) (samples []Sample, err error) {
	b, err := tsdb.OpenBlock(slog.New(slog.DiscardHandler), dir, nil, nil)
	if err != nil {
		return nil, fmt.Errorf("open block %s: %w", dir, err)
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	q, err := tsdb.NewBlockQuerier(b, math.MinInt64, math.MaxInt64)
	if err != nil {
		return nil, fmt.Errorf("read block %s: %w", dir, err)
	}
	defer func() { err = errors.Join(err, q.Close()) }()
	named := labels.MustNewMatcher(labels.MatchNotEqual, model.MetricNameLabel, "")
	set := q.Select(ctx, false, &storage.SelectHints{Start: math.MinInt64, End: math.MaxInt64}, named)
	for len(samples) < n && set.Next() {
		ls := set.At().Labels().Map()
		for name := range ls {
			if !model.LegacyValidation.IsValidLabelName(name) {
				ls = nil
				break
			}
		}
		if ls == nil {
			continue
		}
		it := set.At().Iterator(nil)
		for kind := it.Next(); kind != chunkenc.ValNone; kind = it.Next() {
			if kind == chunkenc.ValFloat {
				if _, v := it.At(); value.IsStaleNaN(v) {
					continue
				}
			} else if _, h := it.AtFloatHistogram(nil); value.IsStaleNaN(h.Sum) {
				continue
			}
			samples = append(samples, Sample{Labels: ls, Time: it.AtT()})
			break
		}
	}
	if err := set.Err(); err != nil {
		return samples, fmt.Errorf("read block %s: %w", dir, err)
	}
	return samples, nil
}
