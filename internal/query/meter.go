package query

import (
	"cmp"
	"context"
	"errors"
	"sync"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/promdump/promdump/internal/view"
)

// meter wraps a view. Its queriers charge what they return to the account of the
// request (see budget), and end with its context. Without an account they are the
// view's own.
//
// The charges follow from what callers do with a series: the engine and the API keep
// all series that they select, with their labels and the places of their chunks; a
// range query adds a point for each series and step.
type meter struct {
	view *view.View

	mu     sync.Mutex
	values map[string]int64 // number of values by label, summed over the blocks
}

// held charges the memory that the view itself holds.
func held(ctx context.Context, bytes int64) error { return accountOf(ctx).charge(bytes) }

// Estimates of bytes, generous.
const (
	seriesBytes   = 400 // of a series without labels, chunks and samples: in the storage, the engine and its result
	chunkBytes    = 48  // of a chunk that may be read
	pointBytes    = 24  // of a float in a result, with the room that slices grow into
	postingsBytes = 120 // of a label's value that a regular expression is tried on
	valueBytes    = 40  // of a label's value in an answer, its text being mapped
	batchBytes    = 1 << 16
)

// Querier implements storage.Queryable.
func (m *meter) Querier(mint, maxt int64) (storage.Querier, error) {
	q, err := m.view.Querier(mint, maxt)
	if err != nil {
		return nil, err
	}
	return &meteredQuerier{meteredLabels{m, q}, q, mint, maxt}, nil
}

// ChunkQuerier implements storage.ChunkQueryable.
func (m *meter) ChunkQuerier(mint, maxt int64) (storage.ChunkQuerier, error) {
	q, err := m.view.ChunkQuerier(mint, maxt)
	if err != nil {
		return nil, err
	}
	return &meteredChunkQuerier{meteredLabels{m, q}, q}, nil
}

// cardinality returns the number of a label's values, summed over the blocks: the cost
// of iterating over them. It is counted once for each label.
func (m *meter) cardinality(ctx context.Context, name string) (n int64, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if n, ok := m.values[name]; ok {
		return n, nil
	}
	for _, d := range m.view.Dumps {
		for _, b := range d.Blocks {
			k, err := valuesIn(ctx, b.Block, name)
			if err != nil {
				return 0, err
			}
			n += k
		}
	}
	if m.values == nil {
		m.values = map[string]int64{}
	}
	if len(m.values) < 10_000 { // requests may name any number of labels that no series has
		m.values[name] = n
	}
	return n, nil
}

func valuesIn(ctx context.Context, b *tsdb.Block, name string) (_ int64, err error) {
	ir, err := b.Index()
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, ir.Close()) }()
	values, err := ir.LabelValues(ctx, name, nil)
	return int64(len(values)), err
}

