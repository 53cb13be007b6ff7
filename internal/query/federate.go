package query

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"net/http"
	"slices"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"google.golang.org/protobuf/proto"
)

// federate writes the last samples of the dump as text. It leaves native histograms out,
// which have no text form, as Prometheus does for clients that accept text.
func (s *Server) federate(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	matchers, err := NewParser().ParseMetricSelectors(r.Form["match[]"])
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	all, err := s.last(r.Context(), matchers)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	slices.SortFunc(all, func(a, b promql.Sample) int {
		return cmp.Or(cmp.Compare(a.Metric.Get(model.MetricNameLabel), b.Metric.Get(model.MetricNameLabel)), labels.Compare(a.Metric, b.Metric))
	})
	w.Header().Set("Content-Type", string(expfmt.NewFormat(expfmt.TypeTextPlain)))
	before := ""
	for part := range slices.Chunk(all, familyPart) {
		for len(part) > 0 {
			name := part[0].Metric.Get(model.MetricNameLabel)
			end := slices.IndexFunc(part, func(x promql.Sample) bool { return x.Metric.Get(model.MetricNameLabel) != name })
			if end < 0 {
				end = len(part)
			}
			if name != "" {
				err = writeFamily(w, name, part[:end], name == before)
			}
			before, part = name, part[end:]
			if err = cmp.Or(err, r.Context().Err()); err != nil {
				s.config.Logger.Debug("federate", "error", err)
				return
			}
		}
	}
}

// familyPart is how many samples are encoded at once.
const familyPart = 1000

// writeFamily writes samples of one metric. The type line is not repeated if the part
// before had the same metric.
func writeFamily(w io.Writer, name string, samples []promql.Sample, goesOn bool) error {
	family := &dto.MetricFamily{Name: proto.String(name), Type: dto.MetricType_UNTYPED.Enum()}
	for _, sample := range samples {
		family.Metric = append(family.Metric, metricOf(sample))
	}
	var text bytes.Buffer
	if err := expfmt.NewEncoder(&text, expfmt.NewFormat(expfmt.TypeTextPlain)).Encode(family); err != nil {
		return err
	}
	if goesOn {
		if _, err := text.ReadBytes('\n'); err != nil {
			return err
		}
	}
	_, err := text.WriteTo(w)
	return err
}

// last gives the last samples that are not too old at the end of the dump, with
// their own times.
func (s *Server) last(ctx context.Context, matchers [][]*labels.Matcher) (all promql.Vector, err error) {
	end := s.now().UnixMilli()
	hints := &storage.SelectHints{Start: end - s.config.Limits.Lookback.Milliseconds() + 1, End: end}
	q, err := s.meter.Querier(hints.Start, hints.End)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, q.Close()) }()
	var sets []storage.SeriesSet
	for _, list := range matchers {
		sets = append(sets, q.Select(ctx, true, hints, list...))
	}
	set := storage.NewMergeSeriesSet(sets, 0, storage.ChainedSeriesMerge)
	var it chunkenc.Iterator
	for set.Next() {
		it = set.At().Iterator(it)
		sample, float := promql.Sample{Metric: set.At().Labels()}, false
		for kind := it.Next(); kind != chunkenc.ValNone; kind = it.Next() {
			if float = kind == chunkenc.ValFloat; float {
				sample.T, sample.F = it.At()
			}
		}
		if it.Err() != nil {
			return nil, it.Err()
		}
		if float && !value.IsStaleNaN(sample.F) {
			all = append(all, sample)
		}
	}
	return all, set.Err()
}

func metricOf(s promql.Sample) *dto.Metric {
	m := &dto.Metric{Untyped: &dto.Untyped{Value: proto.Float64(s.F)}, TimestampMs: proto.Int64(s.T)}
	s.Metric.Range(func(l labels.Label) {
		if l.Name != model.MetricNameLabel {
			m.Label = append(m.Label, &dto.LabelPair{Name: proto.String(l.Name), Value: proto.String(l.Value)})
		}
	})
	return m
}
