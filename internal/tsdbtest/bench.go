package tsdbtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"
	"github.com/prometheus/prometheus/tsdb/tombstones"
	"golang.org/x/sync/errgroup"
)

// Scale is the size of a data directory for measurements. The zero value is that of BENCH.md: 58,000
// series, 24 h of blocks, 1.5 h of head, a scrape every 15 s.
type Scale struct {
	Series   int           // default 58,000
	Blocks   time.Duration // of the blocks, which have 18 h, 6 h and 2 h; a multiple of 2 h; default 24 h
	Head     time.Duration // after the last block; default 1.5 h; negative: none
	Interval time.Duration // of scrapes; default 15 s
	End      time.Time     // of the last block; default 2026-01-02 00:00 UTC; aligned down to 2 h
}

func (s Scale) withDefaults() Scale {
	if s.Series == 0 {
		s.Series = 58_000
	}
	if s.Blocks == 0 {
		s.Blocks = 24 * time.Hour
	}
	s.Blocks = max(s.Blocks.Truncate(blockRange), blockRange)
	if s.Head == 0 {
		s.Head = 90 * time.Minute
	}
	if s.Interval == 0 {
		s.Interval = 15 * time.Second
	}
	if s.End.IsZero() {
		s.End = time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC)
	}
	s.End = s.End.Truncate(blockRange)
	return s
}

// Size has the numbers of what Bench wrote.
type Size struct {
	Series, BlockSamples, HeadSamples, HistogramSamples int
	Blocks                                              []tsdb.BlockMeta
}

// Bench writes a data directory into the empty directory dir. The bytes depend on scale only. Bench
// writes chunks directly: appending the samples to a TSDB would take half an hour.
func Bench(ctx context.Context, dir string, scale Scale) (*Size, error) {
	c := newCluster(scale.withDefaults())
	size := &Size{Series: len(c.series)}
	start := c.scale.End.Add(-c.scale.Blocks)
	names := ulid.Monotonic(rand.NewChaCha8([32]byte{1}), 0)
	for at := start; at.Before(c.scale.End); {
		length := blockRange
		left := c.scale.End.Sub(at)
		for _, long := range []time.Duration{18 * time.Hour, 6 * time.Hour} {
			// Prometheus leaves the newest few hours in blocks of 2 h.
			if left >= long+6*time.Hour {
				length = long
				break
			}
		}
		id, err := ulid.New(uint64(at.Add(length).UnixMilli()), names)
		if err != nil {
			return nil, err
		}
		meta, err := c.block(ctx, filepath.Join(dir, id.String()), at.UnixMilli(), at.Add(length).UnixMilli(), id)
		if err != nil {
			return nil, fmt.Errorf("write block %s: %w", id, err)
		}
		size.Blocks = append(size.Blocks, *meta)
		size.BlockSamples += int(meta.Stats.NumSamples)
		size.HistogramSamples += int(meta.Stats.NumHistogramSamples)
		at = at.Add(length)
	}
	if c.scale.Head > 0 {
		var err error
		if size.HeadSamples, err = c.head(ctx, filepath.Join(dir, "wal")); err != nil {
			return nil, fmt.Errorf("write the head: %w", err)
		}
	}
	return size, nil
}