// chargeMatchers charges for the memory of a selection before its first series: a list
// for each label value that a matcher is tried on.
func (m *meter) chargeMatchers(ctx context.Context, matchers []*labels.Matcher) error {
	a := accountOf(ctx)
	if a == nil {
		return nil
	}
	for _, matcher := range matchers {
		if matcher.Type == labels.MatchEqual && matcher.Value != "" || matcher.Name == "" {
			continue
		}
		n, err := m.cardinality(ctx, matcher.Name)
		if err == nil {
			err = a.charge(n * postingsBytes)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// density returns the average number of chunks and samples of a series in a range.
func (m *meter) density(mint, maxt int64) (chunks, samples float64) {
	for _, d := range m.view.Dumps {
		for _, b := range d.Blocks {
			s := b.Meta().Stats
			if s.NumSeries == 0 || b.LastMs < mint || b.FirstMs > maxt {
				continue
			}
			part := 1.0
			if all := float64(b.LastMs) - float64(b.FirstMs); all > 0 {
				part = (float64(min(b.LastMs, maxt)) - float64(max(b.FirstMs, mint))) / all
			}
			chunks += 1 + part*float64(s.NumChunks)/float64(s.NumSeries)
			samples += part * float64(s.NumSamples) / float64(s.NumSeries)
		}
	}
	return chunks, samples
}

// perSeries returns the memory of a selected series without its labels.
func (m *meter) perSeries(a *account, mint, maxt int64, hints *storage.SelectHints) int64 {
	if hints != nil {
		mint, maxt = hints.Start, hints.End
	}
	chunks, samples := m.density(mint, maxt)
	n := seriesBytes + chunks*chunkBytes
	if hints == nil {
		return int64(n)
	}
	if hints.Step > 0 {
		steps := (float64(maxt)-float64(mint)-float64(hints.Range))/float64(hints.Step) + 1
		n += min(max(steps, 1), maxPoints) * pointBytes
	}
	if a.matrix && hints.Range > 0 {
		n += samples * pointBytes
	}
	return int64(min(n, 1<<40))
}

// maxPoints is the number of points for which the engine allocates memory at once, even
// if the series has fewer. Its own limit of samples counts further points.
const maxPoints = 5000

type meteredLabels struct {
	meter *meter
	storage.LabelQuerier
}

// LabelValues implements storage.LabelQuerier.
func (l meteredLabels) LabelValues(
	ctx context.Context, name string, hints *storage.LabelHints, matchers ...*labels.Matcher,
) ([]string, annotations.Annotations, error) {
	if a := accountOf(ctx); a != nil {
		n, err := l.meter.cardinality(ctx, name)
		each := int64(valueBytes)
		if len(matchers) > 0 {
			each = postingsBytes
		}
		if err == nil {
			err = cmp.Or(a.charge(n*each), l.meter.chargeMatchers(ctx, matchers))
		}
		if err != nil {
			return nil, nil, err
		}
	}
	return l.LabelQuerier.LabelValues(ctx, name, hints, matchers...)
}

// LabelNames implements storage.LabelQuerier.
func (l meteredLabels) LabelNames(
	ctx context.Context, hints *storage.LabelHints, matchers ...*labels.Matcher,
) ([]string, annotations.Annotations, error) {
	if err := l.meter.chargeMatchers(ctx, matchers); err != nil {
		return nil, nil, err
	}
	return l.LabelQuerier.LabelNames(ctx, hints, matchers...)
}

type meteredQuerier struct {
	meteredLabels
	q          storage.Querier
	mint, maxt int64
}

// Select implements storage.Querier.
func (q *meteredQuerier) Select(
	ctx context.Context, sorted bool, hints *storage.SelectHints, matchers ...*labels.Matcher,
) storage.SeriesSet {
	a := accountOf(ctx)
	if a == nil {
		return q.q.Select(ctx, sorted, hints, matchers...)
	}
	if err := q.meter.chargeMatchers(ctx, matchers); err != nil {
		return storage.ErrSeriesSet(err)
	}
	return &meteredSet{
		SeriesSet: q.q.Select(ctx, sorted, hints, matchers...), ctx: ctx, account: a,
		each: q.meter.perSeries(a, q.mint, q.maxt, hints),
	}
}

// meteredSet charges for each series, a batch at a time.
type meteredSet struct {
	storage.SeriesSet
	ctx     context.Context
	account *account
	each    int64
	due     int64
	err     error
}

func (s *meteredSet) Next() bool {
	if s.err != nil {
		return false
	}
	if s.err = s.ctx.Err(); s.err != nil {
		return false
	}
	more := s.SeriesSet.Next()
	if more {
		size := int64(s.SeriesSet.At().Labels().ByteSize())
		s.due += s.each + size
		if s.account.growth > 0 {
			s.due += int64(min(s.account.growth*float64(size+s.account.text), 1<<50))
		}
	}
	if !more || s.due >= batchBytes {
		s.err = s.account.charge(s.due)
		s.due = 0
	}
	return more && s.err == nil
}

func (s *meteredSet) At() storage.Series {
	if s.account.samples {
		return &meteredSeries{s.SeriesSet.At(), s.account}
	}
	return s.SeriesSet.At()
}

func (s *meteredSet) Err() error { return cmp.Or(s.err, s.SeriesSet.Err()) }

// meteredSeries is for a remote read of samples, which holds all of them, and two more
// copies to send them.
type meteredSeries struct {
	storage.Series
	account *account
}

func (s *meteredSeries) Iterator(it chunkenc.Iterator) chunkenc.Iterator {
	if m, ok := it.(*meteredIterator); ok {
		it = m.Iterator
	}
	return &meteredIterator{Iterator: s.Series.Iterator(it), account: s.account}
}

type meteredIterator struct {
	chunkenc.Iterator
	account *account
	due     int64
	err     error
}

// Bytes of a sample of remote read: in memory, encoded, and compressed.
const (
	sampleBytes    = 72
	histogramBytes = 4096
)

func (i *meteredIterator) Next() chunkenc.ValueType {
	if i.err != nil {
		return chunkenc.ValNone
	}
	kind := i.Iterator.Next()
	switch kind {
	case chunkenc.ValNone:
	case chunkenc.ValFloat:
		i.due += sampleBytes
	default:
		i.due += histogramBytes
	}
	if i.due >= batchBytes || kind == chunkenc.ValNone {
		i.err = i.account.charge(i.due)
		i.due = 0
	}
	if i.err != nil {
		return chunkenc.ValNone
	}
	return kind
}

func (i *meteredIterator) Err() error { return cmp.Or(i.err, i.Iterator.Err()) }

type meteredChunkQuerier struct {
	meteredLabels
	q storage.ChunkQuerier
}

// Select implements storage.ChunkQuerier. Its series are sent one by one, and not
// kept.
func (q *meteredChunkQuerier) Select(
	ctx context.Context, sorted bool, hints *storage.SelectHints, matchers ...*labels.Matcher,
) storage.ChunkSeriesSet {
	if err := q.meter.chargeMatchers(ctx, matchers); err != nil {
		return storage.ErrChunkSeriesSet(err)
	}
	return &cancellableSet{q.q.Select(ctx, sorted, hints, matchers...), ctx}
}

type cancellableSet struct {
	storage.ChunkSeriesSet
	ctx context.Context
}

func (s *cancellableSet) Next() bool { return s.ctx.Err() == nil && s.ChunkSeriesSet.Next() }

func (s *cancellableSet) Err() error { return cmp.Or(s.ctx.Err(), s.ChunkSeriesSet.Err()) }
