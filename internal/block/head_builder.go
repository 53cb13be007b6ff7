package block

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunks"

	"github.com/promdump/promdump/internal/wire"
)

// HeadSpec says what is to be built of a head's records.
type HeadSpec struct {
	Parent string // staging directory, in which the blocks and spool files are made; must exist

	// MinTime and MaxTime bound the samples that are kept, both included, in Unix
	// milliseconds.
	MinTime, MaxTime int64

	// BlockRange is the length of the windows that the blocks are aligned to, in
	// milliseconds. 0 means two hours, as Prometheus has it.
	BlockRange int64
}

// HeadBuilder turns the m-mapped chunks of a head and the records of its
// write-ahead logs into blocks, one for each aligned window of time that has
// samples. What the blocks serve is what a Prometheus serves after it has replayed
// the same files, with exceptions in favour of the data: start timestamps are
// always kept, a series keeps its samples when its labels come again under a new
// ref, and a sample in the log is dropped only if a chunk covers its time (a
// Prometheus drops all samples before the end of the series' newest chunk). As
// after a restart of Prometheus, deleted out-of-order samples may come back: their
// m-mapped chunks stay until the file with them is removed.
//
// It is no tsdb.Head: it has one open chunk for each series in memory and nothing
// else of the samples. Finished chunks, and samples that are out of order, go to
// spool files in the staging directory.
//
// Where an in-order and an out-of-order sample have the same time, the in-order
// one is kept; of several out-of-order ones, the first. (A Prometheus promises
// none of both.)
//
// The series are shared out among shards, each with a goroutine of its own, for
// most of the work is waiting for memory. How many there are does not show in the
// blocks. The methods are for one goroutine; an error of a record may come from a
// later call. After an error only Discard is of use.
type HeadBuilder struct {
	spec   HeadSpec
	shards []*headShard
	queues []chan *batch
	free   chan *batch
	mapped mappedChunks
	wg     sync.WaitGroup
	ended  bool // the queues are closed

	mu  sync.Mutex
	err error // the first one; it is final
}

// HeadIgnored counts what was left out of a head. A Prometheus that starts on the same
// files does not serve these samples either.
type HeadIgnored struct {
	UnknownSeries uint64 // samples in records whose series no series record names, or that was deleted
	UnknownChunks uint64 // samples in m-mapped chunks whose series no series record names
	// NotInOrder counts samples in the WAL that are not later than the series' newest.
	// Out-of-order samples that a server accepts are in the WBL.
	NotInOrder uint64
	BadChunks  uint64 // m-mapped chunks that must be decoded and cannot be
	BadRecords uint64 // records that do not decode
	BadRecord  error  // of the first bad record; nil: none
}

// batch is a copy of one message's records, which all shards read.
type batch struct {
	log     wire.Log
	bytes   []byte
	ends    []int
	readers sync.WaitGroup
}

const (
	maxShards = 4
	batches   = 3 // in flight
)

// NewHeadBuilder makes a builder, and its spool files in spec.Parent. Discard must
// be called, whatever comes of it.
func NewHeadBuilder(spec HeadSpec) (*HeadBuilder, error) {
	if spec.BlockRange == 0 {
		spec.BlockRange = tsdb.DefaultBlockDuration
	}
	if spec.BlockRange < 0 {
		return nil, fmt.Errorf("build head: block range of %d ms", spec.BlockRange)
	}
	if spec.MinTime > spec.MaxTime {
		return nil, fmt.Errorf("build head: its first time %d is after its last %d", spec.MinTime, spec.MaxTime)
	}
	h := &HeadBuilder{spec: spec, free: make(chan *batch, batches)}
	for range batches {
		h.free <- &batch{}
	}
	n := min(runtime.GOMAXPROCS(0), maxShards)
	for i := range n {
		s, err := newHeadShard(spec, i, n)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("build head: %w", err), h.Discard())
		}
		h.shards = append(h.shards, s)
	}
	for _, s := range h.shards {
		queue := make(chan *batch, batches)
		h.queues = append(h.queues, queue)
		h.wg.Go(func() { h.work(s, queue) })
	}
	return h, nil
}

