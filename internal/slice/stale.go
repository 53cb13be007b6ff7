package slice

import (
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/record"
)

// kind is the type of the newest sample of a series.
type kind int

const (
	floatKind kind = iota
	histogramKind
	floatHistogramKind
)

// kinds records which series have a histogram as their newest sample. The log has every
// stale marker as a float. Prometheus stores it as a histogram if the sample before it was
// one (tsdb/head_wal.go, appendWALFloat). That sample may be outside the selection, so the
// receiver cannot know it.
type kinds struct{ hists, floats refSet }

// float records a float sample and returns the kind that Prometheus stores it as.
func (k *kinds) float(ref uint64, v float64) kind {
	if len(k.hists) == 0 && len(k.floats) == 0 {
		return floatKind
	}
	last := floatKind
	switch {
	case k.hists.has(ref):
		last = histogramKind
	case k.floats.has(ref):
		last = floatHistogramKind
	}
	if last != floatKind && !value.IsStaleNaN(v) {
		k.hists.clear(ref)
		k.floats.clear(ref)
		return floatKind
	}
	return last
}

// chunk records the kind of a series' newest m-mapped chunk. Replay uses it if the log no
// longer has the histogram before a stale marker.
func (k *kinds) chunk(ref uint64, enc chunkenc.Encoding) {
	k.hists.clear(ref)
	k.floats.clear(ref)
	switch enc {
	case chunkenc.EncHistogram, chunkenc.EncHistogramST:
		k.hists.set(ref)
	case chunkenc.EncFloatHistogram, chunkenc.EncFloatHistogramST:
		k.floats.set(ref)
	}
}

// staleHistogram keeps a stale marker as a histogram of kind k.
func (f *filter) staleHistogram(s record.RefSample, k kind, v2 bool) {
	if k == histogramKind {
		h := record.RefHistogramSample{Ref: s.Ref, ST: s.ST, T: s.T, H: &histogram.Histogram{Sum: s.V}}
		f.encodeHistograms([]record.RefHistogramSample{h}, v2)
		return
	}
	h := record.RefFloatHistogramSample{Ref: s.Ref, ST: s.ST, T: s.T, FH: &histogram.FloatHistogram{Sum: s.V}}
	f.encodeFloatHistograms([]record.RefFloatHistogramSample{h}, v2)
}
