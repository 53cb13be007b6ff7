package query

import (
	"bufio"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	jsoniter "github.com/json-iterator/go"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/util/jsonutil"

	"github.com/promdump/promdump/internal/view"
)

// Format is a file format for samples.
type Format string

const (
	OpenMetrics Format = "openmetrics" // text; promtool can build blocks of it
	CSV         Format = "csv"         // timestamp, metric, labels as JSON, value, histogram as JSON
	Parquet     Format = "parquet"     // the same columns, labels as a map
)

// Export selects the samples to write, and their format.
type Export struct {
	Format   Format
	MinTime  int64 // Unix milliseconds, both included
	MaxTime  int64
	Matchers [][]*labels.Matcher // a series that one of them selects is written; none: all
}

// Exported counts what was written, and what was left out.
type Exported struct {
	Series, Samples uint64
	Histograms      uint64 // those of Samples that are native histograms
	NoHistograms    uint64 // native histograms left out: the format cannot represent them
	NoName          uint64 // samples left out: their series have no name
	Stale           uint64 // staleness markers left out: they are not values
}

// rows writes one format. A sample is a float or a histogram.
type rows interface {
	begin(labels.Labels) (ok bool, err error) // begins a series; false if the format cannot represent it
	float(t int64, v float64) error
	histogram(t int64, h *histogram.FloatHistogram) (ok bool, err error)
	end() error
}

// Write writes the samples, ordered by metric name, series and time. It keeps in memory
// only one chunk of a series and what the format buffers (for Parquet a group of rows).
func (x Export) Write(ctx context.Context, v *view.View, w io.Writer) (_ Exported, err error) {
	bw := bufio.NewWriterSize(w, 1<<16)
	var out rows
	switch x.Format {
	case OpenMetrics:
		out = &openMetrics{w: bw}
	case CSV:
		out = &csvRows{w: csv.NewWriter(bw)}
	case Parquet:
		out = newParquetRows(bw)
	default:
		return Exported{}, fmt.Errorf("unknown format %q", x.Format)
	}
	q, err := v.Querier(x.MinTime, x.MaxTime)
	if err != nil {
		return Exported{}, err
	}
	defer func() { err = errors.Join(err, q.Close()) }()
	e := &exporting{ctx: ctx, q: q, export: x, out: out}
	// One name after another, not one pass over all series: label names that begin with a
	// capital sort before __name__, and would split a metric.
	names, _, err := q.LabelValues(ctx, model.MetricNameLabel, nil)
	if err != nil {
		return e.Exported, err
	}
	names = slices.Clone(names)
	for _, name := range append([]string{""}, names...) {
		if err := e.metric(name); err != nil {
			return e.Exported, err
		}
	}
	if err := out.end(); err != nil {
		return e.Exported, err
	}
	return e.Exported, bw.Flush()
}

type exporting struct {
	Exported
	ctx    context.Context
	q      storage.Querier
	export Export
	out    rows
	it     chunkenc.Iterator
}

// metric writes all series with a name, or those without a name if it is empty.
func (e *exporting) metric(name string) error {
	own := labels.MustNewMatcher(labels.MatchEqual, model.MetricNameLabel, name)
	lists := e.export.Matchers
	if len(lists) == 0 {
		lists = [][]*labels.Matcher{nil}
	}
	hints := &storage.SelectHints{Start: e.export.MinTime, End: e.export.MaxTime}
	var sets []storage.SeriesSet
	for _, list := range lists {
		no := slices.ContainsFunc(list, func(m *labels.Matcher) bool { return m.Name == model.MetricNameLabel && !m.Matches(name) })
		if !no {
			sets = append(sets, e.q.Select(e.ctx, true, hints, append(slices.Clone(list), own)...))
		}
	}
	set := storage.NewMergeSeriesSet(sets, 0, storage.ChainedSeriesMerge)
	for set.Next() {
		if err := e.series(set.At()); err != nil {
			return err
		}
	}
	return set.Err()
}

func (e *exporting) series(s storage.Series) error {
	begun, holds := false, true
	e.it = s.Iterator(e.it)
	for n := 0; ; n++ {
		if n%4096 == 0 && e.ctx.Err() != nil {
			return e.ctx.Err()
		}
		kind := e.it.Next()
		if kind == chunkenc.ValNone {
			return e.it.Err()
		}
		if !begun {
			begun = true
			var err error
			if holds, err = e.out.begin(s.Labels()); err != nil {
				return err
			}
			if holds {
				e.Series++
			}
		}
		if err := e.sample(kind, holds); err != nil {
			return err
		}
	}
}

