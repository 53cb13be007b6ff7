package slice

import (
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/record"
)

// kind is what the newest sample of a series was.
type kind int

const (
	floatKind kind = iota
	histogramKind
	floatHistogramKind
)

// kinds remembers which series last had a histogram. The log has every stale
// marker as a float; Prometheus stores it as a histogram where the sample
// before it was one (tsdb/head_wal.go, appendWALFloat). That sample may lie
// outside of the selection, so only who sees the whole log can tell.
type kinds struct{ hists, floats refSet }

// float gives the kind that a float sample is stored as, and remembers it.
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

// chunk remembers the encoding of a series' newest m-mapped chunk. Replay looks at
// it where the log does not have the histograms before a stale marker any more.
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

// staleHistogram keeps a stale marker as the histogram that it is stored as.
func (f *filter) staleHistogram(s record.RefSample, k kind, v2 bool) {
	if k == histogramKind {
		f.encodeHistograms([]record.RefHistogramSample{{Ref: s.Ref, ST: s.ST, T: s.T, H: &histogram.Histogram{Sum: s.V}}}, v2)
		return
	}
	f.encodeFloatHistograms([]record.RefFloatHistogramSample{{Ref: s.Ref, ST: s.ST, T: s.T, FH: &histogram.FloatHistogram{Sum: s.V}}}, v2)
}
