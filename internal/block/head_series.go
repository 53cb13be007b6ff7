package block

import (
	"fmt"
	"math"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/tombstones"
)

// samplesPerFloatChunk is the number of samples of a chunk of floats, about as in Prometheus.
const samplesPerFloatChunk = 120

// sample is a histogram, a float histogram, or a float if both are nil.
type sample struct {
	st, t int64 // start time and time, Unix milliseconds
	v     float64
	h     *histogram.Histogram
	fh    *histogram.FloatHistogram
}

// staleAs returns a stale marker of the type of the sample before it.
func (s sample) staleAs(before chunkenc.ValueType) sample {
	switch before {
	case chunkenc.ValHistogram:
		s.h, s.v = &histogram.Histogram{Sum: s.v}, 0
	case chunkenc.ValFloatHistogram:
		s.fh, s.v = &histogram.FloatHistogram{Sum: s.v}, 0
	}
	return s
}

// headSeries is a series of a head while records are added. There may be millions, so its size
// matters.
//
// A scrape has a sample of every series, so each sample finds its series outside the processor's
// caches. Appending to a chunk takes five cache misses, more time than the rest of the work.
// Therefore a series collects a few floats in its first cache lines and appends them together.
type headSeries struct {
	lastT    int64 // newest in-order sample, in or outside the range
	nextMin  int64 // times of the next m-mapped chunk; math.MaxInt64: none
	nextMax  int64
	lastType chunkenc.ValueType // of the sample at lastT
	deleted  bool
	waiting  uint8         // number of floats in wait
	wait     [7]timedFloat // in order, without start timestamps, later than open

	lset     labels.Labels
	open     openChunk
	chunks   []spooledRef // finished chunks, sorted by time
	mapped   []spooledRef // m-mapped chunks that are not in chunks yet, sorted by time
	rare     *rareParts   // nil for most series
	sameHash uint32       // number of an older series with the same hash of labels; 0: none
}

// timedFloat is a float sample without a start timestamp.
type timedFloat struct {
	t int64
	v float64
}

// appendWaiting appends the waiting floats to the open chunk.
func (s *headSeries) appendWaiting(blockRange int64, to chunkSink) error {
	for _, p := range s.wait[:s.waiting] {
		if err := s.open.add(sample{t: p.t, v: p.v}, blockRange, to); err != nil {
			return err
		}
	}
	s.waiting = 0
	return nil
}

// rareParts are the deletions and the out-of-order samples of a series.
type rareParts struct {
	deleted tombstones.Intervals

	buf        []byte       // encoded out-of-order samples
	mint, maxt int64        // times of the samples in buf
	late       []spooledRef // out-of-order samples in the spool
}

// lateBytes is the size at which a series' out-of-order samples are moved to the spool.
const lateBytes = 1024

// withRare returns s.rare, which it allocates if needed.
func (s *headSeries) withRare() *rareParts {
	if s.rare == nil {
		s.rare = &rareParts{}
	}
	return s.rare
}

// addLate adds an encoded out-of-order sample of time t.
func (s *headSeries) addLate(to *spool, t int64, encoded []byte) error {
	r := s.withRare()
	if len(r.buf) == 0 {
		r.mint, r.maxt = t, t
	}
	r.mint, r.maxt = min(r.mint, t), max(r.maxt, t)
	r.buf = append(r.buf, encoded...)
	if len(r.buf) < lateBytes {
		return nil
	}
	return r.flush(to)
}

// flush moves the out-of-order samples to the spool.
func (r *rareParts) flush(to *spool) error {
	if len(r.buf) == 0 {
		return nil
	}
	ref, err := to.put(r.buf, r.mint, r.maxt)
	if err != nil {
		return err
	}
	r.late = append(r.late, ref)
	r.buf = r.buf[:0]
	return nil
}

// chunkSink receives finished chunks. take may recycle the chunk.
type chunkSink interface {
	take(*openChunk) error
}

// openChunk is the unfinished chunk of a series. It ends with 120 samples or 1 KiB (histograms:
// 1 KiB and at least ten samples), at the end of the window, and before a sample that it cannot
// hold: another type, a counter reset, a start timestamp. But for the sizes, these are the
// rules of Prometheus' tsdb/head_append.go.
type openChunk struct {
	chunk      chunkenc.Chunk
	app        chunkenc.Appender // of this or the previous chunk: a histogram needs it to detect a reset
	mint, maxt int64
	last       int64 // last millisecond of the chunk's window
	n          int   // number of samples; 0: chunk is nil, or empty for reuse
	enc        chunkenc.Encoding
}

