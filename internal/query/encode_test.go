package query

import (
	"bytes"
	"math"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/prometheus/prometheus/util/stats"
	v1 "github.com/prometheus/prometheus/web/api/v1"
)

// What is streamed is what Prometheus' own codec makes of the same answer, to the
// byte, and in many pieces where it is long.
func TestEncode(t *testing.T) {
	odd := labels.FromStrings("__name__", "a", "b", "<&>\"\\\n\u2028", "c", "\xff", "d ü", "")
	floats := []promql.FPoint{
		{T: 0, F: 0}, {T: -1, F: math.NaN()}, {T: 1795516860123, F: math.Inf(-1)}, {T: 5, F: 1e300}, {T: 60_000, F: 0.1},
	}
	h := tsdbutil.GenerateTestFloatHistogram(3)
	custom := tsdbutil.GenerateTestCustomBucketsFloatHistogram(2)
	histograms := []promql.HPoint{{T: 7, H: h}, {T: 8, H: custom}, {T: 9, H: &histogram.FloatHistogram{}}}
	var long []promql.FPoint
	for i := range 10_000 {
		long = append(long, promql.FPoint{T: int64(i) * 15_001, F: float64(i) / 3})
	}
	query := func(v parser.Value, s stats.QueryStats) *v1.QueryData {
		return &v1.QueryData{ResultType: v.Type(), Result: v, Stats: s}
	}
	took := stats.NewQueryStats(&stats.Statistics{Timers: stats.NewQueryTimers(), Samples: stats.NewQuerySamples(true)})
	for name, data := range map[string]any{
		"matrix": query(promql.Matrix{
			{Metric: odd, Floats: floats}, {Metric: labels.EmptyLabels(), Histograms: histograms},
			{Metric: odd, Floats: floats[:1], Histograms: histograms[:1]}, {Metric: odd},
		}, nil),
		"long matrix":   query(promql.Matrix{{Metric: odd, Floats: long}, {Floats: long}}, nil),
		"empty matrix":  query(promql.Matrix{}, nil),
		"nil matrix":    query(promql.Matrix(nil), nil),
		"vector":        query(promql.Vector{{Metric: odd, T: 5, F: math.Inf(1)}, {T: 6, H: h}, {Metric: odd, T: 6, H: custom}}, nil),
		"empty vector":  query(promql.Vector{}, nil),
		"scalar":        query(promql.Scalar{T: 1, V: math.NaN()}, nil),
		"string":        query(promql.String{T: 1, V: "<a>\xff"}, nil),
		"stats":         query(promql.Vector{}, took),
		"series":        []labels.Labels{odd, labels.EmptyLabels(), labels.FromStrings("x", "y")},
		"no series":     []labels.Labels{},
		"values":        []string{"", "a", "<&>", "\xff", "\u2028", strings.Repeat("x", 1<<16)},
		"no values":     []string{},
		"something":     map[string][]string{"b": {"1"}, "a": nil},
		"a bare string": "<up>",
	} {
		for _, r := range []*v1.Response{
			{Status: "success", Data: data},
			{Status: "success", Data: data, Warnings: []string{"<w>", "x"}, Infos: []string{"i"}},
			{Status: "error", Data: data, ErrorType: "execution", Error: "<e>"},
		} {
			want, err := v1.JSONCodec{}.Encode(r)
			if err != nil {
				t.Fatal(err)
			}
			var got pieces
			if err := encode(&got, r); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got.Bytes(), want) {
				t.Errorf("%s:\n%.2000s\nwant\n%.2000s", name, got.String(), want)
			}
			if strings.HasPrefix(name, "long") && r.Error == "" && got.largest > 2*encodeBuffer {
				t.Errorf("%s: a piece has %d bytes of %d", name, got.largest, got.Len())
			}
			n := int64(len(want))
			if strings.HasPrefix(name, "long") && r.Error == "" && (mayExceed(r, 3*n) || !mayExceed(r, n)) {
				t.Errorf("%s: %d bytes are estimated wrongly", name, n)
			}
		}
	}
}

type pieces struct {
	bytes.Buffer
	largest int
}

func (p *pieces) Write(b []byte) (int, error) {
	p.largest = max(p.largest, len(b))
	return p.Buffer.Write(b)
}

// Whatever the estimate takes for short enough is.
func TestMayExceed(t *testing.T) {
	longest := []promql.FPoint{{T: math.MinInt64, F: -math.MaxFloat64}, {T: math.MaxInt64, F: -math.SmallestNonzeroFloat64}}
	h := tsdbutil.GenerateTestFloatHistogram(1)
	for _, data := range []any{
		[]string{"\x01\x02\x03\u2028<>&", strings.Repeat("\x01", 1000)},
		[]labels.Labels{labels.FromStrings("a", strings.Repeat("\x01", 1000), "b", "c")},
		&v1.QueryData{Result: promql.Matrix{{Floats: longest}}},
		&v1.QueryData{Result: promql.Matrix{{Histograms: []promql.HPoint{{T: 1, H: h}}}}},
		&v1.QueryData{Result: promql.Vector{{T: math.MinInt64, F: -1.7976931348623157e-300}, {H: h}}},
	} {
		r := &v1.Response{Data: data}
		b, err := v1.JSONCodec{}.Encode(r)
		if err != nil {
			t.Fatal(err)
		}
		if !mayExceed(r, int64(len(b))-300) { // what is around the data
			t.Errorf("%T of %d bytes is taken for less", data, len(b))
		}
	}
}