// work takes batches until there are no more, also after an error: who waits for
// a batch must get it back.
func (h *HeadBuilder) work(s *headShard, queue <-chan *batch) {
	for b := range queue {
		start := 0
		for _, end := range b.ends {
			if h.firstError() != nil {
				break
			}
			if err := s.record(b.log, b.bytes[start:end]); err != nil {
				h.fail(err)
			}
			start = end
		}
		b.readers.Done()
	}
}

func (h *HeadBuilder) fail(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.err == nil {
		h.err = err
	}
}

func (h *HeadBuilder) firstError() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.err
}

// Ignored tells what was left out of the records, after Finish.
func (h *HeadBuilder) Ignored() (sum HeadIgnored) {
	h.stop()
	for _, s := range h.shards {
		sum.UnknownSeries += s.ignored.UnknownSeries
		sum.NotInOrder += s.ignored.NotInOrder
		sum.BadChunks += s.ignored.BadChunks
	}
	sum.UnknownChunks = h.mapped.unclaimed()
	// All shards decode all records.
	sum.BadRecords, sum.BadRecord = h.shards[0].ignored.BadRecords, h.shards[0].ignored.BadRecord
	return sum
}

// Records takes records: all of the WAL first, in their order, then those of the
// WBL. Nothing of m is kept. Kinds that have no samples and delete none are passed
// over; records that do not decode are counted and left out.
func (h *HeadBuilder) Records(m *wire.Records) error {
	if err := h.firstError(); err != nil {
		return err
	}
	if err := h.mapped.seal(); err != nil {
		return fmt.Errorf("build head: %w", err)
	}
	b := <-h.free
	b.log, b.bytes, b.ends = m.Log, b.bytes[:0], b.ends[:0]
	for _, rec := range m.Records {
		b.bytes = append(b.bytes, rec...)
		b.ends = append(b.ends, len(b.bytes))
	}
	b.readers.Add(len(h.queues))
	for _, q := range h.queues {
		q <- b
	}
	h.wg.Go(func() {
		b.readers.Wait()
		h.free <- b
	})
	return nil
}

// stop waits until all records are taken.
func (h *HeadBuilder) stop() {
	if !h.ended {
		h.ended = true
		for _, q := range h.queues {
			close(q)
		}
		h.wg.Wait()
	}
}

// Finish writes the blocks and removes the spool files. The blocks come in the
// order of their time; without samples there are none. After an error no block
// is left behind.
func (h *HeadBuilder) Finish(ctx context.Context) (_ []*Built, err error) {
	h.stop()
	if err := h.firstError(); err != nil {
		return nil, err
	}
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("build head: %v", p)
		}
		err = errors.Join(err, h.close())
		if err == nil {
			h.fail(errors.New("build head: already finished"))
		} else {
			h.fail(err)
		}
	}()

	orders := make([][]*headSeries, len(h.shards))
	if err := h.each(func(i int, s *headShard) (err error) {
		orders[i], err = s.closeSeries(ctx)
		return err
	}); err != nil {
		return nil, fmt.Errorf("build head: %w", err)
	}
	var starts []int64
	for _, s := range h.shards {
		for start := range s.windows {
			starts = append(starts, start)
		}
	}
	slices.Sort(starts)
	var built []*Built
	for _, start := range slices.Compact(starts) {
		b, err := h.build(ctx, orders, start)
		if err != nil {
			errs := []error{fmt.Errorf("build head: %w", err)}
			for _, b := range built {
				errs = append(errs, os.RemoveAll(b.Dir))
			}
			return nil, errors.Join(errs...)
		}
		if b != nil {
			built = append(built, b)
		}
	}
	return built, nil
}

