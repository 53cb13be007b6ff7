package block

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/record"

	"github.com/promdump/promdump/internal/wire"
)

// BenchmarkHead builds a head of 1.5 h of 58,000 series at 15 s: counters, gauges and constants.
func BenchmarkHead(b *testing.B) {
	series, scrapes := 58_000, 360
	if testing.Short() {
		series, scrapes = 5_800, 120
	}
	b.Run(fmt.Sprintf("%dx%d", series, scrapes), func(b *testing.B) {
		var peak uint64
		for b.Loop() {
			h, err := NewHeadBuilder(HeadSpec{Parent: b.TempDir(), MinTime: 0, MaxTime: 1 << 40})
			if err != nil {
				b.Fatal(err)
			}
			benchFeed(b, h, series, scrapes, &peak)
			built, err := h.Finish(context.Background())
			if err != nil {
				b.Fatal(err)
			}
			peak = max(peak, heapInUse())
			var samples uint64
			for _, built := range built {
				samples += built.Meta.Stats.NumSamples
			}
			if samples != uint64(series*scrapes) {
				b.Fatalf("%d samples, want %d", samples, series*scrapes)
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(series*scrapes), "ns/sample")
		b.ReportMetric(float64(peak)/(1<<20), "peak-heap-MiB")
		b.ReportMetric(float64(peak)/float64(series), "heap-B/series")
	})
}

func heapInUse() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse
}

// benchFeed generates the records while the timer is stopped.
func benchFeed(b *testing.B, h *HeadBuilder, series, scrapes int, peak *uint64) {
	const perRecord = 500 // a scrape
	give := func(rec []byte) {
		b.StartTimer()
		err := h.Records(&wire.Records{Log: wire.WAL, Records: [][]byte{rec}})
		b.StopTimer()
		if err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	defer b.StartTimer()
	var enc record.Encoder
	var buf []byte
	refs := make([]record.RefSeries, 0, perRecord)
	for i := range series {
		refs = append(refs, record.RefSeries{Ref: chunks.HeadSeriesRef(i + 1), Labels: labels.FromStrings(
			"__name__", fmt.Sprintf("container_network_receive_bytes_%d_total", i%300), "namespace", fmt.Sprintf("namespace-%d", i/300%50),
			"pod", fmt.Sprintf("deployment-%d-7d9c5b8f6d-x2x%d", i/300, i/300), "container", "main", "instance", fmt.Sprintf("10.0.%d.1:9100", i/300%200),
			"job", "kubernetes-pods", "endpoint", "https-metrics", "service", "kubelet")})
		if len(refs) == perRecord || i == series-1 {
			buf = enc.Series(refs, buf[:0])
			give(buf)
			refs = refs[:0]
		}
	}
	r := rand.New(rand.NewPCG(1, 2))
	counter := make([]float64, series)
	samples := make([]record.RefSample, 0, perRecord)
	for n := range scrapes {
		for i := range series {
			switch i % 3 {
			case 0:
				counter[i] += float64(r.IntN(1000))
			case 1:
				counter[i] = float64(r.IntN(10000)) / 8
			}
			samples = append(samples, record.RefSample{Ref: chunks.HeadSeriesRef(i + 1), T: int64(n)*15_000 + int64(i%15_000), V: counter[i]})
			if len(samples) == perRecord || i == series-1 {
				buf = enc.Samples(samples, buf[:0])
				give(buf)
				samples = samples[:0]
			}
		}
		if n%30 == 0 {
			*peak = max(*peak, heapInUse())
		}
	}
}
