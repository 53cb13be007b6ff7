package cli

import (
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
			if err := f(row{s.Metric, s.T, valueOf(s.F, s.H)}); err != nil {
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
			r, floats = row{s.Metric, floats[0].T, number(floats[0].F)}, floats[1:]
		} else {
			r, histograms = row{s.Metric, histograms[0].T, histograms[0].H.String()}, histograms[1:]
		}
		if err := f(r); err != nil {
			return err
		}
	}
	return nil
}

func valueOf(v float64, h *histogram.FloatHistogram) string {
	if h != nil {
		return h.String()
	}
	return number(v)
}

// number is exact, as Prometheus' API has it.
func number(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }

func (a *app) printAnswerJSON(q asked) error { return q.WriteJSON(a.Out) }

func (a *app) printAnswerTable(q asked) error {
	var rows [][]string
	_, matrix := q.Value.(promql.Matrix)
	err := q.each(func(r row) error {
		name := r.labels.String()
		if matrix {
			rows = append(rows, []string{name, term.Time(r.ms), r.value})
		} else {
			rows = append(rows, []string{name, r.value})
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
		a.summary("the answer is empty at %s", a.when(q))
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
	histograms := 0
	for _, s := range matrix {
		histograms += len(s.Histograms)
		if len(s.Floats) == 0 {
			continue
		}
		l := term.Line{Name: s.Metric.String()}
		for _, p := range s.Floats {
			l.Points = append(l.Points, term.Point{Ms: p.T, V: p.F})
		}
		lines = append(lines, l)
	}
	if histograms > 0 {
		a.notes([]string{fmt.Sprintf("%s cannot be drawn and are left out: histogram_quantile and histogram_avg make numbers of them", term.Counted(histograms, "histogram", "histograms"))})
	}
	if len(lines) == 0 {
		a.summary("the answer is empty from %s", a.when(q))
		return nil
	}
	return term.Graph(a.Out, term.Width(a.Out), q.Start.UnixMilli(), q.End.UnixMilli(), q.Step.Milliseconds(), lines)
}
