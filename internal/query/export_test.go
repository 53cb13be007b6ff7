package query

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/parquet-go/parquet-go"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"

	"github.com/promdump/promdump/internal/dump/dumptest"
	"github.com/promdump/promdump/internal/tsdbtest"
	"github.com/promdump/promdump/internal/wire"
)

// Each value of the data dir is in the Parquet file and in the CSV, and nothing
// else: what is left out is counted.
func TestExport(t *testing.T) {
	file, src := dumptest.Random(t, 5, wire.HeadBlock)
	v := viewIn(t, file)
	want, floats := map[string]float64{}, 0
	served := tsdbtest.SamplesDir(t, src.Dir, tsdbtest.Everything())
	all, stale := 0, 0
	for name, samples := range served {
		for _, s := range samples {
			v := math.Float64frombits(s.Value)
			switch {
			case s.Kind == chunkenc.ValFloat && value.IsStaleNaN(v), s.Kind != chunkenc.ValFloat && strings.Contains(s.Histogram, fmt.Sprintf("%x", value.StaleNaN)):
				stale++
				continue
			case s.Kind == chunkenc.ValFloat:
				want[name+" "+strconv.FormatInt(s.T, 10)] = v
				floats++
			}
			all++
		}
	}
	if stale == 0 || floats == 0 || all == floats {
		t.Fatalf("the data has %d floats of %d and %d stale marks", floats, all, stale)
	}
	check := func(t *testing.T, x Exported, got map[string]float64, histograms int) {
		t.Helper()
		if x.Samples != uint64(all) || x.Stale != uint64(stale) || x.NoName+x.NoHistograms != 0 || int(x.Histograms) != all-floats || histograms != all-floats {
			t.Errorf("%+v and %d histograms, want %d samples, %d stale marks, %d histograms", x, histograms, all, stale, all-floats)
		}
		for k, w := range want {
			if g, ok := got[k]; !ok || g != w && !(math.IsNaN(g) && math.IsNaN(w)) {
				t.Fatalf("%s: %v %v, want %v", k, g, ok, w)
			}
		}
		if len(got) != len(want) {
			t.Errorf("%d floats, want %d", len(got), len(want))
		}
	}
	key := func(metric string, ls map[string]string, t int64) string {
		m := labels.NewBuilder(labels.FromMap(ls)).Set("__name__", metric).Labels()
		return m.String() + " " + strconv.FormatInt(t, 10)
	}
	t.Run("parquet", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "x.parquet")
		out, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		defer out.Close()
		x, err := (Export{Format: Parquet, MinTime: math.MinInt64, MaxTime: math.MaxInt64}).Write(t.Context(), v, out)
		if err != nil {
			t.Fatal(err)
		}
		rows, err := parquet.ReadFile[parquetRow](path)
		if err != nil {
			t.Fatal(err)
		}
		got, histograms := map[string]float64{}, 0
		for _, r := range rows {
			if r.Value != nil {
				got[key(r.Metric, r.Labels, r.Time)] = *r.Value
			} else if json.Valid([]byte(*r.Histogram)) {
				histograms++
			}
		}
		check(t, x, got, histograms)
	})
	t.Run("csv", func(t *testing.T) {
		var out bytes.Buffer
		x, err := (Export{Format: CSV, MinTime: math.MinInt64, MaxTime: math.MaxInt64}).Write(t.Context(), v, &out)
		if err != nil {
			t.Fatal(err)
		}
		rows, err := csv.NewReader(&out).ReadAll()
		if err != nil {
			t.Fatal(err)
		}
		got, histograms := map[string]float64{}, 0
		for _, r := range rows[1:] {
			if r[3] == "" {
				histograms++
				continue
			}
			ms, err := strconv.ParseInt(r[0], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			var ls map[string]string
			if err := json.Unmarshal([]byte(r[2]), &ls); err != nil {
				t.Fatal(err)
			}
			if got[key(r[1], ls, ms)], err = strconv.ParseFloat(r[3], 64); err != nil {
				t.Fatal(err)
			}
		}
		check(t, x, got, histograms)
	})
}

// Histograms are long: a group of rows ends by its bytes too, since it is held until
// then.
func TestParquetGroups(t *testing.T) {
	var out bytes.Buffer
	rows := newParquetRows(&out)
	rows.limit = 10_000
	h := tsdbutil.GenerateTestFloatHistogram(1)
	if _, err := rows.begin(labels.FromStrings("__name__", "h")); err != nil {
		t.Fatal(err)
	}
	n := 5 * rows.limit / len(histogramJSON(h))
	for i := range n {
		if _, err := rows.histogram(int64(i), h); err != nil {
			t.Fatal(err)
		}
	}
	if err := rows.end(); err != nil {
		t.Fatal(err)
	}
	f, err := parquet.OpenFile(bytes.NewReader(out.Bytes()), int64(out.Len()))
	if err != nil {
		t.Fatal(err)
	}
	if got := len(f.RowGroups()); got < 4 || f.NumRows() != int64(n) {
		t.Errorf("%d groups of %d rows", got, f.NumRows())
	}
}
