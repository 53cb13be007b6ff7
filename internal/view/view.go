package view

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
)

// View is several dumps as one storage. It merges the samples of a series that several
// blocks have, of one dump or of two, as Prometheus merges overlapping blocks.
type View struct {
	Dumps []*Dump
	Label string // name of the label that has the dump's name as its value; empty: none

	// Held is called with the bytes that a querier holds before it returns its first
	// series, which it does if Label is set. An error ends the querier. If nil, the
	// bytes are not counted.
	Held func(ctx context.Context, bytes int64) error

	MinTime int64 // time of the first sample, in Unix milliseconds
	MaxTime int64 // time of the last sample; less than MinTime if there are no samples

	restricted bool // to MinTime, MaxTime and the series of lists
	lists      [][]*labels.Matcher
}

// New returns a view of opened dumps. [View.Close] closes them; if New fails, the caller
// does. If label is not empty, each series gets this label with the name of its dump as
// the value, which keeps the replicas of an HA pair apart.
func New(ctx context.Context, label string, dumps ...*Dump) (*View, error) {
	v := &View{Dumps: dumps, Label: label, MinTime: math.MaxInt64, MaxTime: math.MinInt64}
	names := map[string]string{}
	for _, d := range dumps {
		v.MinTime, v.MaxTime = min(v.MinTime, d.MinTime), max(v.MaxTime, d.MaxTime)
		if label == "" {
			continue
		}
		if other, ok := names[d.Name]; ok {
			return nil, &Error{
				Err:  fmt.Errorf("%s and %s have the same name: both would get the label %s=%q", other, d.File, label, d.Name),
				Code: 2, Tip: "rename one of the files",
			}
		}
		names[d.Name] = d.File
		for _, b := range d.Blocks {
			has, err := b.LabelNames(ctx)
			if err != nil {
				return nil, fmt.Errorf("read labels of block %s of %s: %w", b.Meta().ULID, d.File, err)
			}
			if slices.Contains(has, label) {
				return nil, &Error{
					Err:  fmt.Errorf("series of %s already have a label %q", d.File, label),
					Code: 2, Tip: "choose another label with --label-from-name=NAME",
				}
			}
		}
	}
	return v, nil
}

// Close closes the dumps.
func (v *View) Close() error {
	var err error
	for _, d := range v.Dumps {
		err = errors.Join(err, d.Close())
	}
	return err
}

// Abandon releases the dumps in the cache without waiting for queries that still read
// them, which stay possible: the blocks stay mapped until the process exits. It is for a
// process that is about to exit.
func (v *View) Abandon() error {
	var err error
	for _, d := range v.Dumps {
		err = errors.Join(err, d.entry.Close())
	}
	return err
}

// Empty reports whether the view has no samples.
func (v *View) Empty() bool { return v.MinTime > v.MaxTime }

// Querier implements storage.Queryable.
func (v *View) Querier(mint, maxt int64) (storage.Querier, error) {
	if v.restricted {
		mint, maxt = max(mint, v.MinTime), min(maxt, v.MaxTime)
		if mint > maxt {
			return storage.NoopQuerier(), nil
		}
	}
	all, err := queriers(v, mint, maxt, func(d *Dump, b *tsdb.Block) (storage.Querier, error) {
		q, err := tsdb.NewBlockQuerier(b, mint, maxt)
		if err == nil && v.Label != "" {
			q = &labelQuerier{labelled{q, v.Label, d.Name, v.Held}, q}
		}
		return q, err
	})
	if err != nil {
		return nil, err
	}
	q := storage.NewMergeQuerier(all, nil, storage.ChainedSeriesMerge)
	if v.restricted {
		q = &restrictQuerier{q, v.MinTime, v.MaxTime, v.lists}
	}
	return q, nil
}

// ChunkQuerier implements storage.ChunkQueryable, for remote read.
func (v *View) ChunkQuerier(mint, maxt int64) (storage.ChunkQuerier, error) {
	all, err := queriers(v, mint, maxt, func(d *Dump, b *tsdb.Block) (storage.ChunkQuerier, error) {
		q, err := tsdb.NewBlockChunkQuerier(b, mint, maxt)
		if err == nil && v.Label != "" {
			q = &labelChunkQuerier{labelled{q, v.Label, d.Name, v.Held}, q}
		}
		return q, err
	})
	if err != nil {
		return nil, err
	}
	return storage.NewMergeChunkQuerier(all, nil, storage.NewCompactingChunkSeriesMerger(storage.ChainedSeriesMerge)), nil
}

// queriers opens a querier for each block that overlaps the range.
func queriers[Q io.Closer](v *View, mint, maxt int64, open func(*Dump, *tsdb.Block) (Q, error)) ([]Q, error) {
	var all []Q
	for _, d := range v.Dumps {
		for _, b := range d.Blocks {
			if !b.OverlapsClosedInterval(mint, maxt) {
				continue
			}
			q, err := open(d, b.Block)
			if err != nil {
				err = fmt.Errorf("open block %s of %s: %w", b.Meta().ULID, d.File, err)
				for _, q := range all {
					err = errors.Join(err, q.Close())
				}
				return nil, err
			}
			all = append(all, q)
		}
	}
	return all, nil
}
