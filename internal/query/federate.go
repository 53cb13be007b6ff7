package query

import (
	"cmp"
	"context"
	"errors"
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

// federate gives the last samples of the dump as text. Native histograms have no
// text, so they are left out, as a Prometheus does that is asked for text.
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
	format := expfmt.NewFormat(expfmt.TypeTextPlain)
	w.Header().Set("Content-Type", string(format))
	enc := expfmt.NewEncoder(w, format)
	for len(all) > 0 {
		name := all[0].Metric.Get(model.MetricNameLabel)
		end := slices.IndexFunc(all, func(x promql.Sample) bool { return x.Metric.Get(model.MetricNameLabel) != name })
		if end < 0 {
			end = len(all)
		}
		family := &dto.MetricFamily{Name: proto.String(name), Type: dto.MetricType_UNTYPED.Enum()}
		for _, sample := range all[:end] {
			family.Metric = append(family.Metric, metricOf(sample))
		}
		all = all[end:]
		if name == "" {
			continue
		}
		if err := enc.Encode(family); err != nil {
			s.config.Logger.Debug("federate", "error", err)
			return
		}
	}
}

// last gives the last samples that are not too old at the end of the dump, with
// their own times.
func (s *Server) last(ctx context.Context, matchers [][]*labels.Matcher) (all promql.Vector, err error) {
	end := s.now().UnixMilli()
	hints := &storage.SelectHints{Start: end - s.config.Limits.Lookback.Milliseconds() + 1, End: end}
	q, err := s.config.View.Querier(hints.Start, hints.End)
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
