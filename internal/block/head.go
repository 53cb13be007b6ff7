package block

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/record"

	"github.com/promdump/promdump/internal/wire"
)

// headShard builds the series whose hash of labels, modulo the number of shards, is its id. It
// reads all records, because a sample has a ref and not labels.
type headShard struct {
	spec   HeadSpec
	id, of uint64 // number of this shard, number of shards
	spool  *spool
	mapped *mappedChunks // nil if there are none

	refs    refTable
	byHash  map[uint64]uint32 // number of the newest series with this hash of labels
	slabs   []*[slabSize]headSeries
	count   uint32             // number of series; they are numbered from 1
	windows map[int64]struct{} // starts of the windows with samples
	window  int64              // added last
	sink    spoolSink

	dec     headDecoder
	encoded []byte // buffer for an out-of-order sample

	ignored HeadIgnored
}

// slabSize is the number of series that are allocated at once.
const slabSize = 256

// newHeadShard returns the shard id of `of` shards. The caller must close its spool.
func newHeadShard(spec HeadSpec, id, of int) (*headShard, error) {
	spool, err := newSpool(spec.Parent)
	if err != nil {
		return nil, err
	}
	h := &headShard{
		spec: spec, id: uint64(id), of: uint64(of),
		spool:   spool,
		refs:    refTable{pages: map[uint64]*refPage{}},
		byHash:  map[uint64]uint32{},
		windows: map[int64]struct{}{},
		dec:     newHeadDecoder(),
	}
	h.sink.b = h
	return h, nil
}

// record applies a record. It counts a record that cannot be decoded. An error is a failure of
// the spool.
func (h *headShard) record(log wire.Log, rec []byte) (err error) {
	kind := h.dec.lib.Type(rec)
	// Prometheus' decoder and encoders panic on some invalid input.
	defer func() {
		if p := recover(); p != nil {
			err = &decodeError{fmt.Errorf("%v", p)}
		}
		if bad, ok := errors.AsType[*decodeError](err); ok {
			err = nil
			if h.ignored.BadRecords++; h.ignored.BadRecord == nil {
				h.ignored.BadRecord = fmt.Errorf("decode %s record: %w", kind, bad.err)
			}
		} else if err != nil {
			err = fmt.Errorf("head: add %s record: %w", kind, err)
		}
	}()
	late := log == wire.WBL
	switch kind {
	case record.Series:
		return h.dec.series(rec, h.addSeries)
	case record.Samples, record.SamplesV2:
		return h.floats(rec, late)
	case record.HistogramSamples, record.CustomBucketsHistogramSamples, record.HistogramSamplesV2:
		return h.histograms(rec, late)
	case record.FloatHistogramSamples, record.CustomBucketsFloatHistogramSamples, record.FloatHistogramSamplesV2:
		return h.floatHistograms(rec, late)
	case record.Tombstones:
		if !late { // Prometheus ignores tombstones in the WBL
			return h.tombstones(rec)
		}
	}
	return nil
}

// floats adds the samples of a record of floats.
func (h *headShard) floats(rec []byte, late bool) error {
	samples, err := h.dec.floats(rec)
	if err != nil {
		return err
	}
	for i := range samples {
		s := &samples[i]
		series, ours := h.byRef(s.Ref)
		if series == nil {
			if ours {
				h.ignored.UnknownSeries++
			}
			continue
		}
		if err := h.add(series, late, sample{st: s.ST, t: s.T, v: s.V}); err != nil {
			return err
		}
	}
	return nil
}

// histograms adds the samples of a record of histograms.
func (h *headShard) histograms(rec []byte, late bool) error {
	samples, err := h.dec.histograms(rec)
	if err != nil {
		return err
	}
	for _, s := range samples {
		series, ours := h.byRef(s.Ref)
		if series == nil {
			if ours {
				h.ignored.UnknownSeries++
			}
			continue
		}
		if err := h.add(series, late, sample{st: s.ST, t: s.T, h: s.H}); err != nil {
			return err
		}
	}
	return nil
}

// floatHistograms adds the samples of a record of float histograms.
func (h *headShard) floatHistograms(rec []byte, late bool) error {
	samples, err := h.dec.floatHistograms(rec)
	if err != nil {
		return err
	}
	for _, s := range samples {
		series, ours := h.byRef(s.Ref)
		if series == nil {
			if ours {
				h.ignored.UnknownSeries++
			}
			continue
		}
		if err := h.add(series, late, sample{st: s.ST, t: s.T, fh: s.FH}); err != nil {
			return err
		}
	}
	return nil
}

