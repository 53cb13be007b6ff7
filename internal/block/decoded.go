package block

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
)

// decoded is a decoded sample: a histogram, a float histogram, or a float if both are nil.
type decoded struct {
	st, t int64 // start time and time, Unix milliseconds
	v     float64
	h     *histogram.Histogram
	fh    *histogram.FloatHistogram
	enc   chunkenc.Encoding // of the chunk
}

// decode appends to dst the samples of a chunk for which keep returns true. It never panics.
func (c *cutter) decode(dst []decoded, enc chunkenc.Encoding, data []byte,
	keep func(t int64) bool,
) (_ []decoded, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("decode chunk of encoding %s: %v", enc, p)
			delete(c.in, enc) // its state is unknown
		}
	}()
	it, err := c.read(enc, data)
	if err != nil {
		return dst, fmt.Errorf("decode chunk of encoding %s: %w", enc, err)
	}
	gauge := isGauge(enc, data)
	for typ := it.Next(); typ != chunkenc.ValNone; typ = it.Next() {
		s := decoded{st: it.AtST(), t: it.AtT(), enc: enc}
		if !keep(s.t) {
			continue
		}
		switch typ {
		case chunkenc.ValFloat:
			_, s.v = it.At()
		case chunkenc.ValHistogram:
			_, s.h = it.AtHistogram(nil)
			s.h = s.h.Copy()
			if s.h.CounterResetHint = histogram.UnknownCounterReset; gauge {
				s.h.CounterResetHint = histogram.GaugeType
			}
		case chunkenc.ValFloatHistogram:
			_, s.fh = it.AtFloatHistogram(nil)
			s.fh = s.fh.Copy()
			if s.fh.CounterResetHint = histogram.UnknownCounterReset; gauge {
				s.fh.CounterResetHint = histogram.GaugeType
			}
		}
		dst = append(dst, s)
	}
	if err := it.Err(); err != nil {
		return dst, fmt.Errorf("decode chunk of encoding %s: %w", enc, err)
	}
	return dst, nil
}

// samplesPerChunk is the number of samples of a chunk, as in Prometheus' head. Samples with the
// time of the last one are added to the same chunk.
const samplesPerChunk = 120

// encodeSorted sorts samples by time and appends chunks of them to dst. Chunks must not touch:
// if samples with the same time do not fit into one chunk, it keeps the first of them. It never
// panics.
func encodeSorted(dst []chunks.Meta, all []decoded) (_ []chunks.Meta, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("encode samples: %v", p)
		}
	}()
	slices.SortStableFunc(all, func(a, b decoded) int { return cmp.Compare(a.t, b.t) })
	var app chunkenc.Appender
	first := len(dst)
	begin := func(s decoded) error {
		chunk, err := chunkenc.NewEmptyChunk(s.enc)
		if err != nil {
			return err
		}
		app, err = chunk.Appender()
		dst = append(dst, chunks.Meta{MinTime: s.t, MaxTime: s.t, Chunk: chunk})
		return err
	}
	for _, s := range all {
		fresh := len(dst) == first
		if !fresh {
			last := &dst[len(dst)-1]
			n := last.Chunk.NumSamples()
			fresh = s.enc != last.Chunk.Encoding() || n >= samplesPerChunk && s.t > last.MaxTime
			if s.t == last.MaxTime && (fresh || n >= 1<<13) {
				continue
			}
		}
		if fresh {
			if err := begin(s); err != nil {
				return dst, err
			}
		}
		last := &dst[len(dst)-1]
		// The appender returns a new chunk in two cases: the old one with a wider layout, or
		// the next one.
		var next chunkenc.Chunk
		var wider bool
		was := app
		switch {
		case s.h != nil:
			next, wider, app, err = app.AppendHistogram(nil, s.st, s.t, s.h, false)
		case s.fh != nil:
			next, wider, app, err = app.AppendFloatHistogram(nil, s.st, s.t, s.fh, false)
		default:
			app.Append(s.st, s.t, s.v)
		}
		switch {
		case err != nil:
			return dst, err
		case next != nil && wider:
			last.Chunk = next
		case next != nil && s.t == last.MaxTime:
			app = was
			continue
		case next != nil:
			dst = append(dst, chunks.Meta{MinTime: s.t, Chunk: next})
			last = &dst[len(dst)-1]
		}
		last.MaxTime = s.t
	}
	return dst, nil
}
