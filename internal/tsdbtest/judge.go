package tsdbtest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"

	"github.com/promdump/promdump/internal/wire"
)

// Verdict describes what the TSDB library does with a block.
type Verdict struct {
	// Load is the reason why a server does not load the block, or nil.
	Load error
	// Deleted reports whether the server deleted the block.
	Deleted bool
	// Read is the failure of a query of all series, or of one series by its labels, or nil.
	Read error
	// Missed is the number of series that a query by their labels does not find.
	Missed int
	// Served are all samples that could be read.
	Served Served
}

// Judge opens a copy of the block in dir like a server, and reads all samples.
func Judge(t testing.TB, dir string) (v Verdict) {
	t.Helper()
	data := t.TempDir()
	if err := CopyDir(filepath.Join(data, filepath.Base(dir)), dir); err != nil {
		t.Fatal(err)
	}
	var db *tsdb.DB
	v.Load = recovered(func() (err error) {
		opts := tsdb.DefaultOptions()
		opts.RetentionDuration = 0
		opts.EnableOverlappingCompaction = false
		db, err = tsdb.Open(data, slog.New(slog.DiscardHandler), nil, opts, nil)
		return err
	})
	if db == nil {
		return v
	}
	defer db.Close() //nolint:errcheck // a temporary copy
	db.DisableCompactions()
	if v.Load == nil && len(db.Blocks()) == 0 {
		v.Load = errors.New("the block is not loaded")
		_, err := os.Stat(filepath.Join(data, filepath.Base(dir)))
		v.Deleted = errors.Is(err, os.ErrNotExist)
	}
	if v.Load != nil {
		return v
	}
	v.Served = Served{}
	var all []labels.Labels
	v.Read = selectAll(db, math.MinInt64, math.MaxInt64, v.Served, &all, labels.MustNewMatcher(labels.MatchRegexp, "", ".*"))
	for _, l := range all {
		var ms []*labels.Matcher
		l.Range(func(l labels.Label) { ms = append(ms, labels.MustNewMatcher(labels.MatchEqual, l.Name, l.Value)) })
		if len(ms) == 0 {
			continue
		}
		var found []labels.Labels
		err := selectAll(db, math.MinInt64, math.MaxInt64, Served{}, &found, ms...)
		v.Read = cmp.Or(v.Read, err)
		if !slices.ContainsFunc(found, func(o labels.Labels) bool { return labels.Equal(l, o) }) {
			v.Missed++
		}
	}
	return v
}

// OddSamples returns the samples that q serves of a selection, like Samples, for blocks with odd data. It
// sorts labels, merges series with the same labels, and sorts samples by time. It queries the range of the
// selection, because Prometheus relies on the times in the index. If that panics, as it can with deletions
// (tombstones.Intervals.Add), it queries all times.
func OddSamples(t testing.TB, q storage.Queryable, sel wire.Selection) Served {
	t.Helper()
	lists, err := Matchers(sel)
	if err != nil {
		t.Fatal(err)
	}
	served := Served{}
	seen := map[string]bool{}
	for _, list := range lists {
		one := Served{}
		err := selectAll(q, sel.MinTime, sel.MaxTime, one, nil, list...)
		if err != nil && strings.Contains(err.Error(), "panic") {
			clear(one)
			err = selectAll(q, math.MinInt64, math.MaxInt64, one, nil, list...)
		}
		if err != nil {
			t.Fatalf("read samples: %v", err)
		}
		for name, samples := range one {
			if samples = slices.DeleteFunc(samples, func(s Sample) bool { return s.T < sel.MinTime || s.T > sel.MaxTime }); len(samples) > 0 && !seen[name] {
				seen[name], served[name] = true, samples
			}
		}
	}
	return served
}

// selectAll adds the samples of a selection to served, and the labels of its series, as stored, to all.
func selectAll(q storage.Queryable, mint, maxt int64, served Served, all *[]labels.Labels, ms ...*labels.Matcher) error {
	querier, err := q.Querier(mint, maxt)
	if err != nil {
		return err
	}
	defer querier.Close() //nolint:errcheck // opened for reading
	var first error
	err = recovered(func() error {
		set := querier.Select(context.Background(), true, nil, ms...)
		for set.Next() {
			s := set.At()
			var samples []Sample
			err := recovered(func() (err error) {
				samples, err = collect(s.Iterator(nil), math.MinInt64, math.MaxInt64)
				return err
			})
			if err != nil && first == nil {
				first = fmt.Errorf("series %.200s: %w", s.Labels(), err)
			}
			if all != nil {
				*all = append(*all, s.Labels())
			}
			if len(samples) == 0 {
				continue
			}
			var sorted []labels.Label
			s.Labels().Range(func(l labels.Label) { sorted = append(sorted, l) })
			name := labels.New(sorted...).String()
			samples = append(served[name], samples...)
			slices.SortStableFunc(samples, func(a, b Sample) int { return compareTimes(a.T, b.T) })
			served[name] = samples
		}
		return set.Err()
	})
	return cmp.Or(err, first)
}

// recovered calls a function and returns a panic as an error.
func recovered(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return f()
}

// BlockQueryable implements [storage.Queryable] for a block.
type BlockQueryable struct{ Block *tsdb.Block }

// Querier implements [storage.Queryable].
func (b BlockQueryable) Querier(mint, maxt int64) (storage.Querier, error) {
	return tsdb.NewBlockQuerier(b.Block, mint, maxt)
}

// Add adds the samples of one to all, and sorts them by time.
func Add(all, one Served) {
	for name, samples := range one {
		samples = append(all[name], samples...)
		slices.SortStableFunc(samples, func(a, b Sample) int { return compareTimes(a.T, b.T) })
		all[name] = samples
	}
}

// Within returns the samples in the time range of the selection, which need not be sorted.
func Within(s Served, sel wire.Selection) Served {
	part := Served{}
	for name, samples := range s {
		for _, one := range samples {
			if one.T >= sel.MinTime && one.T <= sel.MaxTime {
				part[name] = append(part[name], one)
			}
		}
	}
	return part
}