// add appends a sample that is later than all before it. It may change and retain the sample's
// histogram.
func (o *openChunk) add(s sample, blockRange int64, to chunkSink) error {
	typ := s.valueType()
	began := false
	if o.n == 0 || s.t > o.last || !o.holds(typ, s.st) || o.full(typ) {
		if err := o.end(to); err != nil {
			return err
		}
		began = true
	}
	prev := o.app
	if began {
		if err := o.begin(typ.ChunkEncoding(s.st != 0, s.st != 0), s.t, blockRange); err != nil {
			return err
		}
	} else {
		prev = nil
	}
	if typ == chunkenc.ValFloat {
		o.app.Append(s.st, s.t, s.v)
		o.maxt = s.t
		o.n++
		return nil
	}

	var (
		next    chunkenc.Chunk
		recoded bool
		app     chunkenc.Appender
		err     error
	)
	if typ == chunkenc.ValHistogram {
		next, recoded, app, err = o.app.AppendHistogram(prev, s.st, s.t, s.h, false)
	} else {
		next, recoded, app, err = o.app.AppendFloatHistogram(prev, s.st, s.t, s.fh, false)
	}
	if err != nil {
		return fmt.Errorf("append histogram: %w", err)
	}
	switch {
	case next == nil:
	case recoded: // the same samples with more buckets
		o.chunk = next
	default:
		if err := o.end(to); err != nil {
			return err
		}
		o.chunk, o.mint, o.n = next, s.t, 0
	}
	o.app = app
	o.maxt = s.t
	o.n++
	return nil
}

// holds reports whether the open chunk can hold a sample of this type. A chunk with start
// timestamps can also hold samples without.
func (o *openChunk) holds(typ chunkenc.ValueType, st int64) bool {
	return o.enc == typ.ChunkEncoding(true, true) || st == 0 && o.enc == typ.ChunkEncoding(false, false)
}

// full reports whether the chunk has its maximum size.
func (o *openChunk) full(typ chunkenc.ValueType) bool {
	if typ == chunkenc.ValFloat {
		return o.n >= samplesPerFloatChunk || len(o.chunk.Bytes()) > chunkenc.MaxBytesPerXORChunkBeforeAppend
	}
	return o.n >= chunkenc.MinSamplesPerHistogramChunk && len(o.chunk.Bytes()) >= chunkenc.TargetBytesPerHistogramChunk
}

// begin begins a chunk at time t.
func (o *openChunk) begin(enc chunkenc.Encoding, t, blockRange int64) (err error) {
	if o.chunk == nil || o.enc != enc {
		if o.chunk, err = chunkenc.NewEmptyChunk(enc); err != nil {
			return err
		}
	}
	if o.app, err = o.chunk.Appender(); err != nil {
		return err
	}
	o.enc, o.mint = enc, t
	o.last = windowLast(windowStart(t, blockRange), blockRange)
	return nil
}

// end passes the chunk to the sink if it has samples.
func (o *openChunk) end(to chunkSink) error {
	if o.n == 0 {
		return nil
	}
	if err := to.take(o); err != nil {
		return err
	}
	o.n = 0
	return nil
}

// recycle makes the memory of a copied chunk available for the next one. It does so for floats
// only: a histogram's appender reads the chunk when the next one begins.
func (o *openChunk) recycle() {
	if o.enc != chunkenc.EncXOR {
		o.chunk = nil
		return
	}
	const header = 2
	b := o.chunk.Bytes()[:header]
	clear(b)
	o.chunk.Reset(b)
}

// refTable maps refs to numbers of series. Refs are consecutive, and the samples of a scrape are
// in that order, so the page of the last ref is usually that of the next one.
type refTable struct {
	pages map[uint64]*refPage
	key   uint64
	page  *refPage // of key, the page of the last ref
}

// refPageSize is the number of refs in a page.
const refPageSize = 256

// refPage has the numbers of series of consecutive refs.
type refPage [refPageSize]uint32

// find returns the number of a ref, or 0 if it is not in the table.
func (r *refTable) find(ref chunks.HeadSeriesRef) uint32 {
	key := uint64(ref) / refPageSize
	if r.page == nil || r.key != key {
		page := r.pages[key]
		if page == nil {
			return 0
		}
		r.key, r.page = key, page
	}
	return r.page[uint64(ref)%refPageSize]
}

// set adds or replaces a ref.
func (r *refTable) set(ref chunks.HeadSeriesRef, number uint32) {
	key := uint64(ref) / refPageSize
	page := r.pages[key]
	if page == nil {
		page = new(refPage)
		r.pages[key] = page
	}
	page[uint64(ref)%refPageSize] = number
}

// windowStart returns the start of the aligned window of time t.
func windowStart(t, length int64) int64 {
	rest := t % length
	if rest < 0 {
		rest += length
	}
	if t < math.MinInt64+rest {
		return math.MinInt64
	}
	return t - rest
}

// windowLast returns the last millisecond of the window that begins at start.
func windowLast(start, length int64) int64 {
	if start == math.MinInt64 { // this window may be shorter than the others
		rest := start % length
		if rest < 0 {
			return start - rest - 1
		}
		return start + length - 1
	}
	if start > math.MaxInt64-(length-1) {
		return math.MaxInt64
	}
	return start + length - 1
}

// valueType returns the type of the sample.
func (s sample) valueType() chunkenc.ValueType {
	switch {
	case s.h != nil:
		return chunkenc.ValHistogram
	case s.fh != nil:
		return chunkenc.ValFloatHistogram
	}
	return chunkenc.ValFloat
}

// deleted reports whether the time t is in one of the intervals.
func deleted(intervals tombstones.Intervals, t int64) bool {
	for _, iv := range intervals {
		if iv.InBounds(t) {
			return true
		}
	}
	return false
}
