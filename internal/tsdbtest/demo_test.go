package tsdbtest

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

func TestDemo(t *testing.T) {
	now := time.Date(2026, 3, 1, 14, 7, 13, 0, time.UTC)
	dir := t.TempDir()
	in, err := Demo(context.Background(), dir, now)
	if err != nil {
		t.Fatal(err)
	}
	if segments, err := filepath.Glob(filepath.Join(dir, "wal", "0*")); err != nil || len(segments) == 0 {
		t.Errorf("no log: %v", err)
	}
	blocks, err := filepath.Glob(filepath.Join(dir, "*", "meta.json"))
	if err != nil || len(blocks) < 2 {
		t.Errorf("%d blocks: %v", len(blocks), err)
	}
	served := SamplesDir(t, dir, Everything())
	if len(served) < 200 || len(served) > 400 {
		t.Errorf("%d series, want about 300", len(served))
	}
	var down, stale, reset, histograms, errors int
	for name, samples := range served {
		victim := strings.Contains(name, `pod="`+in.Pod+`"`)
		for i, s := range samples {
			switch {
			case s.Kind == chunkenc.ValHistogram:
				histograms++
			case victim && strings.Contains(name, `__name__="up"`) && s.Value == 0:
				down++
			case strings.Contains(s.String(), "0x7ff0000000000002"):
				stale++
			case victim && strings.Contains(name, "_total") && i > 0 && float(s) < float(samples[i-1]):
				t.Errorf("%s decreases without a stale marker: %v", name, s)
			case victim && strings.Contains(name, `code="500"`) && i > 0 && s.T > in.Start.UnixMilli() && s.T < in.Killed.UnixMilli():
				errors += int(float(s) - float(samples[i-1]))
			}
			if i > 0 && strings.Contains(samples[i-1].String(), "0x7ff0000000000002") {
				reset++
			}
		}
	}
	if down != 12 || stale < 15 || reset < 15 || histograms < 1400 || errors < 5000 {
		t.Errorf("down for %d scrapes, %d stale markers, %d restarts of series, %d histograms, %d errors", down, stale, reset, histograms, errors)
	}
	again := filepath.Join(t.TempDir(), "again")
	if err := os.MkdirAll(again, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := Demo(context.Background(), again, now); err != nil {
		t.Fatal(err)
	}
	if diff := Diff(served, SamplesDir(t, again, Everything())); diff != "" {
		t.Errorf("two demos with the same now differ:\n%s", diff)
	}
}
