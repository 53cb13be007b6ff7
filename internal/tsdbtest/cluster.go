package tsdbtest

import (
	"context"
	"fmt"
	"iter"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/record"
	"github.com/prometheus/prometheus/tsdb/wlog"
	"github.com/prometheus/prometheus/util/compression"
)

// cluster generates the series of a Kubernetes-like TSDB: metrics × namespaces × pods, sorted by labels.
// The values of a series continue from one block to the next.
type cluster struct {
	scale        Scale
	metrics      []metric
	spaces, pods int
	series       []state
	interval     int64
}

type shape uint8

const (
	slowCounter shape = iota // a few requests per second
	fastCounter              // bytes per second
	level                    // a gauge of whole numbers
	ratio                    // a gauge with all digits
	still                    // never changes
	native                   // a native histogram
)

type metric struct {
	name, le string
	shape    shape
}

type state struct {
	random uint64
	value  float64
}

const clusterSpaces = 50

func newCluster(scale Scale) *cluster {
	c := &cluster{scale: scale, spaces: clusterSpaces, interval: scale.Interval.Milliseconds()}
	const perPod = 116
	c.pods = max(1, scale.Series/(clusterSpaces*perPod))
	n := max(1, min(perPod, scale.Series/(clusterSpaces*c.pods)))
	bounds := []string{"+Inf", "0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "10", "2.5", "5"} // in string order
	for i := 0; len(c.metrics) < n; i++ {
		switch {
		case i%12 == 11 && n-len(c.metrics) >= len(bounds):
			for _, le := range bounds {
				c.metrics = append(c.metrics, metric{fmt.Sprintf("app_%03d_request_duration_seconds_bucket", i), le, slowCounter})
			}
		default:
			s := shape(i % int(native))
			c.metrics = append(c.metrics, metric{fmt.Sprintf("app_%03d_%s", i, []string{"requests_total", "bytes_total", "queue_length", "load_ratio", "info"}[s]), "", s})
		}
	}
	c.metrics = append(c.metrics, metric{"zzz_rpc_duration_seconds", "", native})
	for i := range (len(c.metrics)-1)*c.spaces*c.pods + c.spaces/2 {
		c.series = append(c.series, state{random: uint64(i)*0x9e3779b97f4a7c15 + 1})
	}
	return c
}

// at returns the metric, namespace and pod of series i.
func (c *cluster) at(i int) (m metric, space, pod int) {
	per := c.spaces * c.pods
	if i >= (len(c.metrics)-1)*per { // native histograms: one pod of every other namespace
		return c.metrics[len(c.metrics)-1], (i - (len(c.metrics)-1)*per) * 2, 0
	}
	return c.metrics[i/per], i % per / c.pods, i % c.pods
}

// pairs yields the sorted labels of series i.
func (c *cluster) pairs(i int) iter.Seq2[string, string] {
	m, space, pod := c.at(i)
	return func(yield func(string, string) bool) {
		_ = yield("__name__", m.name) &&
			yield("container", "app") &&
			yield("job", "kubernetes-pods") &&
			(m.le == "" || yield("le", m.le)) &&
			yield("namespace", fmt.Sprintf("namespace-%02d", space)) &&
			yield("pod", fmt.Sprintf("app-%02d-%05d-%05x", space, pod, (space*7919+pod*104729)&0xfffff))
	}
}

func (c *cluster) labels(i int) labels.Labels {
	b := labels.NewScratchBuilder(6)
	for name, value := range c.pairs(i) {
		b.Add(name, value)
	}
	return b.Labels()
}

// life returns the time range of a pod. One of twelve pods begins or ends within the time of the blocks.
func (c *cluster) life(space, pod int) (from, to int64) {
	end := c.scale.End.UnixMilli()
	start := end - c.scale.Blocks.Milliseconds()
	from, to = start, end+1<<40
	switch h := (space*31 + pod*17) % 24; h {
	case 5:
		from = start + c.scale.Blocks.Milliseconds()/3
	case 11:
		to = start + c.scale.Blocks.Milliseconds()*2/3
	}
	return from, to
}

// play calls emit for the samples of series i within [mint, maxt), until emit returns false.
func (c *cluster) play(i int, mint, maxt int64, emit func(t int64, v float64, h *histogram.Histogram) bool) {
	m, space, pod := c.at(i)
	interval := c.interval
	if m.shape == native {
		interval *= 12
	}
	offset := int64(space*8191+pod*131071) % c.interval // of the target's scrapes
	from, to := c.life(space, pod)
	first := (max(mint, from) + interval - 1) / interval * interval
	s := c.series[i]
	for t := first + offset; t < min(maxt, to); t += interval {
		h := s.next(m.shape)
		if !emit(t, s.value, h) {
			break
		}
	}
	c.series[i] = s
}

// next computes the next sample of a series. It uses xorshift, which is fast and random enough.
func (s *state) next(shape shape) *histogram.Histogram {
	s.random ^= s.random << 13
	s.random ^= s.random >> 7
	s.random ^= s.random << 17
	r := s.random
	switch shape {
	case slowCounter:
		if r&3 == 0 {
			s.value += float64(r >> 8 & 31)
		}
	case fastCounter:
		s.value += float64(r >> 8 & 0xffff)
	case level:
		if r&7 == 0 {
			s.value = float64(r >> 8 & 255)
		}
	case ratio:
		if r&1 == 0 {
			s.value = float64(r>>8&0xffffff) / 0xffffff
		}
	case still:
		s.value = 1
	case native:
		s.value += float64(r>>8&15) + 1
		n := int64(s.value)
		return &histogram.Histogram{
			Schema: 3, ZeroThreshold: 1e-128, Count: uint64(8 * n), Sum: s.value * 0.37,
			PositiveSpans:   []histogram.Span{{Offset: -10, Length: 8}},
			PositiveBuckets: []int64{n, 0, 0, 0, 0, 0, 0, 0},
		}
	}
	return nil
}

// head writes the WAL of the time after the last block like a server: one record for each scrape of a
// target, and a checkpoint with the series in place of the first segments. It returns the number of
// samples.
func (c *cluster) head(ctx context.Context, dir string) (samples int, err error) {
	quiet := slog.New(slog.DiscardHandler)
	const truncated = 2
	checkpoint := filepath.Join(dir, fmt.Sprintf("checkpoint.%08d", truncated))
	cp, err := wlog.New(quiet, nil, checkpoint, compression.Snappy)
	if err != nil {
		return 0, err
	}
	var enc record.Encoder
	var buf []byte
	for from := 0; from < len(c.series) && err == nil; from += 1000 {
		var refs []record.RefSeries
		for i := from; i < min(from+1000, len(c.series)); i++ {
			refs = append(refs, record.RefSeries{Ref: chunks.HeadSeriesRef(i + 1), Labels: c.labels(i)})
		}
		buf = enc.Series(refs, buf[:0])
		err = cp.Log(buf)
	}
	if e := cp.Close(); err == nil {
		err = e
	}
	if err != nil {
		return 0, fmt.Errorf("checkpoint: %w", err)
	}
	// A new log continues after the highest existing segment.
	if err := os.WriteFile(wlog.SegmentName(dir, truncated), nil, 0o666); err != nil {
		return 0, err
	}
	w, err := wlog.New(quiet, nil, dir, compression.Snappy)
	if err != nil {
		return 0, err
	}
	defer func() {
		if e := w.Close(); err == nil {
			err = e
		}
	}()
	if err := os.Remove(wlog.SegmentName(dir, truncated)); err != nil {
		return 0, err
	}
	from := c.scale.End.UnixMilli()
	to := from + c.scale.Head.Milliseconds()
	per := c.spaces * c.pods
	for t := from; t < to; t += c.interval {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		for target := range per {
			var floats []record.RefSample
			var histograms []record.RefHistogramSample
			add := func(i int) {
				c.play(i, t, t+c.interval, func(t int64, v float64, h *histogram.Histogram) bool {
					if h != nil {
						histograms = append(histograms, record.RefHistogramSample{Ref: chunks.HeadSeriesRef(i + 1), T: t, H: h})
					} else {
						floats = append(floats, record.RefSample{Ref: chunks.HeadSeriesRef(i + 1), T: t, V: v})
					}
					return true
				})
			}
			for m := range len(c.metrics) - 1 {
				add(m*per + target)
			}
			if space := target / c.pods; target%c.pods == 0 && space%2 == 0 {
				add((len(c.metrics)-1)*per + space/2)
			}
			if len(floats) > 0 {
				buf = enc.Samples(floats, buf[:0])
				if err := w.Log(buf); err != nil {
					return 0, err
				}
			}
			if len(histograms) > 0 {
				hbuf, _ := enc.HistogramSamples(histograms, nil)
				if err := w.Log(hbuf); err != nil {
					return 0, err
				}
			}
			samples += len(floats) + len(histograms)
		}
	}
	return samples, nil
}
