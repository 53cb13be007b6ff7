package e2e

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
)

// target is scraped: counters, gauges, a classic and native histograms, and
// series that come and go with every few scrapes.
func target(t *testing.T) string {
	reg := prometheus.NewRegistry()
	requests := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "requests_total"}, []string{"code", "path"})
	latency := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "latency_seconds", NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 60}, []string{"path"})
	classic := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "classic_seconds"})
	churn := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "pod_memory"}, []string{"pod"})
	reg.MustRegister(requests, latency, classic, churn)
	handler := promhttp.HandlerFor(reg, promhttp.HandlerOpts{})
	var mu sync.Mutex
	n := 0
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		n++
		for i := range 60 {
			path := fmt.Sprintf("/%02d", i)
			requests.WithLabelValues("200", path).Add(float64(n*i%17) + 0.1)
			if i < 6 {
				for range 5 {
					latency.WithLabelValues(path).Observe(math.Exp(float64((n*7+i)%13) - 6))
				}
			}
		}
		classic.Observe(float64(n%11) / 7)
		churn.Reset()
		for i := range 10 {
			churn.WithLabelValues(fmt.Sprintf("pod-%d", n/8*3+i)).Set(math.Sin(float64(n + i)))
		}
		mu.Unlock()
		handler.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://")
}

// sender sends by remote write, also out of order: up to 8 s old, but never
// older than its floor. So what is older than the floor stands still.
type sender struct {
	mu    sync.RWMutex
	floor int64 // Unix milliseconds
	sent  int
	stop  context.CancelFunc
	done  chan error
}

func send(t *testing.T, s *server) *sender {
	ctx, cancel := context.WithCancel(t.Context())
	w := &sender{stop: cancel, done: make(chan error, 1)}
	go func() { w.done <- w.loop(ctx, s) }()
	t.Cleanup(func() { w.end(t) })
	return w
}

func (w *sender) end(t *testing.T) {
	w.stop()
	if err, ok := <-w.done; ok {
		close(w.done)
		if err != nil {
			t.Errorf("remote write: %v", err)
		}
		t.Logf("remote write: %d requests", w.sent)
	}
}

// hold keeps the sender from writing anything older than t until the next hold.
func (w *sender) hold(t int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.floor = t
}

func (w *sender) loop(ctx context.Context, s *server) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		w.mu.RLock()
		err := s.write(ctx, w.request(n)...)
		w.mu.RUnlock()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		w.sent++
	}
}

// request makes the samples of one request. What a series has at a time depends
// on that time alone: a sample that is sent twice must not be two.
func (w *sender) request(n int) (all []prompb.TimeSeries) {
	now := time.Now().UnixMilli()
	for i := range 40 {
		v := float64(now*int64(i)) / 3
		switch (now/100 + int64(i)) % 50 {
		case 7:
			v = math.Float64frombits(value.StaleNaN)
		case 8:
			v = math.Float64frombits(0x7ff8000000c0ffee)
		case 9:
			v = math.Inf(-1)
		}
		all = append(all, floats("pushed", i, now, v))
	}
	all = append(all, histograms(now)...)
	late := max(now-8000, w.floor)
	if late >= now-1000 {
		return all
	}
	for i := range 10 {
		t := late + (int64(n)*7919+int64(i)*104729)%(now-late)
		all = append(all, floats("late", i, now, float64(now%100_000)), floats("late", i, t, float64(t%100_000)))
	}
	return append(all, histograms(late+int64(n)%(now-late))...)
}

func floats(name string, i int, t int64, v float64) prompb.TimeSeries {
	return prompb.TimeSeries{Labels: label("__name__", name, "i", fmt.Sprint(i)), Samples: []prompb.Sample{{Timestamp: t, Value: v}}}
}

func histograms(t int64) []prompb.TimeSeries {
	n := t / 100 % 10_000
	one := func(name string, h prompb.Histogram) prompb.TimeSeries {
		return prompb.TimeSeries{Labels: label("__name__", name), Histograms: []prompb.Histogram{h}}
	}
	return []prompb.TimeSeries{
		one("pushed_histogram", prompb.FromIntHistogram(t, tsdbutil.GenerateTestHistogram(n))),
		one("pushed_float_histogram", prompb.FromFloatHistogram(t, tsdbutil.GenerateTestFloatHistogram(n%40))),
		one("pushed_gauge_histogram", prompb.FromIntHistogram(t, tsdbutil.GenerateTestGaugeHistogram(n*7%40))),
	}
}
