package tsdbtest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/util/compression"
)

// Incident describes the incident in the data of [Demo].
type Incident struct {
	Start     time.Time // errors and memory begin to rise
	Killed    time.Time // the pod runs out of memory: its series end
	Restarted time.Time // the pod restarts: its counters start at zero
	End       time.Time // errors end
	Namespace string
	Pod       string
}

// Demo writes a data directory with the six hours until now of a small shop, as blocks of 2 h and a head.
// It has an incident 100 minutes before now: a pod of the checkout service leaks memory, returns errors,
// is killed and restarts. The samples depend on now only.
func Demo(ctx context.Context, dir string, now time.Time) (_ *Incident, err error) {
	const interval = 15 * time.Second
	now = now.UTC().Truncate(interval)
	at := now.Add(-100 * time.Minute).Truncate(time.Minute)
	d := &demo{Incident: Incident{
		Start: at, Killed: at.Add(20 * time.Minute), Restarted: at.Add(23 * time.Minute), End: at.Add(30 * time.Minute),
		Namespace: "shop", Pod: "checkout-0",
	}, r: rand.New(rand.NewPCG(1, 1)), values: map[string]float64{}, refs: map[string]storage.SeriesRef{}}

	opts := tsdb.DefaultOptions()
	opts.RetentionDuration = 0
	opts.WALCompression = compression.Snappy
	db, err := tsdb.Open(dir, nil, nil, opts, nil)
	if err != nil {
		return nil, fmt.Errorf("open the TSDB: %w", err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	db.DisableCompactions()
	for t := now.Add(-6 * time.Hour); !t.After(now); t = t.Add(interval) {
		d.t, d.app = t, db.Appender(ctx)
		for _, app := range demoPods() {
			for n := range app.replicas {
				d.pod(app, fmt.Sprintf("%s-%d", app.name, n))
			}
		}
		if d.err != nil {
			return nil, errors.Join(d.err, d.app.Rollback())
		}
		if err := d.app.Commit(); err != nil {
			return nil, fmt.Errorf("commit: %w", err)
		}
	}
	if err := db.Compact(ctx); err != nil {
		return nil, fmt.Errorf("compact: %w", err)
	}
	return &d.Incident, nil
}

type demoApp struct {
	namespace, name string
	replicas        int
	rate            float64 // requests a second
	memory          float64 // bytes
}

func demoPods() []demoApp {
	return []demoApp{
		{"shop", "checkout", 2, 20, 180e6},
		{"shop", "cart", 3, 45, 120e6},
		{"shop", "catalog", 3, 80, 260e6},
		{"payments", "gateway", 2, 18, 140e6},
		{"monitoring", "exporter", 1, 2, 40e6},
	}
}

// demo is the state of Demo.
type demo struct {
	Incident
	r      *rand.Rand
	t      time.Time
	app    storage.Appender
	values map[string]float64
	refs   map[string]storage.SeriesRef
	gone   bool
	hist   histogram.Histogram
	err    error
}

// pod appends one scrape of a pod.
func (d *demo) pod(app demoApp, pod string) {
	victim := app.namespace == d.Namespace && pod == d.Pod
	sick := victim && !d.t.Before(d.Start) && d.t.Before(d.Killed)
	dead := victim && !d.t.Before(d.Killed) && d.t.Before(d.Restarted)
	up, stale := 1.0, false
	if dead {
		up, stale = 0, !d.gone
		d.gone = true
	} else if victim && d.gone {
		d.gone = false
		d.hist = histogram.Histogram{}
	}
	base := []string{"namespace", app.namespace, "pod", pod}
	d.set("up", up, base...)
	if dead && !stale {
		return
	}
	ill := 0.0 // severity, rises from 0 to 1 until the pod is killed
	if sick {
		ill = d.t.Sub(d.Start).Seconds() / d.Killed.Sub(d.Start).Seconds()
	}
	// Other services see errors of the failing one until the end of the incident.
	trouble := 0.0
	if app.name == "cart" && d.t.After(d.Start.Add(5*time.Minute)) && d.t.Before(d.End) {
		trouble = 0.1
	}
	day := 1 + 0.2*math.Sin(float64(d.t.Unix())/3600)
	requests := app.rate * 15 * day * (0.9 + 0.2*d.r.Float64())
	failed := 0.002 + 0.6*ill + trouble
	for _, c := range []struct {
		code  string
		share float64
	}{{"200", 1 - failed - 0.01}, {"404", 0.01}, {"500", failed}} {
		d.add("http_requests_total", math.Round(max(0, requests*c.share)), stale, append(base, "code", c.code)...)
	}
	slow := 0.05 * (1 + 60*ill + 5*trouble)
	for _, le := range []float64{0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, math.Inf(1)} {
		d.add("http_request_duration_seconds_bucket", math.Round(requests*(1-math.Exp(-le/slow))), stale, append(base, "le", formatLe(le))...)
	}
	d.add("http_request_duration_seconds_count", math.Round(requests), stale, base...)
	d.add("http_request_duration_seconds_sum", requests*slow, stale, base...)
	memory := app.memory * (1 + 0.05*d.r.Float64() + 4.5*ill*ill)
	if stale {
		memory = math.Float64frombits(value.StaleNaN)
	}
	d.set("container_memory_working_set_bytes", memory, base...)
	d.set("container_spec_memory_limit_bytes", app.memory*5.5, base...)
	restarts := 0.0
	if victim && !d.t.Before(d.Restarted) {
		restarts = 1
	}
	d.set("kube_pod_container_status_restarts_total", restarts, base...)
	d.add("process_cpu_seconds_total", 15*(0.05+0.4*ill)*(0.9+0.2*d.r.Float64()), stale, base...)
	d.set("go_goroutines", math.Round(40+2000*ill*ill+5*d.r.Float64()), base...)
	if victim {
		d.native(requests, slow, stale)
	}
}

func formatLe(le float64) string {
	if math.IsInf(le, 1) {
		return "+Inf"
	}
	return fmt.Sprint(le)
}

func (d *demo) labels(name string, pairs []string) labels.Labels {
	return labels.FromStrings(append([]string{"__name__", name, "job", "kubernetes-pods"}, pairs...)...)
}

func (d *demo) set(name string, v float64, pairs ...string) {
	d.float(d.labels(name, pairs), v)
}

// add increases a counter. After a stale marker it starts at zero.
func (d *demo) add(name string, v float64, stale bool, pairs ...string) {
	ls := d.labels(name, pairs)
	key := ls.String()
	if stale {
		delete(d.values, key)
		d.float(ls, math.Float64frombits(value.StaleNaN))
		return
	}
	d.values[key] += v
	d.float(ls, d.values[key])
}

func (d *demo) float(ls labels.Labels, v float64) {
	key := ls.String()
	ref, err := d.app.Append(d.refs[key], ls, d.t.UnixMilli(), v)
	if err != nil && d.err == nil {
		d.err = fmt.Errorf("append to %s: %w", ls, err)
	}
	d.refs[key] = ref
}

// native appends the latency as a native histogram.
func (d *demo) native(requests, slow float64, stale bool) {
	ls := d.labels("rpc_duration_seconds", []string{"namespace", d.Namespace, "pod", d.Pod})
	const buckets = 40
	h := &d.hist
	if h.PositiveSpans == nil {
		*h = histogram.Histogram{Schema: 1, ZeroThreshold: 1e-128, PositiveSpans: []histogram.Span{{Offset: -19, Length: buckets}}, PositiveBuckets: make([]int64, buckets)}
	}
	counts, before := make([]uint64, buckets), int64(0)
	h.Count = 0
	for i := range counts {
		upper, lower := math.Pow(2, float64(i-19)/2), math.Pow(2, float64(i-20)/2)
		before += h.PositiveBuckets[i]
		counts[i] = uint64(before) + uint64(math.Round(requests*(math.Exp(-lower/slow)-math.Exp(-upper/slow))))
		h.Count += counts[i]
	}
	h.PositiveBuckets = deltas(counts)
	h.Sum += requests * slow
	out := h.Copy()
	if stale {
		out = &histogram.Histogram{Sum: math.Float64frombits(value.StaleNaN)}
	}
	if _, err := d.app.AppendHistogram(0, ls, d.t.UnixMilli(), out, nil); err != nil && d.err == nil {
		d.err = fmt.Errorf("append to %s: %w", ls, err)
	}
}
