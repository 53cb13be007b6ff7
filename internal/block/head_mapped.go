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

// mappedChunks has the m-mapped chunks of a head. They are added before the records that have the
// labels of their series. All shards read them.
type mappedChunks struct {
	spool    *spool
	byRef    map[chunks.HeadSeriesRef]*mappedSeries
	replaced uint64 // number of samples in replaced chunks
	sealed   bool   // no more chunks can be added
}

// mappedSeries has the m-mapped chunks of one ref.
type mappedSeries struct {
	inOrder []spooledRef // sorted by time, without overlap
	late    []spooledRef // out-of-order chunks
	samples uint64       // in inOrder
	claimed atomic.Bool  // a series record has the ref
}

// Chunks adds m-mapped chunks, in the order in which the server wrote them. All chunks
// must be added before the first records. m is not retained.
func (h *HeadBuilder) Chunks(m *wire.HeadChunks) error {
	if err := h.firstError(); err != nil {
		return err
	}
	if h.mapped.sealed {
		return errors.New("build head: received m-mapped chunks after records")
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

// add adds a chunk.
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
		// Not counted in samples: the chunk stays in its file after a block has its samples
		// and the server has removed its series.
		s.late = append(s.late, ref)
		return nil
	case last >= 0 && s.inOrder[last].maxt >= c.MinTime && slices.ContainsFunc(s.inOrder, again):
		return nil // the same chunk again, from a copied file
	case last >= 0 && s.inOrder[last].maxt >= c.MinTime:
		// A server writes the chunks of a series in the order of time. After a repair that
		// lost series records it reuses their refs for new series: the older chunks belong
		// to a series without a record.
		m.replaced += s.samples
		s.samples, s.late, s.inOrder = 0, nil, []spooledRef{ref}
	default:
		s.inOrder = append(s.inOrder, ref)
	}
	s.samples += n
	return nil
}

// seal must be called after the last add and before the first read. It may be called more than
// once.
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

// unclaimed returns the number of in-order samples of chunks without a series record.
func (m *mappedChunks) unclaimed() uint64 {
	n := m.replaced
	for _, s := range m.byRef {
		if !s.claimed.Load() {
			n += s.samples
		}
	}
	return n
}

// claim adds the m-mapped chunks of a ref to the series of its record.
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
		// A series that the server removed from the head and added again has two refs.
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
	// These chunks begin before samples that the log has added already. As out-of-order
	// samples they cannot replace those: merge keeps the in-order ones.
	for len(s.mapped) > 0 && s.mapped[0].mint <= s.lastT {
		if err := h.addLateChunk(s, s.mapped[0]); err != nil {
			return err
		}
		s.mapped = s.mapped[1:]
	}
	s.lookAhead()
	return nil
}

// mergeByTime merges two lists that are sorted by time.
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

// lookAhead copies the times of the next m-mapped chunk into the series. This makes the check
// for each sample cheap.
func (s *headSeries) lookAhead() {
	s.nextMin, s.nextMax = math.MaxInt64, math.MaxInt64
	if len(s.mapped) > 0 {
		s.nextMin, s.nextMax = s.mapped[0].mint, s.mapped[0].maxt
	}
}

// passMapped adds the m-mapped chunks that end before t to s.chunks. It reports whether the next
// chunk covers t, and so has the sample of time t.
func (h *headShard) passMapped(s *headSeries, t int64) (covered bool, err error) {
	for len(s.mapped) > 0 && s.mapped[0].maxt < t {
		if err := h.takeMapped(s); err != nil {
			return false, err
		}
	}
	return len(s.mapped) > 0 && s.mapped[0].mint <= t, nil
}

// takeMapped adds the next m-mapped chunk to s.chunks. It copies the chunk unchanged unless it
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
	s.open.app = nil // the next sample follows this chunk, not the open one
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

// eachSample calls add for each sample of an m-mapped chunk in the builder's range. It counts a
// chunk that cannot be decoded, after it has added the samples before the error.
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

// eachSample calls add for each sample of a chunk. failed is the failure to decode the chunk, err
// the error of add.
func eachSample(enc chunkenc.Encoding, data []byte, add func(sample) error) (failed, err error) {
	defer func() {
		if p := recover(); p != nil {
			failed = fmt.Errorf("decode chunk of encoding %s: %v", enc, p)
		}
	}()
	if !known(enc) {
		return fmt.Errorf("unknown encoding %d", enc), nil
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