// block writes one block. All processors encode chunks, which are written in the order of the series.
func (c *cluster) block(ctx context.Context, dir string, mint, maxt int64, id ulid.ULID) (_ *tsdb.BlockMeta, err error) {
	meta := &tsdb.BlockMeta{ULID: id, MinTime: mint, MaxTime: maxt, Version: 1}
	meta.Compaction.Level = map[int64]int{2: 1, 6: 2, 18: 3}[(maxt-mint)/time.Hour.Milliseconds()]
	meta.Compaction.Sources = []ulid.ULID{id}
	if err := os.MkdirAll(filepath.Join(dir, "chunks"), 0o777); err != nil {
		return nil, err
	}
	cw, err := chunks.NewWriter(filepath.Join(dir, "chunks"))
	if err != nil {
		return nil, err
	}
	iw, err := index.NewWriter(ctx, filepath.Join(dir, "index"))
	if err != nil {
		return nil, errors.Join(err, cw.Close())
	}
	for _, symbol := range c.symbols() {
		if err := iw.AddSymbol(symbol); err != nil {
			return nil, errors.Join(err, iw.Close(), cw.Close())
		}
	}
	err = c.encode(ctx, mint, maxt, func(i int, metas []chunks.Meta) error {
		if len(metas) == 0 {
			return nil
		}
		if err := cw.WriteChunks(metas...); err != nil {
			return err
		}
		for _, m := range metas {
			n := uint64(m.Chunk.NumSamples())
			meta.Stats.NumSamples += n
			if m.Chunk.Encoding() == chunkenc.EncHistogram {
				meta.Stats.NumHistogramSamples += n
			} else {
				meta.Stats.NumFloatSamples += n
			}
		}
		meta.Stats.NumChunks += uint64(len(metas))
		meta.Stats.NumSeries++
		return iw.AddSeries(storage.SeriesRef(i), c.labels(i), metas...)
	})
	if err := errors.Join(err, iw.Close(), cw.Close()); err != nil {
		return nil, err
	}
	if _, err := tombstones.WriteFile(slog.New(slog.DiscardHandler), dir, tombstones.NewMemTombstones()); err != nil {
		return nil, err
	}
	b, err := json.MarshalIndent(meta, "", "\t")
	if err != nil {
		return nil, err
	}
	return meta, os.WriteFile(filepath.Join(dir, "meta.json"), b, 0o666)
}

// encode encodes the chunks of all series within [mint, maxt) and calls write in the order of the series.
func (c *cluster) encode(ctx context.Context, mint, maxt int64, write func(i int, metas []chunks.Meta) error) error {
	const batch = 128
	type result [][]chunks.Meta
	queue := make(chan chan result, 4*runtime.GOMAXPROCS(0))
	g, ctx := errgroup.WithContext(ctx)
	workers, wctx := errgroup.WithContext(ctx)
	workers.SetLimit(runtime.GOMAXPROCS(0))
	g.Go(func() error {
		defer close(queue)
		for from := 0; from < len(c.series); from += batch {
			to, out := min(from+batch, len(c.series)), make(chan result, 1)
			select {
			case queue <- out:
			case <-ctx.Done():
				return ctx.Err()
			}
			workers.Go(func() error {
				all := make(result, to-from)
				for i := range all {
					var err error
					if all[i], err = c.chunks(from+i, mint, maxt); err != nil {
						close(out)
						return err
					}
				}
				out <- all
				return wctx.Err()
			})
		}
		return workers.Wait()
	})
	g.Go(func() error {
		i := 0
		for out := range queue {
			all, ok := <-out
			if !ok {
				return errors.New("chunks could not be encoded")
			}
			for _, metas := range all {
				if err := write(i, metas); err != nil {
					return err
				}
				i++
			}
		}
		return nil
	})
	return g.Wait()
}

// chunks returns the chunks of one series within [mint, maxt). Like a head's they have about 120 samples
// and do not cross a multiple of 2 h.
func (c *cluster) chunks(i int, mint, maxt int64) (metas []chunks.Meta, err error) {
	var app chunkenc.Appender
	var last *chunks.Meta
	c.play(i, mint, maxt, func(t int64, v float64, h *histogram.Histogram) bool {
		if last == nil || last.Chunk.NumSamples() >= 120 || t/blockRange.Milliseconds() != last.MinTime/blockRange.Milliseconds() {
			var chunk chunkenc.Chunk = chunkenc.NewXORChunk()
			if h != nil {
				chunk = chunkenc.NewHistogramChunk()
			}
			metas = append(metas, chunks.Meta{MinTime: t, Chunk: chunk})
			last = &metas[len(metas)-1]
			if app, err = chunk.Appender(); err != nil {
				return false
			}
		}
		last.MaxTime = t
		if h == nil {
			app.Append(0, t, v)
			return true
		}
		_, _, app, err = app.AppendHistogram(nil, 0, t, h, true)
		return err == nil
	})
	return metas, err
}

// symbols returns the sorted symbols of all series.
func (c *cluster) symbols() []string {
	set := map[string]struct{}{}
	for i := range c.series {
		for name, value := range c.pairs(i) {
			set[name], set[value] = struct{}{}, struct{}{}
		}
	}
	return slices.Sorted(maps.Keys(set))
}
