package block

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/encoding"
	"github.com/prometheus/prometheus/tsdb/record"
	"github.com/prometheus/prometheus/tsdb/tombstones"
)

// merger reads the chunks of series from the spools. It reuses its slices.
type merger struct {
	spool      *spool
	mapped     *mappedChunks // nil if there are none
	blockRange int64

	cut   cutter
	arena []byte // data of unchanged chunks
	raw   []rawChunk
	metas []chunks.Meta
	buf   []byte
	late  []sample
}

// window returns the series' chunks from start to last, sorted by time and without overlap. They
// are valid until the next call. The windows of a series must be read in the order of time.
func (m *merger) window(s *headSeries, start, last int64) ([]chunks.Meta, error) {
	m.cut.release()
	n := 0 // chunks never cross the border of a window
	size := 0
	for n < len(s.chunks) && s.chunks[n].mint <= last {
		size += int(s.chunks[n].size)
		n++
	}
	refs := s.chunks[:n]
	s.chunks = s.chunks[n:]

	m.arena = slices.Grow(m.arena[:0], size)[:size]
	m.raw = slices.Grow(m.raw[:0], n)[:n]
	m.metas = m.metas[:0]
	rest := m.arena
	for i, ref := range refs {
		data := rest[:ref.size:ref.size]
		rest = rest[ref.size:]
		from := m.spool
		if ref.mapped {
			from = m.mapped.spool
		}
		if err := from.read(ref, data); err != nil {
			return nil, err
		}
		m.raw[i] = rawChunk{enc: ref.enc, data: data}
		m.metas = append(m.metas, chunks.Meta{MinTime: ref.mint, MaxTime: ref.maxt, Chunk: &m.raw[i]})
	}
	if s.rare == nil {
		return m.metas, nil
	}

	metas, err := m.withoutDeleted(m.metas, s.rare.deleted)
	if err != nil {
		return nil, err
	}
	if err := m.readLate(s.rare, start, last); err != nil {
		return nil, err
	}
	if len(m.late) == 0 {
		return metas, nil
	}
	return m.merge(metas, m.late)
}

// withoutDeleted removes the samples in the given intervals.
func (m *merger) withoutDeleted(metas []chunks.Meta, drop tombstones.Intervals) (kept []chunks.Meta, err error) {
	if len(drop) == 0 {
		return metas, nil
	}
	touched := false
	for _, meta := range metas {
		hit := slices.ContainsFunc(drop, func(iv tombstones.Interval) bool {
			return iv.Mint <= meta.MaxTime && meta.MinTime <= iv.Maxt
		})
		if !hit {
			if touched {
				clearCounterReset(meta.Chunk)
			}
			touched = false
			kept = append(kept, meta)
			continue
		}
		touched = true
		if kept, err = m.cut.cut(kept, meta.Chunk.Encoding(), meta.Chunk.Bytes(), drop); err != nil {
			return nil, err
		}
	}
	return kept, nil
}

// readLate decodes the out-of-order samples from start to last into m.late: sorted by time, the
// first of each time, without deleted ones.
func (m *merger) readLate(r *rareParts, start, last int64) error {
	m.late = m.late[:0]
	for _, ref := range r.late {
		if ref.mint > last || ref.maxt < start {
			continue
		}
		m.buf = slices.Grow(m.buf[:0], int(ref.size))[:ref.size]
		if err := m.spool.read(ref, m.buf); err != nil {
			return err
		}
		buf := encoding.Decbuf{B: m.buf}
		for len(buf.B) > 0 {
			smp, err := decodeSample(&buf)
			if err != nil {
				return fmt.Errorf("read spool: %w", err)
			}
			if smp.t >= start && smp.t <= last && !deleted(r.deleted, smp.t) {
				m.late = append(m.late, smp)
			}
		}
	}
	slices.SortStableFunc(m.late, func(a, b sample) int {
		switch {
		case a.t < b.t:
			return -1
		case a.t > b.t:
			return 1
		}
		return 0
	})
	m.late = slices.CompactFunc(m.late, func(a, b sample) bool { return a.t == b.t })
	return nil
}

