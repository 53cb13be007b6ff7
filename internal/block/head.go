package block

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/record"

	"github.com/promdump/promdump/internal/wire"
)

// HeadSpec says what is to be built of a head's records.
type HeadSpec struct {
	Parent string // staging directory, in which the blocks and a spool file are made; must exist

	// MinTime and MaxTime bound the samples that are kept, both included, in Unix
	// milliseconds.
	MinTime, MaxTime int64

	// BlockRange is the length of the windows that the blocks are aligned to, in
	// milliseconds. 0 means two hours, as Prometheus has it.
	BlockRange int64
}

// HeadBuilder turns the records of a head's write-ahead logs into blocks, one for
// each aligned window of time that has samples. What the blocks serve is what a
// Prometheus serves after it has replayed the same records, with two exceptions
// in favour of the data: start timestamps are always kept, and a series keeps its
// samples when its labels are told again under a new ref.
//
// It is no tsdb.Head: it has one open chunk for each series in memory and nothing
// else of the samples. Finished chunks, and samples that are out of order, go to a
// spool file in the staging directory.
//
// Where an in-order and an out-of-order sample have the same time, the in-order
// one is kept; of several out-of-order ones, the first. (A Prometheus promises
// none of both.)
//
// A HeadBuilder is for one goroutine. After an error only Discard is of use.
type HeadBuilder struct {
	spec  HeadSpec
	spool *spool
	err   error // the first one; it is final

	refs    refTable
	byHash  map[uint64]uint32 // number of the newest series with that hash of labels
	slabs   []*[slabSize]headSeries
	count   uint32 // of series; their numbers begin at 1
	windows map[int64]struct{}
	window  int64 // the one added last
	sink    spoolSink

	dec     headDecoder
	encoded []byte // of one out-of-order sample

	ignored HeadIgnored
}

// HeadIgnored counts the samples that a head's records told and a Prometheus
// would not serve either.
type HeadIgnored struct {
	UnknownSeries uint64 // no series record came before them, or the series was deleted
	NotInOrder    uint64 // in the WAL, but not later than the series' newest sample (those that count are in the WBL)
}

const slabSize = 256

// NewHeadBuilder makes a builder, and its spool file in spec.Parent.
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
	spool, err := newSpool(spec.Parent)
	if err != nil {
		return nil, fmt.Errorf("build head: %w", err)
	}
	h := &HeadBuilder{
		spec:    spec,
		spool:   spool,
		refs:    refTable{pages: map[uint64]*refPage{}},
		byHash:  map[uint64]uint32{},
		windows: map[int64]struct{}{},
		dec:     newHeadDecoder(),
	}
	h.sink.b = h
	return h, nil
}

// Ignored tells what was left out of the records so far.
func (h *HeadBuilder) Ignored() HeadIgnored { return h.ignored }

// Records takes records: all of the WAL first, in their order, then those of the
// WBL. Nothing of m is kept. Kinds that have no samples and delete none are passed
// over; a record that does not decode is an error that names its kind.
func (h *HeadBuilder) Records(m *wire.Records) error {
	if h.err != nil {
		return h.err
	}
	for _, rec := range m.Records {
		if err := h.record(m.Log, rec); err != nil {
			h.err = err
			return err
		}
	}
	return nil
}

func (h *HeadBuilder) record(log wire.Log, rec []byte) (err error) {
	kind := h.dec.lib.Type(rec)
	// Prometheus' decoder and encoders trust what they read, and panic if they must not.
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("head: take %s record: %v", kind, p)
		}
	}()
	late := log == wire.WBL
	switch kind {
	case record.Series:
		err = h.dec.series(rec, h.addSeries)
	case record.Samples, record.SamplesV2:
		err = h.floats(rec, late)
	case record.HistogramSamples, record.CustomBucketsHistogramSamples, record.HistogramSamplesV2:
		err = h.histograms(rec, late)
	case record.FloatHistogramSamples, record.CustomBucketsFloatHistogramSamples, record.FloatHistogramSamplesV2:
		err = h.floatHistograms(rec, late)
	case record.Tombstones:
		if !late { // the WBL has none that count
			err = h.tombstones(rec)
		}
	}
	if err != nil {
		return fmt.Errorf("head: take %s record: %w", kind, err)
	}
	return nil
}

