package cli

import (
	"cmp"
	"encoding/csv"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"

	"github.com/promdump/promdump/internal/term"
)

// row is one value of an answer.
type row struct {
	labels labels.Labels
	ms     int64
	value  string
	short  string // a short form of a long value; else empty
}

// each gives the values of an answer, in its order.
func (q asked) each(f func(row) error) error {
	switch v := q.Value.(type) {
	case promql.Scalar:
		return f(row{ms: v.T, value: number(v.V)})
	case promql.String:
		return f(row{ms: v.T, value: v.V})
	case promql.Vector:
		for _, s := range v {
			if err := f(rowOf(s.Metric, s.T, s.F, s.H)); err != nil {
				return err
			}
		}
	case promql.Matrix:
		for _, s := range v {
			if err := eachOf(s, f); err != nil {
				return err
			}
		}
	default:
		return fmt.Errorf("an answer of type %s is not known", q.Value.Type())
	}
	return nil
}

// eachOf gives a series' samples in the order of time: floats and histograms are
// two lists.
func eachOf(s promql.Series, f func(row) error) error {
	floats, histograms := s.Floats, s.Histograms
	for len(floats) > 0 || len(histograms) > 0 {
		var r row
		if len(histograms) == 0 || len(floats) > 0 && floats[0].T <= histograms[0].T {
			r, floats = rowOf(s.Metric, floats[0].T, floats[0].F, nil), floats[1:]
		} else {
			r, histograms = rowOf(s.Metric, histograms[0].T, 0, histograms[0].H), histograms[1:]
		}
		if err := f(r); err != nil {
			return err
		}
	}
	return nil
}

func rowOf(metric labels.Labels, ms int64, v float64, h *histogram.FloatHistogram) row {
	if h == nil {
		return row{labels: metric, ms: ms, value: number(v)}
	}
	buckets := 0
	for it := h.AllBucketIterator(); it.Next(); {
		buckets++
	}
	short := fmt.Sprintf("count %s, sum %s", term.Number(h.Count), term.Number(h.Sum))
	if h.Count > 0 {
		short += ", average " + term.Number(h.Sum/h.Count)
	}
	return row{labels: metric, ms: ms, value: h.String(), short: short + ", " + term.Counted(buckets, "bucket", "buckets")}
}

// number is exact, as Prometheus' API has it.
func number(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }

func (a *app) printAnswerJSON(q asked) error { return q.WriteJSON(a.Out) }

func (a *app) printAnswerTable(q asked) error {
	var rows [][]string
	_, matrix := q.Value.(promql.Matrix)
	err := q.each(func(r row) error {
		name := r.labels.String()
		value := cmp.Or(r.short, r.value)
		if matrix {
			rows = append(rows, []string{name, term.Time(r.ms), value})
		} else {
			rows = append(rows, []string{name, value})
		}
		return nil
	})
	if err != nil {
		return err
	}
	switch q.Value.(type) {
	case promql.Scalar, promql.String:
		_, err := fmt.Fprintln(a.Out, term.Printable(rows[0][1]))
		return err
	}
	if len(rows) == 0 {
		a.summary("the result is empty at %s", a.when(q))
		return nil
	}
	columns := []term.Column{{Name: "SERIES"}, {Name: "VALUE", Right: true}}
	if matrix {
		columns = []term.Column{{Name: "SERIES"}, {Name: "TIME"}, {Name: "VALUE", Right: true}}
	} else {
		a.summary("at %s", a.when(q))
	}
	return term.Table(a.Out, columns, rows)
}

func (a *app) when(q asked) string {
	if q.Step == 0 {
		return term.Time(q.End.UnixMilli())
	}
	return fmt.Sprintf("%s to %s, every %s", term.Time(q.Start.UnixMilli()), term.Time(q.End.UnixMilli()), q.Step)
}

// printAnswerCSV has a column for each label, so that it can be filtered by them.
func (a *app) printAnswerCSV(q asked) error {
	names := map[string]bool{}
	if err := q.each(func(r row) error {
		r.labels.Range(func(l labels.Label) { names[l.Name] = true })
		return nil
	}); err != nil {
		return err
	}
	columns := slices.Sorted(maps.Keys(names))
	w := csv.NewWriter(a.Out)
	if err := w.Write(append([]string{"time", "value"}, columns...)); err != nil {
		return err
	}
	record := make([]string, 2+len(columns))
	err := q.each(func(r row) error {
		record[0], record[1] = term.TimeMillis(r.ms), r.value
		for i, name := range columns {
			record[2+i] = r.labels.Get(name)
		}
		return w.Write(record)
	})
	w.Flush()
	if err != nil {
		return err
	}
	return w.Error()
}

func (a *app) printAnswerGraph(q asked) error {
	matrix, ok := q.Value.(promql.Matrix)
	if !ok {
		return fmt.Errorf("an answer of type %s cannot be drawn", q.Value.Type())
	}
	var lines []term.Line
	var metrics []labels.Labels
	histograms := 0
	for _, s := range matrix {
		histograms += len(s.Histograms)
		if len(s.Floats) == 0 {
			continue
		}
		l := term.Line{Name: s.Metric.String()}
		metrics = append(metrics, s.Metric)
		for _, p := range s.Floats {
			l.Points = append(l.Points, term.Point{Ms: p.T, V: p.F})
		}
		lines = append(lines, l)
	}
	if histograms > 0 {
		a.notes([]string{fmt.Sprintf("%s cannot be drawn and are left out: histogram_quantile and histogram_avg make numbers of them", term.Counted(histograms, "histogram", "histograms"))})
	}
	if len(lines) == 0 {
		a.summary("the result is empty from %s", a.when(q))
		return nil
	}
	title := "SERIES"
	if common, different := commonLabels(metrics); len(lines) > 1 {
		for i, l := range different {
			lines[i].Name = l.String()
		}
		if !common.IsEmpty() {
			title += " of " + common.String()
		}
	}
	return term.Graph{
		Width: term.Width(a.Out), Height: term.Height(a.Out), First: q.Start.UnixMilli(), Last: q.End.UnixMilli(),
		Gap: q.Step.Milliseconds(), Color: term.Color(a.Out), Title: title, Lines: lines,
	}.Write(a.Out)
}

// commonLabels separates the labels that all series share from those that differ.
func commonLabels(all []labels.Labels) (common labels.Labels, different []labels.Labels) {
	if len(all) == 0 {
		return common, nil
	}
	var names []string
	all[0].Range(func(l labels.Label) {
		if !slices.ContainsFunc(all, func(other labels.Labels) bool { return other.Get(l.Name) != l.Value }) {
			names = append(names, l.Name)
		}
	})
	for _, ls := range all {
		different = append(different, labels.NewBuilder(ls).Del(names...).Labels())
	}
	return labels.NewBuilder(all[0]).Keep(names...).Labels(), different
}