// merge inserts out-of-order samples between those of chunks. It copies a chunk unchanged if no
// out-of-order sample lies between its ends. A sample of a chunk wins over an out-of-order one
// with the same time.
func (m *merger) merge(metas []chunks.Meta, late []sample) ([]chunks.Meta, error) {
	var (
		to      metaSink
		open    openChunk
		touched bool // the previous chunk has changed
	)
	add := func(s sample) error {
		touched = true
		return open.add(s, m.blockRange, &to)
	}
	lateUntil := func(t int64) error { // adds those before t
		for len(late) > 0 && late[0].t < t {
			if err := add(late[0]); err != nil {
				return err
			}
			late = late[1:]
		}
		return nil
	}
	for _, meta := range metas {
		if err := lateUntil(meta.MinTime); err != nil {
			return nil, err
		}
		if len(late) == 0 || late[0].t > meta.MaxTime {
			if err := open.end(&to); err != nil {
				return nil, err
			}
			if touched {
				clearCounterReset(meta.Chunk)
			}
			open, touched = openChunk{}, false
			to.metas = append(to.metas, meta)
			continue
		}
		it, err := m.cut.read(meta.Chunk.Encoding(), meta.Chunk.Bytes())
		if err != nil {
			return nil, err
		}
		for typ := it.Next(); typ != chunkenc.ValNone; typ = it.Next() {
			s := sampleAt(it, typ)
			if err := lateUntil(s.t); err != nil {
				return nil, err
			}
			if len(late) > 0 && late[0].t == s.t {
				late = late[1:]
			}
			if err := add(s); err != nil {
				return nil, err
			}
		}
		if err := it.Err(); err != nil {
			return nil, err
		}
	}
	if err := lateUntil(math.MaxInt64); err != nil {
		return nil, err
	}
	for _, s := range late { // at math.MaxInt64
		if err := add(s); err != nil {
			return nil, err
		}
	}
	return to.metas, open.end(&to)
}

// metaSink collects finished chunks in memory.
type metaSink struct{ metas []chunks.Meta }

func (k *metaSink) take(o *openChunk) error {
	k.metas = append(k.metas, chunks.Meta{MinTime: o.mint, MaxTime: o.maxt, Chunk: o.chunk})
	o.chunk = nil // retained in k.metas: must not be reused
	return nil
}

// clearCounterReset sets the counter reset header of a chunk to unknown unless it has gauges. The
// sample before the chunk has changed, so queries must detect a reset themselves.
func clearCounterReset(chunk chunkenc.Chunk) {
	b := counterResetHeader(chunk.Encoding(), chunk.Bytes())
	if b != nil && chunkenc.CounterResetHeader(*b&chunkenc.CounterResetHeaderMask) != chunkenc.GaugeType {
		*b &^= chunkenc.CounterResetHeaderMask
	}
}

// appendSample encodes a sample for the spool.
func appendSample(b []byte, s sample) []byte {
	buf := encoding.Encbuf{B: append(b, byte(s.valueType()))}
	buf.PutVarint64(s.st)
	buf.PutVarint64(s.t)
	switch {
	case s.h != nil:
		record.EncodeHistogram(&buf, s.h)
	case s.fh != nil:
		record.EncodeFloatHistogram(&buf, s.fh)
	default:
		buf.B = binary.BigEndian.AppendUint64(buf.B, math.Float64bits(s.v))
	}
	return buf.Get()
}

// decodeSample decodes a sample of the spool.
func decodeSample(buf *encoding.Decbuf) (s sample, err error) {
	typ := chunkenc.ValueType(buf.Byte())
	s.st, s.t = buf.Varint64(), buf.Varint64()
	switch typ {
	case chunkenc.ValFloat:
		s.v = math.Float64frombits(buf.Be64())
	case chunkenc.ValHistogram:
		s.h = &histogram.Histogram{}
		record.DecodeHistogram(buf, s.h)
	case chunkenc.ValFloatHistogram:
		s.fh = &histogram.FloatHistogram{}
		record.DecodeFloatHistogram(buf, s.fh)
	default:
		return s, errors.New("unknown sample type")
	}
	return s, buf.Err()
}
