package query

import (
	"cmp"
	"net/http"
	"slices"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"google.golang.org/protobuf/proto"
)

// federate gives the last samples of the dump as text. Native histograms have no
// text, so they are left out, as a Prometheus does that is asked for text.
func (s *Server) federate(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	var all promql.Vector
	seen := map[uint64]bool{}
	for _, selector := range r.Form["match[]"] {
		if _, err := NewParser().ParseMetricSelector(selector); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		// A selector is a query for the last sample that is not too old.
		a, release, err := s.config.View.Ask(r.Context(), s.engine, Question{Expr: selector, End: s.now()})
		if err != nil {
			http.Error(w, err.Error(), http.StatusUnprocessableEntity)
			return
		}
		vector, _ := a.Value.(promql.Vector)
		for _, sample := range vector {
			if h := sample.Metric.Hash(); sample.H == nil && !seen[h] {
				seen[h] = true
				all = append(all, sample)
			}
		}
		release()
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

func metricOf(s promql.Sample) *dto.Metric {
	m := &dto.Metric{Untyped: &dto.Untyped{Value: proto.Float64(s.F)}, TimestampMs: proto.Int64(s.T)}
	s.Metric.Range(func(l labels.Label) {
		if l.Name != model.MetricNameLabel {
			m.Label = append(m.Label, &dto.LabelPair{Name: proto.String(l.Name), Value: proto.String(l.Value)})
		}
	})
	return m
}