func (e *exporting) sample(kind chunkenc.ValueType, holds bool) error {
	var t int64
	var v float64
	var h *histogram.FloatHistogram
	if kind == chunkenc.ValFloat {
		t, v = e.it.At()
	} else {
		t, h = e.it.AtFloatHistogram(nil)
		v = h.Sum
	}
	switch {
	case value.IsStaleNaN(v):
		e.Stale++
		return nil
	case !holds:
		e.NoName++
		return nil
	case h == nil:
		e.Samples++
		return e.out.float(t, v)
	}
	ok, err := e.out.histogram(t, h)
	if ok {
		e.Samples++
		e.Histograms++
	} else {
		e.NoHistograms++
	}
	return err
}

// openMetrics writes the text format. All types are unknown, because blocks have none.
type openMetrics struct {
	w      *bufio.Writer
	series string // with its labels, ready to be written
	num    []byte
}

func (o *openMetrics) begin(ls labels.Labels) (bool, error) {
	name := ls.Get(model.MetricNameLabel)
	if name == "" {
		return false, nil
	}
	var b strings.Builder
	between := ""
	if model.LegacyValidation.IsValidMetricName(name) {
		b.WriteString(name + "{")
	} else {
		b.WriteString("{" + quoted(name))
		between = ","
	}
	ls.Range(func(l labels.Label) {
		if l.Name == model.MetricNameLabel {
			return
		}
		b.WriteString(between)
		between = ","
		if model.LegacyValidation.IsValidLabelName(l.Name) {
			b.WriteString(l.Name)
		} else {
			b.WriteString(quoted(l.Name))
		}
		b.WriteString("=" + quoted(l.Value))
	})
	o.series = b.String() + "} "
	return true, nil
}

// quoted quotes a string, and escapes the characters that the format requires.
func quoted(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`).Replace(s) + `"`
}

func (o *openMetrics) float(t int64, v float64) error {
	o.w.WriteString(o.series)
	o.num = strconv.AppendFloat(o.num[:0], v, 'g', -1, 64)
	o.num = append(o.num, ' ')
	if t < 0 {
		o.num, t = append(o.num, '-'), -t
	}
	o.num = strconv.AppendInt(o.num, t/1000, 10)
	o.num = append(o.num, fmt.Sprintf(".%03d\n", t%1000)...)
	_, err := o.w.Write(o.num)
	return err
}

func (o *openMetrics) histogram(int64, *histogram.FloatHistogram) (bool, error) { return false, nil }

func (o *openMetrics) end() error {
	_, err := o.w.WriteString("# EOF\n")
	return err
}

type csvRows struct {
	w     *csv.Writer
	row   [5]string
	begun bool
}

func (c *csvRows) begin(ls labels.Labels) (bool, error) {
	c.row[1] = ls.Get(model.MetricNameLabel)
	text, err := json.Marshal(withoutName(ls))
	c.row[2] = string(text)
	return true, errors.Join(err, c.head())
}

func (c *csvRows) head() error {
	if c.begun {
		return nil
	}
	c.begun = true
	return c.w.Write([]string{"timestamp_ms", "metric", "labels", "value", "histogram"})
}

func withoutName(ls labels.Labels) map[string]string {
	m := ls.Map()
	delete(m, model.MetricNameLabel)
	return m
}

func (c *csvRows) float(t int64, v float64) error {
	c.row[0], c.row[3], c.row[4] = strconv.FormatInt(t, 10), strconv.FormatFloat(v, 'g', -1, 64), ""
	return c.w.Write(c.row[:])
}

func (c *csvRows) histogram(t int64, h *histogram.FloatHistogram) (bool, error) {
	c.row[0], c.row[3], c.row[4] = strconv.FormatInt(t, 10), "", histogramJSON(h)
	return true, c.w.Write(c.row[:])
}

// histogramJSON returns a histogram in the format of the Prometheus API.
func histogramJSON(h *histogram.FloatHistogram) string {
	stream := jsoniter.ConfigDefault.BorrowStream(nil)
	defer jsoniter.ConfigDefault.ReturnStream(stream)
	jsonutil.MarshalHistogram(h, stream)
	return string(stream.Buffer())
}

func (c *csvRows) end() error {
	if err := c.head(); err != nil {
		return err
	}
	c.w.Flush()
	return c.w.Error()
}
