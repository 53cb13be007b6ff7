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

// samplesPerFloatChunk is where Prometheus' own chunks end, about.
const samplesPerFloatChunk = 120

// sample is a float unless it has one of the histograms.
type sample struct {
	st, t int64
	v     float64
	h     *histogram.Histogram
	fh    *histogram.FloatHistogram
}

// staleAs makes a histogram's stale marker of a float one, where the series had
// histograms before it.
func (s sample) staleAs(before chunkenc.ValueType) sample {
	switch before {
	case chunkenc.ValHistogram:
		s.h, s.v = &histogram.Histogram{Sum: s.v}, 0
	case chunkenc.ValFloatHistogram:
		s.fh, s.v = &histogram.FloatHistogram{Sum: s.v}, 0
	}
	return s
}

// headSeries is what is kept of a series while the records come in. There may be
// millions: every field counts.
//
// A scrape touches all series once, so every sample finds its series out of the
// processor's caches. To append to a chunk takes five such misses, more time than
// all of the work; so floats wait here, in what one miss brings, for company.
type headSeries struct {
	lastT    int64 // of the newest in-order sample, also of one outside the range
	nextMin  int64 // times of the next m-mapped chunk; math.MaxInt64: none
	nextMax  int64
	lastType chunkenc.ValueType
	deleted  bool
	waiting  uint8
	wait     [7]timedFloat // in order, without start timestamps, later than open

	lset     labels.Labels
	open     openChunk
	chunks   []spooledRef // finished, in the order of time
	mapped   []spooledRef // m-mapped chunks that are to come, in the order of time
	rare     *rareParts   // most series have none
	sameHash uint32       // number of an older series whose labels have the same hash; 0 is none
}

type timedFloat struct {
	t int64
	v float64
}

// appendWaiting brings the floats that wait to the open chunk.
func (s *headSeries) appendWaiting(blockRange int64, to chunkSink) error {
	for _, p := range s.wait[:s.waiting] {
		if err := s.open.add(sample{t: p.t, v: p.v}, blockRange, to); err != nil {
			return err
		}
	}
	s.waiting = 0
	return nil
}

// rareParts are of series with deletions or out-of-order samples.
type rareParts struct {
	gone tombstones.Intervals

	buf        []byte // encoded out-of-order samples
	mint, maxt int64  // of buf
	late       []spooledRef
}

// lateBytes is how much of a series' out-of-order samples waits in memory.
const lateBytes = 1024

func (s *headSeries) withRare() *rareParts {
	if s.rare == nil {
		s.rare = &rareParts{}
	}
	return s.rare
}

// addLate keeps an encoded out-of-order sample.
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

// chunkSink takes a finished chunk. It may recycle it.
type chunkSink interface {
	take(*openChunk) error
}

// openChunk is the chunk that a series' samples go to, and the rules by which one
// ends: 120 samples or 1 KiB (histograms: 1 KiB, but at least ten samples), the end
// of the window, another kind of sample, and what a chunk cannot hold (a counter
// that was reset, a start timestamp). Size apart they are those of Prometheus'
// tsdb/head_append.go.
type openChunk struct {
	chunk      chunkenc.Chunk
	app        chunkenc.Appender // also of the chunk before, from which a histogram tells a reset
	mint, maxt int64
	last       int64 // of the chunk's window
	n          int   // samples; 0: there is no chunk, or an empty one to be used again
	enc        chunkenc.Encoding
}

// add appends a sample that is later than all before. It may change and keep the
// sample's histogram.
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
	case recoded: // the same samples with room for new buckets
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

// holds tells whether the open chunk can have a sample of the kind. One with start
// timestamps can have those without, too.
func (o *openChunk) holds(typ chunkenc.ValueType, st int64) bool {
	return o.enc == typ.ChunkEncoding(true, true) || st == 0 && o.enc == typ.ChunkEncoding(false, false)
}

func (o *openChunk) full(typ chunkenc.ValueType) bool {
	if typ == chunkenc.ValFloat {
		return o.n >= samplesPerFloatChunk || len(o.chunk.Bytes()) > chunkenc.MaxBytesPerXORChunkBeforeAppend
	}
	return o.n >= chunkenc.MinSamplesPerHistogramChunk && len(o.chunk.Bytes()) >= chunkenc.TargetBytesPerHistogramChunk
}

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

// end gives the chunk away, if it has samples.
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

// recycle lets the next chunk use the memory of one that is copied. Only floats: a
// histogram's appender still looks at its chunk when the next one begins.
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

// refTable finds a series' number by its ref. Refs are given out one after the
// other, and a scrape's samples come in that order, so the page of the ref before
// is mostly the one that is needed.
type refTable struct {
	pages map[uint64]*refPage
	key   uint64
	page  *refPage // of key
}

const refPageSize = 256

type refPage [refPageSize]uint32

// find gives 0 for a ref that is not there.
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

func (r *refTable) set(ref chunks.HeadSeriesRef, number uint32) {
	key := uint64(ref) / refPageSize
	page := r.pages[key]
	if page == nil {
		page = new(refPage)
		r.pages[key] = page
	}
	page[uint64(ref)%refPageSize] = number
}

// windowStart is the start of the aligned window that t is in.
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

// windowLast is the last millisecond of the window that begins at start.
func windowLast(start, length int64) int64 {
	if start == math.MinInt64 { // it may be shorter than the others
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

func (s sample) valueType() chunkenc.ValueType {
	switch {
	case s.h != nil:
		return chunkenc.ValHistogram
	case s.fh != nil:
		return chunkenc.ValFloatHistogram
	}
	return chunkenc.ValFloat
}

// deleted tells whether intervals, which are in order, hold t.
func deleted(intervals tombstones.Intervals, t int64) bool {
	for _, iv := range intervals {
		if iv.InBounds(t) {
			return true
		}
	}
	return false
}
