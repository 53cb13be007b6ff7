package promdump

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"slices"
	"time"

	"github.com/prometheus/prometheus/storage"

	"github.com/promdump/promdump/internal/fsutil"
	"github.com/promdump/promdump/internal/view"
)

// Dump is an opened dump. It implements [storage.Queryable] and [storage.ChunkQueryable] of
// Prometheus, so a PromQL engine can query it. It may be used concurrently.
type Dump struct {
	view *view.View
	temp *fsutil.TempDir // removed by Close; nil for a persistent cache
}

// OpenOptions are the options of [Open].
type OpenOptions struct {
	// CacheDir is a directory that keeps unpacked dumps for the next Open, as promdump open
	// does. If it is empty, Open unpacks the dump into a temporary directory, which Close
	// removes.
	CacheDir string

	// CacheBytes is the maximum size of CacheDir. Open removes the least recently used
	// dumps beyond it.
	CacheBytes int64

	Progress func(read, total int64) // called during Open with bytes of the file; may be nil
	Logger   *slog.Logger            // nil discards messages
}

// Open unpacks a dump file and verifies it completely, including its samples. It returns
// [ErrNotDump], [ErrIncomplete] or [ErrDamaged] for an invalid dump, and other errors if it
// cannot read the file or write the unpacked one. The caller must close the dump.
func Open(ctx context.Context, file string, o OpenOptions) (_ *Dump, err error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	in, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	d := &Dump{}
	if o.CacheDir == "" {
		if d.temp, err = fsutil.MkdirTemp("", ""); err != nil {
			return nil, err
		}
		o.CacheDir = d.temp.Path
		defer func() {
			if err != nil {
				err = errors.Join(err, d.temp.Remove())
			}
		}()
	}
	cache, err := view.OpenCache(o.CacheDir, o.CacheBytes, o.Logger)
	if err != nil {
		return nil, err
	}
	opened, err := cache.Open(ctx, view.Input{Name: file, Path: file, R: in, Once: d.temp != nil}, view.Hooks{
		Progress: o.Progress, Note: func(s string) { o.Logger.Warn(s, "file", file) },
	})
	if err != nil {
		return nil, err
	}
	if d.view, err = view.New(ctx, "", opened); err != nil {
		return nil, errors.Join(err, opened.Close())
	}
	return d, nil
}

// Close closes the dump. The caller must close all queriers before.
func (d *Dump) Close() error {
	err := d.view.Close()
	if d.temp != nil {
		err = errors.Join(err, d.temp.Remove())
	}
	return err
}

// Info describes a dump.
type Info struct {
	Tool     string // program that wrote the dump
	Created  time.Time
	From     string      // source of the data, for display
	Selected Selection   // time range and selectors of the dump
	Blocks   []BlockInfo // sorted by the time of their first sample
}

// BlockInfo describes a block of a dump.
type BlockInfo struct {
	ULID            string
	First, Last     time.Time // times of the first and the last sample
	Series, Samples uint64    // according to the block's meta.json
}

// Info returns a description of the dump from its manifest and its blocks.
func (d *Dump) Info() Info {
	one := d.view.Dumps[0]
	m := one.Manifest
	info := Info{Tool: m.Tool, Created: m.Created, From: m.Source.Name, Selected: Selection{
		From:  time.UnixMilli(m.Selection.MinTime).UTC(),
		To:    time.UnixMilli(m.Selection.MaxTime).UTC(),
		Match: m.Selection.Matchers,
	}}
	for _, b := range one.Blocks {
		meta := b.Meta()
		info.Blocks = append(info.Blocks, BlockInfo{
			ULID: meta.ULID.String(), First: time.UnixMilli(b.FirstMs).UTC(), Last: time.UnixMilli(b.LastMs).UTC(),
			Series: meta.Stats.NumSeries, Samples: meta.Stats.NumSamples,
		})
	}
	slices.SortFunc(info.Blocks, func(a, b BlockInfo) int { return a.First.Compare(b.First) })
	return info
}

// Querier implements [storage.Queryable]. The times are Unix milliseconds, inclusive.
func (d *Dump) Querier(mint, maxt int64) (storage.Querier, error) { return d.view.Querier(mint, maxt) }

// ChunkQuerier implements [storage.ChunkQueryable]. The times are Unix milliseconds, inclusive.
func (d *Dump) ChunkQuerier(mint, maxt int64) (storage.ChunkQuerier, error) {
	return d.view.ChunkQuerier(mint, maxt)
}

var _ storage.SampleAndChunkQueryable = (*Dump)(nil)