func (h *HeadBuilder) floats(rec []byte, late bool) error {
	samples, err := h.dec.floats(rec)
	if err != nil {
		return err
	}
	for i := range samples {
		s := &samples[i]
		series := h.byRef(s.Ref)
		if series == nil {
			h.ignored.UnknownSeries++
			continue
		}
		if err := h.add(series, late, sample{st: s.ST, t: s.T, v: s.V}); err != nil {
			return err
		}
	}
	return nil
}

func (h *HeadBuilder) histograms(rec []byte, late bool) error {
	samples, err := h.dec.histograms(rec)
	if err != nil {
		return err
	}
	for _, s := range samples {
		series := h.byRef(s.Ref)
		if series == nil {
			h.ignored.UnknownSeries++
			continue
		}
		if err := h.add(series, late, sample{st: s.ST, t: s.T, h: s.H}); err != nil {
			return err
		}
	}
	return nil
}

func (h *HeadBuilder) floatHistograms(rec []byte, late bool) error {
	samples, err := h.dec.floatHistograms(rec)
	if err != nil {
		return err
	}
	for _, s := range samples {
		series := h.byRef(s.Ref)
		if series == nil {
			h.ignored.UnknownSeries++
			continue
		}
		if err := h.add(series, late, sample{st: s.ST, t: s.T, fh: s.FH}); err != nil {
			return err
		}
	}
	return nil
}

func (h *HeadBuilder) add(s *headSeries, late bool, smp sample) error {
	inRange := smp.t >= h.spec.MinTime && smp.t <= h.spec.MaxTime
	if late {
		if !inRange {
			return nil
		}
		h.addWindow(smp.t)
		h.encoded = appendSample(h.encoded[:0], smp)
		return s.addLate(h.spool, smp.t, h.encoded)
	}
	if smp.t <= s.lastT {
		h.ignored.NotInOrder++
		return nil
	}
	// A series goes stale with a float in the log, also when it has histograms.
	if smp.h == nil && smp.fh == nil && value.IsStaleNaN(smp.v) {
		smp = smp.staleAs(s.lastType)
	}
	s.lastT, s.lastType = smp.t, smp.valueType()
	if !inRange {
		return nil
	}
	if s.lastType == chunkenc.ValFloat && smp.st == 0 {
		s.wait[s.waiting] = timedFloat{t: smp.t, v: smp.v}
		if s.waiting++; int(s.waiting) < len(s.wait) {
			return nil
		}
		h.sink.series = s
		return s.appendWaiting(h.spec.BlockRange, &h.sink)
	}
	h.sink.series = s
	if err := s.appendWaiting(h.spec.BlockRange, &h.sink); err != nil {
		return err
	}
	return s.open.add(smp, h.spec.BlockRange, &h.sink)
}

func (h *HeadBuilder) tombstones(rec []byte) error {
	stones, err := h.dec.tombstones(rec)
	if err != nil {
		return err
	}
	for _, stone := range stones {
		series := h.byRef(chunks.HeadSeriesRef(stone.Ref))
		if series == nil {
			continue
		}
		for _, iv := range stone.Intervals {
			switch {
			case iv.Mint == math.MinInt64 && iv.Maxt == math.MaxInt64:
				// The whole of time is not a deletion by a person: the server has moved
				// this (stale) series out of its head, and its labels may come again.
				h.forget(series)
			case iv.Mint <= iv.Maxt: // Prometheus logs empty ones too
				rare := series.withRare()
				rare.gone = rare.gone.Add(iv)
			}
		}
	}
	return nil
}

