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

// Dump is an opened dump. It is a [storage.Queryable] and a
// [storage.ChunkQueryable] of Prometheus, so that a PromQL engine can be put on it.
type Dump struct {
	view *view.View
	temp *fsutil.TempDir // removed at the end; nil: a cache that stays
}

// OpenOptions say how a dump is opened.
type OpenOptions struct {
	// CacheDir keeps what was unpacked for the next time, as promdump open does, and
	// removes what was not used for the longest time when it is more than CacheBytes.
	// Empty: it is unpacked into a directory of the system's for temporary files,
	// which is removed when the dump is closed.
	CacheDir   string
	CacheBytes int64

	Progress func(read, total int64) // bytes of the file
	Logger   *slog.Logger            // nil: silent
}

// Open unpacks a dump file and verifies all of it, down to its samples. Errors:
// [ErrNotDump], [ErrIncomplete], [ErrDamaged], those of the disk. The dump must be
// closed.
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

// Close ends what reads the dump. Queriers must be closed before.
func (d *Dump) Close() error {
	err := d.view.Close()
	if d.temp != nil {
		err = errors.Join(err, d.temp.Remove())
	}
	return err
}

// Info is what a dump is.
type Info struct {
	Tool     string // that wrote it
	Created  time.Time
	From     string // where its data is from, for a person
	Selected Selection
	Blocks   []BlockInfo // by their first samples
}

// BlockInfo is a block of a dump.
type BlockInfo struct {
	ULID            string
	First, Last     time.Time // of its samples
	Series, Samples uint64
}

// Info tells what the dump says of itself, and what is in it.
func (d *Dump) Info() Info {
	one := d.view.Dumps[0]
	m := one.Manifest
	info := Info{Tool: m.Tool, Created: m.Created, From: m.Source.Name, Selected: Selection{
		From: time.UnixMilli(m.Selection.MinTime).UTC(), To: time.UnixMilli(m.Selection.MaxTime).UTC(), Match: m.Selection.Matchers,
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

// Querier implements [storage.Queryable]. Times are Unix milliseconds, both included.
func (d *Dump) Querier(mint, maxt int64) (storage.Querier, error) { return d.view.Querier(mint, maxt) }

// ChunkQuerier implements [storage.ChunkQueryable]. Times are Unix milliseconds, both
// included.
func (d *Dump) ChunkQuerier(mint, maxt int64) (storage.ChunkQuerier, error) {
	return d.view.ChunkQuerier(mint, maxt)
}

var _ storage.SampleAndChunkQueryable = (*Dump)(nil)
