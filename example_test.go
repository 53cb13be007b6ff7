package promdump_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"

	"github.com/promdump/promdump"
	"github.com/promdump/promdump/internal/tsdbtest"
)

// shop creates the data directory of a Prometheus with an incident, of six hours until noon.
func shop() (dir string, incident *tsdbtest.Incident) {
	dir, err := os.MkdirTemp("", "example-")
	if err != nil {
		log.Fatal(err)
	}
	if incident, err = tsdbtest.Demo(context.Background(), filepath.Join(dir, "data"), time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)); err != nil {
		log.Fatal(err)
	}
	return dir, incident
}

// ExampleWrite dumps the time around an incident, of one namespace.
func ExampleWrite() {
	dir, incident := shop()
	defer os.RemoveAll(dir)

	var file bytes.Buffer // usually an *os.File or an upload
	report, err := promdump.Write(context.Background(), &file, promdump.Dir(filepath.Join(dir, "data")), promdump.Options{
		Selection: promdump.Selection{
			From: incident.Start.Add(-15 * time.Minute), To: incident.End.Add(15 * time.Minute),
			Match: []string{`{namespace="shop"}`},
		},
		Tool: "must-gather 4.2",
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(report.Blocks, "block,", report.Series, "series,", report.Samples, "samples")
	// Output: 1 block, 185 series, 44332 samples
}

// ExampleOpen queries a dump with Prometheus' PromQL engine: a dump is a storage.Queryable.
func ExampleOpen() {
	dir, incident := shop()
	defer os.RemoveAll(dir)
	ctx := context.Background()
	name := filepath.Join(dir, "incident.tar.gz")
	file, err := os.Create(name)
	if err != nil {
		log.Fatal(err)
	}
	_, err = promdump.Write(ctx, file, promdump.Dir(filepath.Join(dir, "data")), promdump.Options{})
	if err := errors.Join(err, file.Close()); err != nil {
		log.Fatal(err)
	}

	dump, err := promdump.Open(ctx, name, promdump.OpenOptions{})
	if err != nil {
		log.Fatal(err)
	}
	defer dump.Close()
	for _, b := range dump.Info().Blocks {
		fmt.Println(b.First.Format(time.TimeOnly), "to", b.Last.Format(time.TimeOnly), b.Series, "series")
	}

	engine := promql.NewEngine(promql.EngineOpts{MaxSamples: 1e6, Timeout: time.Minute})
	q, err := engine.NewInstantQuery(ctx, dump, nil, `sum by (pod) (rate(http_requests_total{code="500",pod=~"checkout-.*"}[5m])) > 1`, incident.Killed)
	if err != nil {
		log.Fatal(err)
	}
	defer q.Close()
	vector, err := q.Exec(ctx).Vector()
	if err != nil {
		log.Fatal(err)
	}
	for _, s := range vector {
		fmt.Printf("%s: %.0f errors a second\n", s.Metric.Get("pod"), s.F)
	}
	// Output:
	// 06:00:00 to 07:59:45 254 series
	// 08:00:00 to 09:59:45 254 series
	// 10:00:00 to 11:59:45 254 series
	// 12:00:00 to 12:00:00 254 series
	// checkout-0: 13 errors a second
}

// ExampleDump_Querier reads the samples of series without PromQL.
func ExampleDump_Querier() {
	dir, incident := shop()
	defer os.RemoveAll(dir)
	ctx := context.Background()
	name := filepath.Join(dir, "incident.tar.gz")
	file, err := os.Create(name)
	if err != nil {
		log.Fatal(err)
	}
	_, err = promdump.Write(ctx, file, promdump.Dir(filepath.Join(dir, "data")), promdump.Options{Selection: promdump.Selection{Match: []string{"up"}}})
	if err := errors.Join(err, file.Close()); err != nil {
		log.Fatal(err)
	}
	dump, err := promdump.Open(ctx, name, promdump.OpenOptions{})
	if err != nil {
		log.Fatal(err)
	}
	defer dump.Close()

	q, err := dump.Querier(incident.Killed.UnixMilli(), incident.Restarted.UnixMilli())
	if err != nil {
		log.Fatal(err)
	}
	defer q.Close()
	set := q.Select(ctx, true, nil, labels.MustNewMatcher(labels.MatchEqual, "pod", incident.Pod))
	for set.Next() {
		samples := 0
		for it := set.At().Iterator(nil); it.Next() != 0; {
			samples++
		}
		fmt.Println(set.At().Labels().Get("pod"), samples)
	}
	if set.Err() != nil {
		log.Fatal(set.Err())
	}
	// Output: checkout-0 13
}
