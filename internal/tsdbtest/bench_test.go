package tsdbtest

import (
	"context"
	"os"
	"strconv"
	"testing"
	"time"
)

// TestBenchIsADataDir opens what Bench wrote with the TSDB, and compares the number of samples.
func TestBenchIsADataDir(t *testing.T) {
	dir := t.TempDir()
	size, err := Bench(context.Background(), dir, Scale{Series: 1200, Blocks: 26 * time.Hour, Interval: 2 * time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	if got := len(size.Blocks); got != 5 {
		t.Errorf("%d blocks, want 18 h and four of 2 h", got)
	}
	served := SamplesDir(t, dir, Everything())
	if want := size.BlockSamples + size.HeadSamples; served.Count() != want || size.HeadSamples == 0 || size.HistogramSamples == 0 {
		t.Errorf("served %d samples of %d series, Bench returned %+v", served.Count(), len(served), size)
	}
	if len(served) != size.Series {
		t.Errorf("served %d series, want %d", len(served), size.Series)
	}
}

// TestBenchSize measures Bench. PROMDUMP_BENCH_SERIES=58000 selects the real size.
func TestBenchSize(t *testing.T) {
	n, err := strconv.Atoi(os.Getenv("PROMDUMP_BENCH_SERIES"))
	if err != nil {
		n = 600
	}
	start := time.Now()
	dir := os.Getenv("PROMDUMP_BENCH_DIR")
	if dir == "" {
		dir = t.TempDir()
	}
	size, err := Bench(context.Background(), dir, Scale{Series: n})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%v: %d series, %d + %d samples, %d of them histograms", time.Since(start), size.Series, size.BlockSamples, size.HeadSamples, size.HistogramSamples)
	if size.HistogramSamples < 11_000 {
		t.Errorf("%d histogram samples, want about 12,000", size.HistogramSamples)
	}
}