// addSeries takes a series record. lset is only lent.
func (h *HeadBuilder) addSeries(ref chunks.HeadSeriesRef, lset labels.Labels) error {
	hash := lset.Hash()
	first := h.byHash[hash]
	for i := first; i != 0; i = h.series(i).sameHash {
		if labels.Equal(h.series(i).lset, lset) { // a deleted one has none
			h.refs.set(ref, i)
			return nil
		}
	}
	if h.count == math.MaxUint32 {
		return errors.New("too many series")
	}
	if h.count%slabSize == 0 {
		h.slabs = append(h.slabs, new([slabSize]headSeries))
	}
	h.count++
	s := h.series(h.count)
	s.lset, s.lastT, s.sameHash = lset.Copy(), math.MinInt64, first
	h.byHash[hash] = h.count
	h.refs.set(ref, h.count)
	return nil
}

func (h *HeadBuilder) series(number uint32) *headSeries {
	return &h.slabs[(number-1)/slabSize][(number-1)%slabSize]
}

// byRef is nil for a series that is not known (any more).
func (h *HeadBuilder) byRef(ref chunks.HeadSeriesRef) *headSeries {
	number := h.refs.find(ref)
	if number == 0 {
		return nil
	}
	if s := h.series(number); !s.deleted {
		return s
	}
	return nil
}

func (h *HeadBuilder) forget(s *headSeries) {
	*s = headSeries{deleted: true, sameHash: s.sameHash}
}

func (h *HeadBuilder) addWindow(t int64) {
	start := windowStart(t, h.spec.BlockRange)
	if start != h.window || len(h.windows) == 0 {
		h.windows[start] = struct{}{}
		h.window = start
	}
}

// Finish writes the blocks and removes the spool file. The blocks come in the
// order of their time; without samples there are none. After an error no block
// is left behind.
func (h *HeadBuilder) Finish(ctx context.Context) (_ []*Built, err error) {
	if h.err != nil {
		return nil, h.err
	}
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("build head: %v", p)
		}
		err = errors.Join(err, h.spool.close())
		h.err = err
		if err == nil {
			h.err = errors.New("build head: already finished")
		}
	}()

	order, err := h.closeSeries(ctx)
	if err != nil {
		return nil, fmt.Errorf("build head: %w", err)
	}
	var built []*Built
	for _, start := range slices.Sorted(maps.Keys(h.windows)) {
		b, err := h.build(ctx, order, start)
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

// closeSeries sends all that is still open to the spool, and gives the series
// that have anything in the order of their labels.
func (h *HeadBuilder) closeSeries(ctx context.Context) ([]*headSeries, error) {
	h.refs, h.byHash = refTable{}, nil
	order := make([]*headSeries, 0, h.count)
	for i := uint32(1); i <= h.count; i++ {
		s := h.series(i)
		h.sink.series = s
		if err := s.appendWaiting(h.spec.BlockRange, &h.sink); err != nil {
			return nil, err
		}
		if err := s.open.end(&h.sink); err != nil {
			return nil, err
		}
		s.open = openChunk{}
		if s.rare != nil {
			if err := s.rare.flush(h.spool); err != nil {
				return nil, err
			}
		}
		if len(s.chunks) > 0 || s.rare != nil && len(s.rare.late) > 0 {
			order = append(order, s)
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	slices.SortFunc(order, func(a, b *headSeries) int { return labels.Compare(a.lset, b.lset) })
	return order, h.spool.flush()
}

// build writes the block of the window that begins at start, or none.
func (h *HeadBuilder) build(ctx context.Context, order []*headSeries, start int64) (_ *Built, err error) {
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
	m := merger{spool: h.spool, blockRange: h.spec.BlockRange}
	for i, s := range order {
		if i%1024 == 0 && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		metas, err := m.window(s, start, last)
		if err != nil {
			return nil, fmt.Errorf("series %s: %w", brief(s.lset), err)
		}
		if err := w.addSeries(s.lset, metas); err != nil {
			return nil, err
		}
	}
	return w.finish(ctx)
}

// Discard removes the spool file. It may be called at any time, and after Finish,
// whose blocks it leaves.
func (h *HeadBuilder) Discard() error {
	if h.err == nil {
		h.err = errors.New("build head: discarded")
	}
	return h.spool.close()
}
