package block

import (
	"errors"
	"fmt"
	"log/slog"
	"unsafe"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/encoding"
	"github.com/prometheus/prometheus/tsdb/record"
	"github.com/prometheus/prometheus/tsdb/tombstones"
)

// headDecoder decodes records with Prometheus' decoder, after it has checked the lengths in them.
// Prometheus' decoder allocates what a length says: a record of thirty bytes can make it run out
// of memory, from which a program cannot recover.
type headDecoder struct {
	lib     record.Decoder
	labels  labels.ScratchBuilder
	samples []record.RefSample
	hists   []record.RefHistogramSample
	fhists  []record.RefFloatHistogramSample
	stones  []tombstones.Stone
}

func newHeadDecoder() headDecoder {
	return headDecoder{
		lib:    record.NewDecoder(nil, slog.New(slog.DiscardHandler)),
		labels: labels.NewScratchBuilder(32),
	}
}

var (
	errTooLong = errors.New("a length exceeds the rest of the record")
	errSpans   = errors.New("the spans of a histogram do not match its buckets")
	errTwice   = errors.New("duplicate label name")
)

// decodeError reports a record that cannot be decoded.
type decodeError struct{ err error }

func (e *decodeError) Error() string { return e.err.Error() }

// undecoded wraps an error, if not nil, in a decodeError.
func undecoded(err error) error {
	if err == nil {
		return nil
	}
	return &decodeError{err}
}

// series calls add for each series of the record. add must not retain the labels. They are
// sorted, although a server keeps the order of a client in its log.
func (d *headDecoder) series(rec []byte, add func(chunks.HeadSeriesRef, labels.Labels) error) error {
	buf := encoding.Decbuf{B: rec[1:]}
	for len(buf.B) > 0 && buf.Err() == nil {
		ref := chunks.HeadSeriesRef(buf.Be64())
		d.labels.Reset()
		last, sorted := "", true
		for i, n := uint64(0), buf.Uvarint64(); i < n && buf.Err() == nil; i++ {
			name, value := borrow(buf.UvarintBytes()), borrow(buf.UvarintBytes())
			sorted = sorted && (i == 0 || name > last)
			last = name
			d.labels.Add(name, value)
		}
		if buf.Err() != nil {
			break
		}
		if !sorted {
			d.labels.Sort()
		}
		lset := d.labels.Labels()
		if _, twice := lset.HasDuplicateLabelNames(); twice {
			return undecoded(errTwice)
		}
		if lset.IsEmpty() {
			return undecoded(errors.New("a series has no labels"))
		}
		if err := add(ref, lset); err != nil {
			return err
		}
	}
	return undecoded(buf.Err())
}

// borrow returns b as a string without a copy, valid as long as b is unchanged.
func borrow(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// floats decodes a record of floats. The samples are valid until the next call.
func (d *headDecoder) floats(rec []byte) (_ []record.RefSample, err error) {
	samples, err := d.lib.Samples(rec, d.samples[:0])
	if err == nil {
		d.samples = samples
	}
	return samples, undecoded(err)
}

// histograms decodes a record of histograms. The samples are valid until the next call.
func (d *headDecoder) histograms(rec []byte) ([]record.RefHistogramSample, error) {
	if err := checkHistograms(rec, record.Type(rec[0]) == record.HistogramSamplesV2, skipHistogram); err != nil {
		return nil, undecoded(err)
	}
	hists, err := d.lib.HistogramSamples(rec, d.hists[:0])
	if err == nil {
		d.hists = hists
	}
	return hists, undecoded(err)
}

// floatHistograms decodes a record of float histograms. The samples are valid until the next
// call.
func (d *headDecoder) floatHistograms(rec []byte) ([]record.RefFloatHistogramSample, error) {
	v2 := record.Type(rec[0]) == record.FloatHistogramSamplesV2
	if err := checkHistograms(rec, v2, skipFloatHistogram); err != nil {
		return nil, undecoded(err)
	}
	hists, err := d.lib.FloatHistogramSamples(rec, d.fhists[:0])
	if err == nil {
		d.fhists = hists
	}
	return hists, undecoded(err)
}

// tombstones decodes a record of tombstones. They are valid until the next call.
func (d *headDecoder) tombstones(rec []byte) ([]tombstones.Stone, error) {
	stones, err := d.lib.Tombstones(rec, d.stones[:0])
	if err == nil {
		d.stones = stones
	}
	return stones, undecoded(err)
}

// checkHistograms checks the lengths of a record of histograms. skip checks one histogram.
func checkHistograms(rec []byte, v2 bool, skip func(*encoding.Decbuf) error) error {
	buf := encoding.Decbuf{B: rec[1:]}
	if buf.Len() == 0 {
		return nil
	}
	if v2 {
		buf.Varint64() // ref
		buf.Varint64() // time
		buf.Varint64() // start time
	} else {
		buf.Be64()
		buf.Be64()
	}
	for i := 0; len(buf.B) > 0 && buf.Err() == nil; i++ {
		if !v2 || i > 0 {
			buf.Varint64()
			buf.Varint64()
		}
		if v2 && i > 0 && buf.Byte() > 1 { // 0: no start time, 1: the same as before
			buf.Varint64()
		}
		if err := skip(&buf); err != nil {
			return fmt.Errorf("histogram %d: %w", i+1, err)
		}
	}
	return buf.Err()
}

// skipHistogram reads a histogram and checks its lengths.
func skipHistogram(buf *encoding.Decbuf) error {
	buf.Byte() // counter reset hint
	schema := int32(buf.Varint64())
	buf.Be64()      // zero threshold
	buf.Uvarint64() // zero count
	buf.Uvarint64() // count
	buf.Be64()      // sum
	return skipBuckets(buf, schema, 1, func() { buf.Varint64() })
}

// skipFloatHistogram reads a float histogram and checks its lengths.
func skipFloatHistogram(buf *encoding.Decbuf) error {
	buf.Byte()
	schema := int32(buf.Varint64())
	for range 4 {
		buf.Be64()
	}
	return skipBuckets(buf, schema, 8, func() { buf.Be64() })
}

// skipBuckets reads spans and buckets. It checks that every length is within the record, and
// that the spans have as many buckets as follow, because encoders allocate the buckets of the
// spans.
func skipBuckets(buf *encoding.Decbuf, schema int32, bucketBytes int, skip func()) error {
	var inSpans [2]uint64
	for i := range inSpans {
		n, err := fits(buf, 2)
		if err != nil {
			return err
		}
		for j := range n {
			if offset := int32(buf.Varint64()); j > 0 && offset < 0 {
				return errSpans
			}
			inSpans[i] += uint64(buf.Uvarint32())
		}
	}
	for i := range inSpans {
		n, err := fits(buf, bucketBytes)
		if err != nil {
			return err
		}
		for range n {
			skip()
		}
		if buf.Err() == nil && inSpans[i] != uint64(n) {
			return errSpans
		}
	}
	if histogram.IsCustomBucketsSchema(schema) {
		n, err := fits(buf, 8)
		if err != nil {
			return err
		}
		for range n {
			buf.Be64()
		}
	}
	return buf.Err()
}

// fits reads the number of following elements of at least size bytes. It returns errTooLong if
// the rest of the record is too short for them.
func fits(buf *encoding.Decbuf, size int) (int, error) {
	n := buf.Uvarint64()
	if n > uint64(len(buf.B)/size) {
		return 0, errTooLong
	}
	return int(n), nil
}
