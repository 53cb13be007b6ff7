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

// headShard has the series whose hash of labels falls to it. It sees all records,
// since a sample says nothing of its series' labels.
type headShard struct {
	spec   HeadSpec
	id, of uint64
	spool  *spool
	mapped *mappedChunks // nil: none

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

const slabSize = 256

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

// record applies a record. A record that cannot be decoded is counted, not an error:
// errors come from the spool.
func (h *headShard) record(log wire.Log, rec []byte) (err error) {
	kind := h.dec.lib.Type(rec)
	// Prometheus' decoder and encoders trust what they read, and panic if they must not.
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
			err = fmt.Errorf("head: take %s record: %w", kind, err)
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
		if !late { // the WBL has none that count
			return h.tombstones(rec)
		}
	}
	return nil
}

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
			// A stale marker takes its type from the sample before it.
			s.lastT = smp.t
			return nil
		}
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
func (h *headShard) addSeries(ref chunks.HeadSeriesRef, lset labels.Labels) error {
	hash := lset.Hash()
	if hash%h.of != h.id {
		h.refs.set(ref, foreign)
		return nil
	}
	first := h.byHash[hash]
	for i := first; i != 0; i = h.series(i).sameHash {
		if labels.Equal(h.series(i).lset, lset) { // a deleted one has none
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

func (h *headShard) series(number uint32) *headSeries {
	return &h.slabs[(number-1)/slabSize][(number-1)%slabSize]
}

// foreign stands for the number of a series that another shard has.
const foreign = math.MaxUint32

// byRef is nil for a series that is not known (any more), or not ours; ours tells
// who counts it.
func (h *headShard) byRef(ref chunks.HeadSeriesRef) (s *headSeries, ours bool) {
	switch number := h.refs.find(ref); number {
	case 0:
		return nil, h.id == 0 // it is not known to any shard
	case foreign:
		return nil, false
	default:
		if s := h.series(number); !s.deleted {
			return s, true
		}
		return nil, true
	}
}

func (h *headShard) forget(s *headSeries) {
	*s = headSeries{deleted: true, sameHash: s.sameHash}
}

func (h *headShard) addWindow(t int64) {
	start := windowStart(t, h.spec.BlockRange)
	if start != h.window || len(h.windows) == 0 {
		h.windows[start] = struct{}{}
		h.window = start
	}
}

// closeSeries sends all that is still open to the spool, and gives the series
// that have anything in the order of their labels.
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
