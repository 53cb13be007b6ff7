package remoteread

import (
	"bufio"
	"fmt"
	"io"
	"slices"

	"github.com/klauspost/compress/snappy"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"

	"github.com/promdump/promdump/internal/wire"
)

// An answer with samples is all in memory on both sides, so it must be small.
const (
	maxPacked   = 32 << 20
	maxUnpacked = 64 << 20
)

// takeSamples encodes the samples of an answer into chunks of 120, as Prometheus
// does.
func takeSamples(body io.Reader, all []query, r span, to *spool) error {
	buf := bufio.NewReader(body)
	if err := otherAnswer(buf); err != nil {
		return err
	}
	packed, err := io.ReadAll(io.LimitReader(buf, maxPacked+1))
	if err != nil {
		return err
	}
	size, err := snappy.DecodedLen(packed)
	if len(packed) > maxPacked || err == nil && size > maxUnpacked {
		return &tooMuch{fmt.Errorf("an answer with samples of more than %d MiB", maxUnpacked>>20)}
	}
	if err != nil {
		return &FrameError{err.Error()}
	}
	plain, err := snappy.Decode(nil, packed)
	if err != nil {
		return &FrameError{err.Error()}
	}
	var answer prompb.ReadResponse
	if err := answer.Unmarshal(plain); err != nil {
		return &FrameError{err.Error()}
	}
	if len(answer.Results) < len(all) {
		return &FrameError{fmt.Sprintf("it answers %d of %d queries", len(answer.Results), len(all))}
	}
	var key, chunked []byte
	for i, q := range all {
		if err := to.begin(); err != nil {
			return err
		}
		for _, ts := range answer.Results[i].GetTimeseries() {
			if key, err = appendKey(key[:0], ts.Labels, q.strip); err != nil {
				return err
			}
			if chunked, err = encode(chunked[:0], ts, r); err != nil {
				return err
			}
			if len(chunked) == 0 {
				continue
			}
			if err := to.add(key, chunked); err != nil {
				return err
			}
		}
	}
	return nil
}

// encode appends the samples of a range as chunks. It never panics.
func encode(b []byte, ts *prompb.TimeSeries, r span) (_ []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &FrameError{fmt.Sprintf("its samples cannot be encoded: %v", p)}
		}
	}()
	list := make([]chunks.Sample, 0, len(ts.Samples)+len(ts.Histograms))
	for _, s := range ts.Samples {
		if s.Timestamp >= r.min && s.Timestamp <= r.max {
			list = append(list, sample{t: s.Timestamp, f: s.Value})
		}
	}
	for _, h := range ts.Histograms {
		if h.Timestamp < r.min || h.Timestamp > r.max {
			continue
		}
		s := sample{t: h.Timestamp}
		if h.IsFloatHistogram() {
			s.fh = h.ToFloatHistogram()
			err = s.fh.Validate()
		} else {
			s.h = h.ToIntHistogram()
			err = s.h.Validate()
		}
		if err != nil {
			return b, &FrameError{fmt.Sprintf("a histogram at %d: %v", h.Timestamp, err)}
		}
		list = append(list, s)
	}
	// Floats come before histograms, and of two at one time the float is the one.
	slices.SortStableFunc(list, func(x, y chunks.Sample) int { return int(min(max(x.T()-y.T(), -1), 1)) })
	list = slices.CompactFunc(list, func(x, y chunks.Sample) bool { return x.T() == y.T() })
	it := storage.NewSeriesToChunkEncoder(storage.NewListSeries(labels.EmptyLabels(), list)).Iterator(nil)
	for it.Next() {
		m := it.At()
		b = appendChunk(b, wire.Chunk{MinTime: m.MinTime, MaxTime: m.MaxTime, Encoding: uint8(m.Chunk.Encoding()), Data: m.Chunk.Bytes()})
	}
	if err := it.Err(); err != nil {
		return b, &FrameError{fmt.Sprintf("its samples cannot be encoded: %v", err)}
	}
	return b, nil
}

// sample is a sample as chunks.Sample has it.
type sample struct {
	t  int64
	f  float64
	h  *histogram.Histogram
	fh *histogram.FloatHistogram
}

func (s sample) T() int64                      { return s.t }
func (s sample) ST() int64                     { return 0 }
func (s sample) F() float64                    { return s.f }
func (s sample) H() *histogram.Histogram       { return s.h }
func (s sample) FH() *histogram.FloatHistogram { return s.fh }
func (s sample) Copy() chunks.Sample           { return s }

func (s sample) Type() chunkenc.ValueType {
	switch {
	case s.h != nil:
		return chunkenc.ValHistogram
	case s.fh != nil:
		return chunkenc.ValFloatHistogram
	}
	return chunkenc.ValFloat
}
