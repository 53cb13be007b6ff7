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

// HeadSpec describes the blocks to build of a head.
type HeadSpec struct {
	Parent string // existing staging directory for the blocks and spool files

	// MinTime and MaxTime are the range of the samples to keep, inclusive, in Unix
	// milliseconds.
	MinTime, MaxTime int64

	// BlockRange is the length of the windows to which the blocks are aligned, in
	// milliseconds. 0 means two hours, Prometheus' default.
	BlockRange int64
}

// HeadBuilder turns the m-mapped chunks of a head and the records of its logs into blocks, one
// for each aligned window of time with samples. The blocks have the samples that a Prometheus
// serves after it has replayed the same files, with these exceptions:
//
//   - They keep all start timestamps.
//   - A series keeps its samples when its labels appear again with a new ref.
//   - A sample of the log is dropped only if a chunk covers its time. Prometheus drops all
//     samples before the end of the series' newest chunk.
//
// As after a restart of Prometheus, deleted out-of-order samples may appear again, because their
// m-mapped chunks stay until the server removes the file.
//
// A HeadBuilder is not a tsdb.Head: of the samples it has only one open chunk of each series in
// memory. It writes finished chunks and out-of-order samples to spool files in the staging
// directory.
//
// Of an in-order and an out-of-order sample with the same time it keeps the in-order one, and of
// several out-of-order ones the first. (Prometheus guarantees neither.)
//
// Each of several shards has a part of the series and a goroutine, because most of the time is
// spent waiting for memory. The blocks do not depend on the number of shards. The methods must
// not be called concurrently. A later call may return the error of an earlier record. After an
// error only Discard is useful.
type HeadBuilder struct {
	spec   HeadSpec
	shards []*headShard
	queues []chan *batch
	free   chan *batch
	mapped mappedChunks
	wg     sync.WaitGroup
	ended  bool // the queues are closed

	mu  sync.Mutex
	err error // the first error
}

// HeadIgnored counts the data of a head that the blocks lack. A Prometheus that starts on the
// same files does not serve these samples either.
type HeadIgnored struct {
	UnknownSeries uint64 // samples of records without a series record, or of a deleted series
	UnknownChunks uint64 // samples of m-mapped chunks without a series record

	// NotInOrder counts samples in the WAL that are not later than the series' newest.
	// Out-of-order samples that a server accepts are in the WBL.
	NotInOrder uint64

	BadChunks  uint64 // m-mapped chunks that must be decoded and are damaged
	BadRecords uint64 // records that cannot be decoded
	BadRecord  error  // of the first bad record; nil if there is none
}

// batch is a copy of the records of one message, which all shards read.
type batch struct {
	log     wire.Log
	bytes   []byte
	ends    []int // end of each record in bytes
	readers sync.WaitGroup
}

const (
	maxShards = 4
	batches   = 3 // number of batches in use at once
)

// NewHeadBuilder returns a builder, and creates its spool files in spec.Parent. The caller must
// call Discard, also after Finish or an error.
func NewHeadBuilder(spec HeadSpec) (*HeadBuilder, error) {
	if spec.BlockRange == 0 {
		spec.BlockRange = tsdb.DefaultBlockDuration
	}
	if spec.BlockRange < 0 {
		return nil, fmt.Errorf("build head: block range must be positive (%d ms)", spec.BlockRange)
	}
	if spec.MinTime > spec.MaxTime {
		return nil, fmt.Errorf("build head: empty time range from %d to %d", spec.MinTime, spec.MaxTime)
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

// work applies batches until the queue is closed. It continues to receive batches after an
// error, because Records waits for their release.
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

// fail records the first error.
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

// Ignored returns the counts of the ignored data. Call it after Finish.
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

// Records adds records: first all of the WAL in their order, then those of the WBL. It does not
// retain m. It ignores record types without samples, series or deletions, and counts records
// that cannot be decoded.
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

// stop waits until the shards have applied all records.
func (h *HeadBuilder) stop() {
	if !h.ended {
		h.ended = true
		for _, q := range h.queues {
			close(q)
		}
		h.wg.Wait()
	}
}

// Finish writes the blocks, sorted by time, and removes the spool files. It returns none if
// there are no samples. After an error it leaves no block on disk.
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

// each runs f for all shards concurrently and joins the errors.
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

// build writes the block of the window that begins at start. It returns nil if the window has
// no samples. orders has the series of each shard, sorted by labels.
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

// byLabels compares series by labels.
func byLabels(a, b *headSeries) int { return labels.Compare(a.lset, b.lset) }

// row has the series of a shard in one window, sorted by labels. A goroutine prepares them ahead
// of the writer.
type row struct {
	ready chan []windowSeries
	now   []windowSeries
}

// windowSeries has the chunks of a series in one window.
type windowSeries struct {
	series *headSeries
	metas  []chunks.Meta
	err    error
}

// rowStep is the number of series that are passed to the writer at once.
const rowStep = 256

// row starts the goroutine of a row, which ends after the last series or when ctx is done.
func (h *headShard) row(ctx context.Context, order []*headSeries, start, last int64) *row {
	r := &row{ready: make(chan []windowSeries, 2)}
	go func() {
		defer close(r.ready)
		m := merger{spool: h.spool, mapped: h.mapped, blockRange: h.spec.BlockRange}
		for part := range slices.Chunk(order, rowStep) {
			step := make([]windowSeries, 0, len(part))
			for _, s := range part {
				one := m.copyWindow(s, start, last)
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

// copyWindow returns copies of the series' chunks from start to last.
func (m *merger) copyWindow(s *headSeries, start, last int64) (one windowSeries) {
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

// peek returns the next series, or nil after the last.
func (r *row) peek() *windowSeries {
	for len(r.now) == 0 {
		step, more := <-r.ready
		if !more {
			return nil
		}
		r.now = step
	}
	return &r.now[0]
}

// take removes and returns the next series. It must follow a peek that is not nil.
func (r *row) take() windowSeries {
	s := r.now[0]
	r.now = r.now[1:]
	return s
}

// drain waits for the end of the row's goroutine. The caller must have canceled its context.
func (r *row) drain() {
	for range r.ready {
	}
}

// Discard ends the goroutines and removes the spool files. It keeps the blocks of Finish. It may
// be called more than once.
func (h *HeadBuilder) Discard() error {
	h.fail(errors.New("build head: discarded"))
	h.stop()
	return h.close()
}

// close closes the spools.
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