// add adds a sample to a series. late means that it is from the out-of-order log.
func (h *headShard) add(s *headSeries, late bool, smp sample) error {
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
	if smp.t >= s.nextMin {
		covered, err := h.passMapped(s, smp.t)
		if err != nil {
			return err
		}
		if covered {
			// lastType stays: a stale marker after the chunk takes it from the chunk.
			s.lastT = smp.t
			return nil
		}
	}
	// The log has a float as the stale marker of a histogram series, too.
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

// tombstones applies the deletions of a record.
func (h *headShard) tombstones(rec []byte) error {
	stones, err := h.dec.tombstones(rec)
	if err != nil {
		return err
	}
	for _, stone := range stones {
		series, _ := h.byRef(chunks.HeadSeriesRef(stone.Ref))
		if series == nil {
			continue
		}
		for _, iv := range stone.Intervals {
			switch {
			case iv.Mint == math.MinInt64 && iv.Maxt == math.MaxInt64:
				// Not a deletion by a user: the server has moved this stale series into a
				// block, and the labels may appear again.
				h.forget(series)
			case iv.Mint <= iv.Maxt: // Prometheus also logs empty intervals
				rare := series.withRare()
				rare.deleted = rare.deleted.Add(iv)
			}
		}
	}
	return nil
}

// addSeries adds a series, or another ref of a known one. It does not retain lset.
func (h *headShard) addSeries(ref chunks.HeadSeriesRef, lset labels.Labels) error {
	hash := lset.Hash()
	if hash%h.of != h.id {
		h.refs.set(ref, foreign)
		return nil
	}
	first := h.byHash[hash]
	for i := first; i != 0; i = h.series(i).sameHash {
		if labels.Equal(h.series(i).lset, lset) { // a deleted one has no labels
			again := h.refs.find(ref) == i
			h.refs.set(ref, i)
			if again {
				return nil
			}
			return h.claim(ref, h.series(i))
		}
	}
	if h.count == foreign-1 {
		return errors.New("too many series")
	}
	if h.count%slabSize == 0 {
		h.slabs = append(h.slabs, new([slabSize]headSeries))
	}
	h.count++
	s := h.series(h.count)
	s.lset, s.lastT, s.sameHash = lset.Copy(), math.MinInt64, first
	s.lookAhead()
	h.byHash[hash] = h.count
	h.refs.set(ref, h.count)
	return h.claim(ref, s)
}

// series returns the series with a number.
func (h *headShard) series(number uint32) *headSeries {
	return &h.slabs[(number-1)/slabSize][(number-1)%slabSize]
}

// foreign is the number of every series of another shard.
const foreign = math.MaxUint32

// byRef returns the series of a ref. It returns nil for an unknown or deleted series and for
// that of another shard; ours is true in exactly one shard, which counts the sample.
func (h *headShard) byRef(ref chunks.HeadSeriesRef) (s *headSeries, ours bool) {
	switch number := h.refs.find(ref); number {
	case 0:
		return nil, h.id == 0 // unknown in all shards
	case foreign:
		return nil, false
	default:
		if s := h.series(number); !s.deleted {
			return s, true
		}
		return nil, true
	}
}

// forget removes a series and its samples.
func (h *headShard) forget(s *headSeries) {
	*s = headSeries{deleted: true, sameHash: s.sameHash}
}

// addWindow records that the window of time t has samples.
func (h *headShard) addWindow(t int64) {
	start := windowStart(t, h.spec.BlockRange)
	if start != h.window || len(h.windows) == 0 {
		h.windows[start] = struct{}{}
		h.window = start
	}
}

// closeSeries writes all unfinished chunks and samples to the spool, and returns the series with
// samples, sorted by labels.
func (h *headShard) closeSeries(ctx context.Context) ([]*headSeries, error) {
	h.refs, h.byHash = refTable{}, nil
	order := make([]*headSeries, 0, h.count)
	for i := uint32(1); i <= h.count; i++ {
		s := h.series(i)
		for len(s.mapped) > 0 {
			if err := h.takeMapped(s); err != nil {
				return nil, err
			}
		}
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
	slices.SortFunc(order, byLabels)
	return order, h.spool.flush()
}
