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

// View is several dumps as one storage. Where their blocks hold the same series,
// in one dump or in two, its samples are merged as a Prometheus merges blocks that
// overlap.
type View struct {
	Dumps []*Dump
	Label string // that tells by its value which dump a series is of; empty: none

	// Held is called with the bytes that a querier holds before it returns its first
	// series, which it does if Label is set. An error ends the querier. If nil, the
	// bytes are not counted.
	Held func(ctx context.Context, bytes int64) error

	MinTime int64 // of the first and the last sample of all, Unix milliseconds
	MaxTime int64 // without samples it is less than MinTime

	restricted bool // to MinTime, MaxTime and the series of lists
	lists      [][]*labels.Matcher
}

// New makes a view of opened dumps, which it closes. With a label each series
// gets it, its value being the name of its dump, so that two replicas of a pair
// stay apart.
func New(ctx context.Context, label string, dumps ...*Dump) (*View, error) {
	v := &View{Dumps: dumps, Label: label, MinTime: math.MaxInt64, MaxTime: math.MinInt64}
	names := map[string]string{}
	for _, d := range dumps {
		v.MinTime, v.MaxTime = min(v.MinTime, d.MinTime), max(v.MaxTime, d.MaxTime)
		if label == "" {
			continue
		}
		if other, ok := names[d.Name]; ok {
			return nil, &Error{Err: fmt.Errorf("%s and %s have the same name, so that %s=%q would not tell them apart", other, d.File, label, d.Name), Code: 2, Tip: "rename one of the files"}
		}
		names[d.Name] = d.File
		for _, b := range d.Blocks {
			has, err := b.LabelNames(ctx)
			if err != nil {
				return nil, fmt.Errorf("read labels of block %s of %s: %w", b.Meta().ULID, d.File, err)
			}
			if slices.Contains(has, label) {
				return nil, &Error{
					Err:  fmt.Errorf("series of %s have a label %q already", d.File, label),
					Code: 2, Tip: "--label-from-name=NAME names another label",
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

// Abandon lets the cache have the dumps back though something may still read them,
// when the process ends. What is mapped stays mapped until then.
func (v *View) Abandon() error {
	var err error
	for _, d := range v.Dumps {
		err = errors.Join(err, d.entry.Close())
	}
	return err
}

// Empty reports whether there is no sample in it.
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

// queriers opens one for each block with something in the range.
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