// each runs f for all shards at once.
func (h *HeadBuilder) each(f func(int, *headShard) error) error {
	errs := make([]error, len(h.shards))
	var wg sync.WaitGroup
	for i, s := range h.shards {
		wg.Go(func() {
			defer func() {
				if p := recover(); p != nil {
					errs[i] = fmt.Errorf("%v", p)
				}
			}()
			errs[i] = f(i, s)
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// build writes the block of the window that begins at start, or none.
func (h *HeadBuilder) build(ctx context.Context, orders [][]*headSeries, start int64) (_ *Built, err error) {
	last := windowLast(start, h.spec.BlockRange)
	w, err := newWriter(Spec{
		Parent:  h.spec.Parent,
		MinTime: max(start, h.spec.MinTime),
		MaxTime: min(last, h.spec.MaxTime),
		Origin:  "head",
	})
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.discard())
		}
	}()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var rows []*row
	for i, s := range h.shards {
		rows = append(rows, s.row(ctx, orders[i], start, last))
	}
	defer func() {
		cancel()
		for _, r := range rows {
			r.drain()
		}
	}()
	for {
		var next *row
		for _, r := range rows {
			if s := r.peek(); s != nil && (next == nil || byLabels(s.series, next.peek().series) < 0) {
				next = r
			}
		}
		if next == nil {
			break
		}
		s := next.take()
		if s.err != nil {
			return nil, fmt.Errorf("series %s: %w", brief(s.series.lset), s.err)
		}
		if err := w.addSeries(s.series.lset, s.metas); err != nil {
			return nil, err
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return w.finish(ctx)
}

func byLabels(a, b *headSeries) int { return labels.Compare(a.lset, b.lset) }

// row is a shard's series of one window, in the order of their labels, made ahead
// of who writes them.
type row struct {
	ready chan []made
	now   []made
}

// made are the chunks of a series in one window.
type made struct {
	series *headSeries
	metas  []chunks.Meta
	err    error
}

// rowStep is how many series are handed over at once.
const rowStep = 256

func (h *headShard) row(ctx context.Context, order []*headSeries, start, last int64) *row {
	r := &row{ready: make(chan []made, 2)}
	go func() {
		defer close(r.ready)
		m := merger{spool: h.spool, mapped: h.mapped, blockRange: h.spec.BlockRange}
		for part := range slices.Chunk(order, rowStep) {
			step := make([]made, 0, len(part))
			for _, s := range part {
				one := m.make(s, start, last)
				if one.err != nil || len(one.metas) > 0 {
					step = append(step, one)
				}
			}
			select {
			case r.ready <- step:
			case <-ctx.Done():
				return
			}
		}
	}()
	return r
}

// make gives a series' chunks, for keeps.
func (m *merger) make(s *headSeries, start, last int64) (one made) {
	one.series = s
	defer func() {
		if p := recover(); p != nil {
			one.err = fmt.Errorf("%v", p)
		}
	}()
	metas, err := m.window(s, start, last)
	if err != nil || len(metas) == 0 {
		one.err = err
		return one
	}
	size := 0
	for _, meta := range metas {
		size += len(meta.Chunk.Bytes())
	}
	all := make([]byte, 0, size)
	raw := make([]rawChunk, len(metas))
	one.metas = slices.Clone(metas)
	for i, meta := range metas {
		from := len(all)
		all = append(all, meta.Chunk.Bytes()...)
		raw[i] = rawChunk{enc: meta.Chunk.Encoding(), data: all[from:]}
		one.metas[i].Chunk = &raw[i]
	}
	return one
}

// peek is the next series, nil after the last.
func (r *row) peek() *made {
	for len(r.now) == 0 {
		step, more := <-r.ready
		if !more {
			return nil
		}
		r.now = step
	}
	return &r.now[0]
}

func (r *row) take() made {
	s := r.now[0]
	r.now = r.now[1:]
	return s
}

// drain waits for the row's goroutine, which must have been told to stop.
func (r *row) drain() {
	for range r.ready {
	}
}

// Discard ends the goroutines and removes the spool files. It may be called at any
// time, and after Finish, whose blocks it leaves.
func (h *HeadBuilder) Discard() error {
	h.fail(errors.New("build head: discarded"))
	h.stop()
	return h.close()
}

func (h *HeadBuilder) close() error {
	var errs []error
	for _, s := range h.shards {
		errs = append(errs, s.spool.close())
	}
	if h.mapped.spool != nil {
		errs = append(errs, h.mapped.spool.close())
	}
	return errors.Join(errs...)
}
