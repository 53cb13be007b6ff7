package changed

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/storage"
	"golang.org/x/sync/errgroup"
)

// engine is one run.
type engine struct {
	Options
	plan    *plan
	metrics int
	has     map[string]bool // names of metrics

	series, samples, changed atomic.Int64

	mu    sync.Mutex
	rows  []Row
	notes []Note
	held  int64
}

// family is a unit of work: metrics that are read together.
type family struct {
	name   string
	single bool // one metric, of this name
	bucket bool // name_bucket
	sum    bool // name_sum
}

// families groups the names of metrics.
func families(names []string) (all []family) {
	set := map[string]bool{}
	for _, n := range names {
		set[n] = true
	}
	done, part := map[string]bool{}, map[string]bool{}
	sorted := slices.Sorted(maps.Keys(set))
	for _, n := range sorted {
		base, ok := strings.CutSuffix(n, "_bucket")
		if !ok {
			base, ok = strings.CutSuffix(n, "_sum")
		}
		if ok && !done[base] && set[base+"_count"] {
			done[base] = true
			part[base+"_bucket"], part[base+"_count"], part[base+"_sum"] = true, true, true
			all = append(all, family{name: base, bucket: set[base+"_bucket"], sum: set[base+"_sum"]})
		}
	}
	for _, n := range sorted {
		if !part[n] {
			all = append(all, family{name: n, single: true})
		}
	}
	return all
}

// run reads all families and returns their rows.
func (e *engine) run(ctx context.Context) ([]Row, error) {
	names, err := e.names(ctx)
	if err != nil {
		return nil, err
	}
	e.metrics = len(names) - 1
	e.has = map[string]bool{}
	for _, n := range names {
		e.has[n] = true
	}
	work := families(names)
	workers := e.Workers
	if workers <= 0 {
		workers = min(2, runtime.GOMAXPROCS(0))
	}
	var next atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	for range workers {
		g.Go(func() (err error) {
			r, err := e.newReader()
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, r.close()) }()
			for {
				i := int(next.Add(1)) - 1
				if i >= len(work) {
					return nil
				}
				if err := e.family(ctx, r, work[i]); err != nil {
					return err
				}
			}
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return e.rows, nil
}

// names returns the names of the metrics in all reads.
func (e *engine) names(ctx context.Context) (names []string, err error) {
	for _, r := range e.plan.reads {
		q, err := r.data.Queryable.Querier(r.span.From, r.span.To)
		if err != nil {
			return nil, err
		}
		some, _, err := q.LabelValues(ctx, model.MetricNameLabel, &storage.LabelHints{})
		if err == nil {
			names = append(names, cloned(some)...)
		}
		if err := errors.Join(err, q.Close()); err != nil {
			return nil, err
		}
	}
	slices.Sort(names)
	return append(slices.Compact(names), ""), nil // also series without a name
}

// cloned copies strings that may be in a mapped file.
func cloned(all []string) []string {
	out := make([]string, len(all))
	for i, s := range all {
		out[i] = strings.Clone(s)
	}
	return out
}

// charge accounts for memory that is held until release.
func (e *engine) charge(n int64) error {
	if e.Charge != nil {
		return e.Charge(n)
	}
	return nil
}

// room reports whether bytes more may be held, and holds them.
func (e *engine) room(n int64) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.held+n > e.Memory {
		return false
	}
	e.held += n
	return true
}

func (e *engine) release(n int64) {
	e.mu.Lock()
	e.held -= n
	e.mu.Unlock()
}

func (e *engine) note(format string, args ...any) {
	e.mu.Lock()
	e.notes = append(e.notes, Note{fmt.Sprintf(format, args...)})
	e.mu.Unlock()
}

// maxRows are kept of all families together.
const maxRows = 4000

func (e *engine) add(rows []Row) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.rows = append(e.rows, rows...)
	if len(e.rows) > 2*maxRows {
		slices.SortFunc(e.rows, stronger)
		clear(e.rows[maxRows:])
		e.rows = e.rows[:maxRows]
	}
}

// count adds a series to the totals.
func (e *engine) count(f *fold) error {
	e.samples.Add(f.samples)
	n := e.series.Add(1)
	if n%1000 == 0 && e.Progress != nil {
		e.Progress(n, int64(e.Data.Series))
	}
	return nil
}
