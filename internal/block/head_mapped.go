package block

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"sync/atomic"

	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"

	"github.com/promdump/promdump/internal/wire"
)

// mappedChunks are the m-mapped chunks of a head, before the records say which
// series they belong to. All shards read them.
type mappedChunks struct {
	spool    *spool
	byRef    map[chunks.HeadSeriesRef]*mappedSeries
	replaced uint64 // samples of chunks that were replaced
	sealed   bool   // the records have begun
}

// mappedSeries are the m-mapped chunks of one ref.
type mappedSeries struct {
	inOrder []spooledRef // in the order of time, not overlapping
	late    []spooledRef // out of order
	samples uint64
	claimed atomic.Bool // a series record names the ref
}

// Chunks adds m-mapped chunks, in the order in which the server wrote them. All chunks
// must be added before the first records. m is not retained.
func (h *HeadBuilder) Chunks(m *wire.HeadChunks) error {
	if err := h.firstError(); err != nil {
		return err
	}
	if h.mapped.sealed {
		return errors.New("build head: m-mapped chunks come after records")
	}
	if h.mapped.spool == nil {
		var err error
		if h.mapped.spool, err = newSpool(h.spec.Parent); err != nil {
			return fmt.Errorf("build head: %w", err)
		}
		h.mapped.byRef = map[chunks.HeadSeriesRef]*mappedSeries{}
		for _, s := range h.shards {
			s.mapped = &h.mapped
		}
	}
	for _, c := range m.Chunks {
		if err := h.mapped.add(c); err != nil {
			h.fail(fmt.Errorf("build head: %w", err))
			return h.firstError()
		}
	}
	return nil
}

func (m *mappedChunks) add(c wire.HeadChunk) error {
	if c.MinTime > c.MaxTime {
		return fmt.Errorf("an m-mapped chunk begins at %d and ends at %d", c.MinTime, c.MaxTime)
	}
	ref, err := m.spool.put(c.Data, c.MinTime, c.MaxTime)
	if err != nil {
		return err
	}
	ref.enc, ref.mapped = chunkenc.Encoding(c.Encoding), true
	s := m.byRef[chunks.HeadSeriesRef(c.Ref)]
	if s == nil {
		s = &mappedSeries{}
		m.byRef[chunks.HeadSeriesRef(c.Ref)] = s
	}
	n := uint64(sampleCount(ref.enc, c.Data))
	again := func(o spooledRef) bool { return o.mint == ref.mint && o.maxt == ref.maxt && o.size == ref.size }
	switch last := len(s.inOrder) - 1; {
	case c.OutOfOrder:
		// It is not counted: it stays in its file after a block has it and its series is
		// gone.
		s.late = append(s.late, ref)
		return nil
	case last >= 0 && s.inOrder[last].maxt >= c.MinTime && slices.ContainsFunc(s.inOrder, again):
		return nil // the same chunk again, as in a copied file
	case last >= 0 && s.inOrder[last].maxt >= c.MinTime:
		// A server writes the chunks of a series in the order of time. After a repair
		// that lost series records it gives their refs to new series: the older chunks
		// belong to a series that no record names.
		m.replaced += s.samples
		s.samples, s.late, s.inOrder = 0, nil, []spooledRef{ref}
	default:
		s.inOrder = append(s.inOrder, ref)
	}
	s.samples += n
	return nil
}

// seal is called after the last chunk: from then on chunks are only read.
func (m *mappedChunks) seal() error {
	if m.sealed {
		return nil
	}
	m.sealed = true
	if m.spool == nil {
		return nil
	}
	return m.spool.flush()
}

// unclaimed counts the samples of chunks whose ref is in no series record.
func (m *mappedChunks) unclaimed() uint64 {
	n := m.replaced
	for _, s := range m.byRef {
		if !s.claimed.Load() {
			n += s.samples
		}
	}
	return n
}

// claim moves the m-mapped chunks of a ref to the series that a record names.
func (h *headShard) claim(ref chunks.HeadSeriesRef, s *headSeries) error {
	if h.mapped == nil {
		return nil
	}
	m := h.mapped.byRef[ref]
	if m == nil {
		return nil
	}
	m.claimed.Store(true)
	for _, c := range m.late {
		if err := h.addLateChunk(s, c); err != nil {
			return err
		}
	}
	if len(s.mapped) == 0 {
		s.mapped = m.inOrder
	} else {
		// A series that left the head and came back has chunks under two refs.
		rest := s.mapped
		s.mapped = nil
		for _, c := range mergeByTime(rest, m.inOrder) {
			if last := len(s.mapped) - 1; last >= 0 && s.mapped[last].maxt >= c.mint {
				if err := h.addLateChunk(s, c); err != nil {
					return err
				}
				continue
			}
			s.mapped = append(s.mapped, c)
		}
	}
	// Earlier samples of the log are in blocks already, or the chunks repeat them.
	for len(s.mapped) > 0 && s.mapped[0].mint <= s.lastT {
		if err := h.addLateChunk(s, s.mapped[0]); err != nil {
			return err
		}
		s.mapped = s.mapped[1:]
	}
	s.lookAhead()
	return nil
}

