//go:build linux

package kube

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/promdump/promdump/internal/tsdbtest"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/prompb"
)

// dataset is a data dir on this machine, for podOptions.data.
type dataset struct {
	dir      string
	size     *tsdbtest.Size
	from, to time.Time // of its samples
	head     time.Time // where its last block ends
}

type seeds struct {
	once sync.Once
	data dataset
	err  error
}

var seeded seeds

// seed is the data that most pods have: that of a small cluster, 3,025 series of
// 50 namespaces with native histograms, every 15 s; 6 h in blocks, and, as in a
// server that lives, one to three hours until now in the head. Nobody writes to it.
func seed(t *testing.T) dataset {
	t.Helper()
	seeded.once.Do(func() { seeded.make(booted(t).dir) })
	if seeded.err != nil {
		t.Fatal(seeded.err)
	}
	return seeded.data
}

func (s *seeds) make(dir string) {
	d := &s.data
	if d.dir, s.err = os.MkdirTemp(dir, "seed-"); s.err != nil {
		return
	}
	if s.err = os.Chmod(d.dir, 0o755); s.err != nil { // the server's user reads it
		return
	}
	d.to = time.Now().Truncate(15 * time.Second)
	d.head = d.to.Add(-time.Hour).Truncate(2 * time.Hour)
	d.from = d.head.Add(-6 * time.Hour)
	d.size, s.err = tsdbtest.Bench(context.Background(), d.dir, tsdbtest.Scale{
		Series: 3000, Blocks: d.head.Sub(d.from), End: d.head, Head: d.to.Sub(d.head),
	})
}

const (
	fillStep       = 30 * time.Second
	fillPods       = 400
	fillNamespaces = 5
	fillSeries     = 5*fillPods + fillNamespaces
)

// fill sends fillSeries series by remote write, a sample every fillStep from from
// until before to, in the order of time, and waits until the server has made
// blocks of what is older than a head is. So the server must be quiet: what it
// scraped would be newer, and what comes late stays out of order for hours.
//
// Every value depends on series and time alone, see filled.
func (p *pod) fill(from, to time.Time) {
	p.t.Helper()
	from = from.Truncate(fillStep)
	for at := from; at.Before(to); {
		all := fillLabels()
		for range 10 {
			for i := range all {
				if i >= 5*fillPods {
					all[i].Histograms = append(all[i].Histograms, prompb.FromIntHistogram(at.UnixMilli(), filledHistogram(i, at)))
				} else {
					all[i].Samples = append(all[i].Samples, prompb.Sample{Timestamp: at.UnixMilli(), Value: filled(i, at)})
				}
			}
			if at = at.Add(fillStep); !at.Before(to) {
				break
			}
		}
		p.write(all...)
	}
	const headLimit = 3 * time.Hour // then the oldest 2 h of it become a block
	if to.Sub(from) <= headLimit {
		return
	}
	if !poll(60*time.Second, func() bool {
		first, last := p.head()
		return last-first <= headLimit.Milliseconds() && len(p.blocks()) > 0
	}) {
		first, last := p.head()
		p.t.Fatalf("the server makes no blocks: its head has %s, and there are blocks %v", time.Duration(last-first)*time.Millisecond, p.blocks())
	}
}

// filled is the value of the i-th series at a time.
func filled(i int, at time.Time) float64 {
	n := at.UnixMilli() / fillStep.Milliseconds()
	switch i % 5 {
	case 0: // a counter that starts anew at times
		return float64(n % 1000 * int64(1+i%7))
	case 1:
		return float64(n*int64(i)%1009) / 7
	case 2: // rarely changes
		return float64(n / 50)
	case 3:
		return float64(i)
	default:
		return float64(n^int64(i)) / 3
	}
}

func filledHistogram(i int, at time.Time) *histogram.Histogram {
	n := at.UnixMilli()/fillStep.Milliseconds()%100_000 + int64(i)
	return &histogram.Histogram{
		Schema: 2, ZeroThreshold: 1e-128, Count: uint64(4 * n), Sum: float64(n) / 2,
		PositiveSpans: []histogram.Span{{Offset: -2, Length: 4}}, PositiveBuckets: []int64{n, 0, 0, 0},
	}
}

// fillLabels names the series: five metrics of each pod, and a native histogram
// of each namespace.
func fillLabels() (all []prompb.TimeSeries) {
	space := func(i int) prompb.Label {
		return prompb.Label{Name: "namespace", Value: fmt.Sprintf("ns-%d", i%fillNamespaces)}
	}
	for i := range 5 * fillPods {
		all = append(all, prompb.TimeSeries{Labels: []prompb.Label{
			{Name: "__name__", Value: fmt.Sprintf("filled_%d", i%5)}, space(i / 5), {Name: "pod", Value: fmt.Sprintf("pod-%03d", i/5)},
		}})
	}
	for i := range fillNamespaces {
		all = append(all, prompb.TimeSeries{Labels: []prompb.Label{{Name: "__name__", Value: "filled_histogram"}, space(i)}})
	}
	return all
}

// blocks are the names of the blocks in the data dir.
func (p *pod) blocks() (names []string) {
	p.t.Helper()
	metas, err := filepath.Glob(filepath.Join(p.path(p.dataDir()), "*", "meta.json"))
	if err != nil {
		p.t.Fatal(err)
	}
	for _, meta := range metas {
		names = append(names, filepath.Base(filepath.Dir(meta)))
	}
	slices.Sort(names)
	return names
}

// dataDir is the flag of the server that runs.
func (p *pod) dataDir() string {
	p.t.Helper()
	_, after, ok := strings.Cut(readProcess(p.host()).args, "--storage.tsdb.path=")
	if !ok {
		p.t.Fatal("the server has no --storage.tsdb.path")
	}
	dir, _, _ := strings.Cut(after, " ")
	return dir
}
