package query

import (
	"io"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/compress/zstd"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
)

// parquetRow is a sample, with either a value or a histogram.
type parquetRow struct {
	Time      int64             `parquet:"timestamp,timestamp(millisecond),delta"`
	Metric    string            `parquet:"metric,dict"`
	Labels    map[string]string `parquet:"labels" parquet-key:",dict" parquet-value:",dict"`
	Value     *float64          `parquet:"value,optional"`
	Histogram *string           `parquet:"histogram,optional"` // JSON in the format of the Prometheus API
}

// A group of rows is kept in memory until it is full: some tens of megabytes.
const (
	rowsAtOnce    = 1024
	rowsInAGroup  = 1 << 19
	bytesInAGroup = 32 << 20 // of histograms, which are stored as long texts
)

type parquetRows struct {
	w      *parquet.GenericWriter[parquetRow]
	rows   []parquetRow
	bytes  int // of histograms in the group
	limit  int // of bytes
	metric string
	labels map[string]string
}

func newParquetRows(w io.Writer) *parquetRows {
	return &parquetRows{limit: bytesInAGroup, w: parquet.NewGenericWriter[parquetRow](w,
		parquet.Compression(&zstd.Codec{}), parquet.MaxRowsPerRowGroup(rowsInAGroup), parquet.CreatedBy("promdump", "", ""))}
}

func (p *parquetRows) begin(ls labels.Labels) (bool, error) {
	p.metric, p.labels = ls.Get(model.MetricNameLabel), withoutName(ls)
	return true, nil
}

func (p *parquetRows) float(t int64, v float64) error {
	return p.add(parquetRow{Time: t, Metric: p.metric, Labels: p.labels, Value: &v})
}

func (p *parquetRows) histogram(t int64, h *histogram.FloatHistogram) (bool, error) {
	text := histogramJSON(h)
	p.bytes += len(text)
	return true, p.add(parquetRow{Time: t, Metric: p.metric, Labels: p.labels, Histogram: &text})
}

func (p *parquetRows) add(r parquetRow) error {
	if p.rows = append(p.rows, r); len(p.rows) < rowsAtOnce && p.bytes < p.limit {
		return nil
	}
	return p.flush()
}

func (p *parquetRows) flush() error {
	_, err := p.w.Write(p.rows)
	p.rows = p.rows[:0]
	if err == nil && p.bytes >= p.limit {
		p.bytes = 0
		return p.w.Flush()
	}
	return err
}

func (p *parquetRows) end() error {
	if err := p.flush(); err != nil {
		return err
	}
	return p.w.Close()
}