func mergeByTime(a, b []spooledRef) (all []spooledRef) {
	for len(a) > 0 && len(b) > 0 {
		if a[0].mint <= b[0].mint {
			all, a = append(all, a[0]), a[1:]
		} else {
			all, b = append(all, b[0]), b[1:]
		}
	}
	return append(append(all, a...), b...)
}

// lookAhead copies the times of the next m-mapped chunk into the series, so that the
// check for each sample is cheap.
func (s *headSeries) lookAhead() {
	s.nextMin, s.nextMax = math.MaxInt64, math.MaxInt64
	if len(s.mapped) > 0 {
		s.nextMin, s.nextMax = s.mapped[0].mint, s.mapped[0].maxt
	}
}

// passMapped adds the m-mapped chunks that end before t to the series. It reports
// whether the next chunk covers t: such a chunk already has the sample.
func (h *headShard) passMapped(s *headSeries, t int64) (covered bool, err error) {
	for len(s.mapped) > 0 && s.mapped[0].maxt < t {
		if err := h.takeMapped(s); err != nil {
			return false, err
		}
	}
	return len(s.mapped) > 0 && s.mapped[0].mint <= t, nil
}

// takeMapped adds the next m-mapped chunk to the series. Its bytes are kept unless it
// crosses the border of the selection or of a window.
func (h *headShard) takeMapped(s *headSeries) error {
	c := s.mapped[0]
	s.mapped = s.mapped[1:]
	s.lookAhead()
	h.sink.series = s
	if err := s.appendWaiting(h.spec.BlockRange, &h.sink); err != nil {
		return err
	}
	if err := s.open.end(&h.sink); err != nil {
		return err
	}
	s.open.app = nil // the next sample follows the chunk, not the open one
	s.lastT, s.lastType = max(s.lastT, c.maxt), valueType(c.enc)
	inside := c.mint >= h.spec.MinTime && c.maxt <= h.spec.MaxTime
	if inside && windowStart(c.mint, h.spec.BlockRange) == windowStart(c.maxt, h.spec.BlockRange) {
		h.addWindow(c.mint)
		s.chunks = append(s.chunks, c)
		return nil
	}
	err := h.eachSample(c, func(smp sample) error {
		return s.open.add(smp, h.spec.BlockRange, &h.sink)
	})
	if err != nil {
		return err
	}
	err = s.open.end(&h.sink)
	s.open.app = nil
	return err
}

// addLateChunk adds the samples of a chunk as out-of-order samples.
func (h *headShard) addLateChunk(s *headSeries, c spooledRef) error {
	return h.eachSample(c, func(smp sample) error {
		h.addWindow(smp.t)
		h.encoded = appendSample(h.encoded[:0], smp)
		return s.addLate(h.spool, smp.t, h.encoded)
	})
}

// eachSample calls add for each sample of an m-mapped chunk in the builder's range. A
// chunk that cannot be decoded is counted; its samples up to the error are kept.
func (h *headShard) eachSample(c spooledRef, add func(sample) error) error {
	if c.mint > h.spec.MaxTime || c.maxt < h.spec.MinTime {
		return nil
	}
	data := make([]byte, c.size)
	if err := h.mapped.spool.read(c, data); err != nil {
		return err
	}
	failed, err := eachSample(c.enc, data, func(smp sample) error {
		if smp.t < h.spec.MinTime || smp.t > h.spec.MaxTime {
			return nil
		}
		return add(smp)
	})
	if failed != nil {
		h.ignored.BadChunks++
	}
	return err
}

// eachSample calls add for the samples of a chunk. failed is the error of decoding the
// chunk, err the error of add.
func eachSample(enc chunkenc.Encoding, data []byte, add func(sample) error) (failed, err error) {
	defer func() {
		if p := recover(); p != nil {
			failed = fmt.Errorf("decode chunk of encoding %s: %v", enc, p)
		}
	}()
	if !known(enc) {
		return fmt.Errorf("the encoding %d is not known", enc), nil
	}
	if err := checkLayout(enc, data); err != nil {
		return err, nil
	}
	chunk, err := chunkenc.FromData(enc, data)
	if err != nil {
		return err, nil
	}
	it := chunk.Iterator(nil)
	for typ := it.Next(); typ != chunkenc.ValNone; typ = it.Next() {
		if err := add(sampleAt(it, typ)); err != nil {
			return nil, err
		}
	}
	return it.Err(), nil
}

// sampleAt returns the current sample of an iterator.
func sampleAt(it chunkenc.Iterator, typ chunkenc.ValueType) sample {
	s := sample{st: it.AtST(), t: it.AtT()}
	switch typ {
	case chunkenc.ValFloat:
		_, s.v = it.At()
	case chunkenc.ValHistogram:
		_, s.h = it.AtHistogram(nil)
	case chunkenc.ValFloatHistogram:
		_, s.fh = it.AtFloatHistogram(nil)
	}
	return s
}

// valueType returns the type of a chunk's samples.
func valueType(enc chunkenc.Encoding) chunkenc.ValueType {
	switch enc {
	case chunkenc.EncHistogram, chunkenc.EncHistogramST:
		return chunkenc.ValHistogram
	case chunkenc.EncFloatHistogram, chunkenc.EncFloatHistogramST:
		return chunkenc.ValFloatHistogram
	}
	return chunkenc.ValFloat
}
