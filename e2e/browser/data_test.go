package browser

import (
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/promdump/promdump/internal/tsdbtest"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"
)

// The incident is always the same one, so that pictures differ only when the page does.
var (
	now   = time.Date(2026, 11, 24, 22, 40, 0, 0, time.UTC)
	begin = now.Add(-6 * time.Hour)
)

const rules = `
groups:
- name: shop
  interval: 30s
  rules:
  - alert: HighErrorRate
    expr: |
      sum by (namespace, pod) (rate(http_requests_total{code="500"}[5m]))
        / sum by (namespace, pod) (rate(http_requests_total[5m])) > 0.05
    for: 2m
    labels: {severity: page}
    annotations: {summary: "More than 5% of the requests to a pod fail."}
  - alert: MemoryNearLimit
    expr: container_memory_working_set_bytes / container_spec_memory_limit_bytes > 0.6
    for: 5m
    labels: {severity: warn}
    annotations: {summary: "A container is about to be killed for its memory."}
  - alert: PodDown
    expr: up == 0
    for: 1m
    labels: {severity: page}
  - alert: SlowRequests
    expr: |
      histogram_quantile(0.9, sum by (pod, le) (rate(http_request_duration_seconds_bucket[5m]))) > 1
    for: 20m
    labels: {severity: warn}
- name: monitoring
  rules:
  - alert: ExporterGone
    expr: absent(up{namespace="monitoring"})
    for: 5m
`

func rulesFile(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "rules.yaml")
	if err := os.WriteFile(file, []byte(rules), 0o666); err != nil {
		t.Fatal(err)
	}
	return file
}

// incident dumps the demo's six hours.
func incident(t *testing.T, bin string) string {
	t.Helper()
	dir := t.TempDir()
	data := filepath.Join(dir, "shop-prometheus")
	if err := os.Mkdir(data, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := tsdbtest.Demo(t.Context(), data, now); err != nil {
		t.Fatal(err)
	}
	return dump(t, bin, dir, "shop-prometheus", "incident.tar.gz")
}

const bigSeries = 10_000

// big dumps half an hour of one metric with many series.
func big(t *testing.T, bin string) string {
	t.Helper()
	dir := t.TempDir()
	data := filepath.Join(dir, "data")
	options := tsdb.DefaultOptions()
	options.RetentionDuration = 0
	db, err := tsdb.Open(data, nil, nil, options, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 31 {
		app := db.Appender(t.Context())
		for n := range bigSeries {
			ls := labels.FromStrings("__name__", "big", "id", fmt.Sprintf("id-%05d", n), "shard", fmt.Sprint(n%16))
			if _, err := app.Append(0, ls, now.Add(time.Duration(i-30)*time.Minute).UnixMilli(), float64(n)+10*math.Sin(float64(i+n)/9)); err != nil {
				t.Fatal(err)
			}
		}
		if err := app.Commit(); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	return dump(t, bin, dir, "data", "big.tar.gz")
}

func dump(t *testing.T, bin, dir, data, file string) string {
	t.Helper()
	cmd := exec.Command(bin, "dump", "-d", data, "--min-time", begin.Format(time.RFC3339), "--max-time", now.Format(time.RFC3339), "-t", file)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return filepath.Join(dir, file)
}
