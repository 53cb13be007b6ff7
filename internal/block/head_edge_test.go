package block

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/record"
	"github.com/prometheus/prometheus/tsdb/tombstones"

	"github.com/promdump/promdump/internal/wire"
)

var (
	plain  record.Encoder
	withST = record.Encoder{EnableSTStorage: true}
)

func seriesRecord(refs ...chunks.HeadSeriesRef) []byte {
	var all []record.RefSeries
	for _, ref := range refs { // refs that differ by hundreds have the same labels
		all = append(all, record.RefSeries{Ref: ref, Labels: labels.FromStrings("__name__", "m", "i", fmt.Sprint(ref%100))})
	}
	return plain.Series(all, nil)
}

func floatsRecord(enc record.Encoder, samples ...record.RefSample) []byte {
	return enc.Samples(samples, nil)
}

func stone(ref storage.SeriesRef, mint, maxt int64) []byte {
	return plain.Tombstones([]tombstones.Stone{{Ref: ref, Intervals: tombstones.Intervals{{Mint: mint, Maxt: maxt}}}}, nil)
}

func counts(n int64) *histogram.Histogram {
	return &histogram.Histogram{
		Schema: 1, Count: uint64(3 * n), Sum: float64(n), ZeroThreshold: 0.01,
		PositiveSpans: []histogram.Span{{Length: 2}}, PositiveBuckets: []int64{n, n},
	}
}

func histRecord(enc record.Encoder, samples ...record.RefHistogramSample) []byte {
	rec, _ := enc.HistogramSamples(samples, nil)
	return rec
}

func TestHeadRules(t *testing.T) {
	everything := HeadSpec{MinTime: math.MinInt64, MaxTime: math.MaxInt64, BlockRange: 1000}
	nan := math.Float64frombits(0x7ff8_dead_beef_0001)
	for _, c := range []struct {
		name     string
		spec     HeadSpec
		wal, wbl [][]byte
		want     string // i: time=value …; a histogram's value is its count with an h before it
		ignored  HeadIgnored
	}{
		{name: "nothing", want: ""},
		{name: "no sample", wal: [][]byte{seriesRecord(1, 2)}, want: ""},
		{
			name: "several refs are one series",
			wal: [][]byte{
				seriesRecord(1, 2, 101), floatsRecord(plain, record.RefSample{Ref: 1, T: 1, V: 1}, record.RefSample{Ref: 101, T: 2, V: 2}),
				seriesRecord(201), floatsRecord(plain, record.RefSample{Ref: 201, T: 2, V: 9}, record.RefSample{Ref: 1, T: 3, V: 3}),
			},
			wbl:     [][]byte{floatsRecord(plain, record.RefSample{Ref: 201, T: -5, V: 5})},
			want:    "1: -5=5 1=1 2=2 3=3",
			ignored: HeadIgnored{NotInOrder: 1},
		},
		{
			name: "both ends of the range, windows around zero",
			spec: HeadSpec{MinTime: -2001, MaxTime: 1000, BlockRange: 1000},
			wal: [][]byte{seriesRecord(1), floatsRecord(plain,
				record.RefSample{Ref: 1, T: -2002, V: 1}, record.RefSample{Ref: 1, T: -2001, V: 2}, record.RefSample{Ref: 1, T: -2000, V: 3},
				record.RefSample{Ref: 1, T: -1, V: 4}, record.RefSample{Ref: 1, T: 0, V: 5}, record.RefSample{Ref: 1, T: 999, V: nan},
				record.RefSample{Ref: 1, T: 1000, V: 6}, record.RefSample{Ref: 1, T: 1001, V: 7})},
			wbl: [][]byte{floatsRecord(plain, record.RefSample{Ref: 1, T: -3000, V: 9}, record.RefSample{Ref: 1, T: 1002, V: 9},
				record.RefSample{Ref: 1, T: 500, V: 10})},
			want: "1: -2001=2 -2000=3 -1=4 0=5 500=10 999=0x7ff8deadbeef0001 1000=6",
		},
		{
			name: "in order wins, and the first of those that are not",
			wal:  [][]byte{seriesRecord(1), floatsRecord(plain, record.RefSample{Ref: 1, T: 1, V: 1}, record.RefSample{Ref: 1, T: 9, V: 9})},
			wbl: [][]byte{floatsRecord(plain, record.RefSample{Ref: 1, T: 9, V: 90}, record.RefSample{Ref: 1, T: 5, V: 5}, record.RefSample{Ref: 1, T: 1, V: 10},
				record.RefSample{Ref: 1, T: 5, V: 50})},
			want: "1: 1=1 5=5 9=9",
		},
		{
			name: "a sample beyond the range is the newest all the same",
			spec: HeadSpec{MinTime: 0, MaxTime: 100, BlockRange: 1000},
			wal:  [][]byte{seriesRecord(1), floatsRecord(plain, record.RefSample{Ref: 1, T: 150, V: 1}, record.RefSample{Ref: 1, T: 80, V: 2})},
			want: "", ignored: HeadIgnored{NotInOrder: 1},
		},
		{
			name: "deleted intervals, both ends included",
			wal: [][]byte{
				seriesRecord(1, 2), floatsRecord(plain, record.RefSample{Ref: 1, T: 1, V: 1}, record.RefSample{Ref: 1, T: 2, V: 2}, record.RefSample{Ref: 1, T: 3, V: 3}, record.RefSample{Ref: 2, T: 4, V: 4}),
				stone(1, 2, 3), stone(2, 0, 1000), stone(1, 9, 5), floatsRecord(plain, record.RefSample{Ref: 1, T: 4, V: 4}),
			},
			wbl:  [][]byte{floatsRecord(plain, record.RefSample{Ref: 1, T: 2, V: 2}, record.RefSample{Ref: 1, T: 0, V: 7})},
			want: "1: 0=7 1=1 4=4",
		},
		{
			name: "a series that left the head, and one that came back",
			wal: [][]byte{
				seriesRecord(1, 2, 101), floatsRecord(plain, record.RefSample{Ref: 1, T: 1, V: 1}, record.RefSample{Ref: 2, T: 1, V: 1}),
				stone(101, math.MinInt64, math.MaxInt64), floatsRecord(plain, record.RefSample{Ref: 1, T: 2, V: 2}),
				seriesRecord(301), floatsRecord(plain, record.RefSample{Ref: 301, T: 1, V: 3}),
			},
			wbl:  [][]byte{floatsRecord(plain, record.RefSample{Ref: 101, T: 0, V: 9}, record.RefSample{Ref: 77, T: 0, V: 9}), stone(2, 0, 9)},
			want: "1: 1=3\n2: 1=1", ignored: HeadIgnored{UnknownSeries: 3},
		},
		{
			name: "stale markers are of the kind before, also of one that is out of range",
			spec: HeadSpec{MinTime: 2, MaxTime: 100, BlockRange: 1000},
			wal: [][]byte{
				seriesRecord(1, 2), histRecord(plain, record.RefHistogramSample{Ref: 1, T: 1, H: counts(1)}),
				floatsRecord(plain, record.RefSample{Ref: 1, T: 2, V: staleNaN}, record.RefSample{Ref: 2, T: 2, V: staleNaN}),
			},
			want: "1: 2=hstale\n2: 2=0x7ff0000000000002",
		},
		{
			name: "start timestamps change the chunk, and nothing else",
			wal: [][]byte{
				seriesRecord(1), floatsRecord(plain, record.RefSample{Ref: 1, T: 1, V: 1}), floatsRecord(withST, record.RefSample{Ref: 1, ST: -7, T: 2, V: 2}),
				floatsRecord(plain, record.RefSample{Ref: 1, T: 3, V: 3}), histRecord(plain, record.RefHistogramSample{Ref: 1, T: 4, H: counts(1)}),
				histRecord(withST, record.RefHistogramSample{Ref: 1, T: 5, ST: 3, H: counts(2)}),
			},
			wbl:  [][]byte{floatsRecord(withST, record.RefSample{Ref: 1, ST: -9, T: 0, V: 0})},
			want: "1: 0=0@-9 1=1 2=2@-7 3=3 4=h3 5=h6@3",
		},
		{
			name: "the ends of time",
			spec: HeadSpec{MinTime: math.MinInt64, MaxTime: math.MaxInt64},
			wal:  [][]byte{seriesRecord(1), floatsRecord(withST, record.RefSample{Ref: 1, T: math.MinInt64 + 1, V: 1}), floatsRecord(withST, record.RefSample{Ref: 1, T: math.MaxInt64 - 1, V: 2})},
			want: "1: -9223372036854775807=1 9223372036854775806=2",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.spec == (HeadSpec{}) {
				c.spec = everything
			}
			c.spec.Parent = t.TempDir()
			h, err := NewHeadBuilder(c.spec)
			if err != nil {
				t.Fatal(err)
			}
			feed(t, h, wire.WAL, c.wal)
			feed(t, h, wire.WBL, c.wbl)
			built, err := h.Finish(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, dump(t, built)); diff != "" {
				t.Errorf("want -, got +:\n%s", diff)
			}
			if diff := cmp.Diff(c.ignored, h.Ignored()); diff != "" {
				t.Errorf("ignored: want -, got +:\n%s", diff)
			}
			if _, err := h.Finish(context.Background()); err == nil {
				t.Error("finished twice")
			}
		})
	}
}

// dump reads the samples of the blocks in order, chunk by chunk.
func dump(t testing.TB, built []*Built) string {
	t.Helper()
	samples := map[string][]string{}
	var names []string
	for _, b := range built {
		block, err := tsdb.OpenBlock(nil, b.Dir, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer block.Close()
		q, err := tsdb.NewBlockQuerier(block, math.MinInt64, math.MaxInt64)
		if err != nil {
			t.Fatal(err)
		}
		defer q.Close()
		set := q.Select(context.Background(), true, nil, labels.MustNewMatcher(labels.MatchRegexp, "i", ".*"))
		for set.Next() {
			name := set.At().Labels().Get("i")
			if samples[name] == nil {
				names = append(names, name)
			}
			it := set.At().Iterator(nil)
			for typ := it.Next(); typ != chunkenc.ValNone; typ = it.Next() {
				s := fmt.Sprintf("%d=", it.AtT())
				switch typ {
				case chunkenc.ValFloat:
					_, v := it.At()
					if v != v {
						s += fmt.Sprintf("%#x", math.Float64bits(v))
					} else {
						s += fmt.Sprint(v)
					}
				case chunkenc.ValHistogram:
					_, h := it.AtHistogram(nil)
					if h.Sum != h.Sum {
						s += "hstale"
					} else {
						s += fmt.Sprintf("h%d", h.Count)
					}
				default:
					s += typ.String()
				}
				if it.AtST() != 0 {
					s += fmt.Sprintf("@%d", it.AtST())
				}
				samples[name] = append(samples[name], s)
			}
			if it.Err() != nil {
				t.Fatal(it.Err())
			}
		}
		if set.Err() != nil {
			t.Fatal(set.Err())
		}
	}
	var lines []string
	for _, name := range names {
		lines = append(lines, name+": "+strings.Join(samples[name], " "))
	}
	return strings.Join(lines, "\n")
}

// TestHeadChunkSizes checks that chunks have the sizes of Prometheus' chunks.
func TestHeadChunkSizes(t *testing.T) {
	var wal [][]byte
	wal = append(wal, seriesRecord(1, 2, 3))
	for i := range int64(1000) {
		h := counts(i)
		h.PositiveSpans[0].Length, h.PositiveBuckets = 60, make([]int64, 60)
		for j := range h.PositiveBuckets {
			h.PositiveBuckets[j] = i * int64(j%3-1) * 1000
		}
		h.CounterResetHint = histogram.GaugeType
		wal = append(wal, floatsRecord(plain, record.RefSample{Ref: 1, T: i, V: 1}, record.RefSample{Ref: 2, T: i, V: math.Sqrt(float64(i*i*i + 3))}),
			histRecord(plain, record.RefHistogramSample{Ref: 3, T: i, H: h}))
	}
	for _, b := range buildHead(t, HeadSpec{Parent: t.TempDir(), MinTime: 0, MaxTime: 1000}, wal, nil) {
		eachChunk(t, b, func(series string, m chunks.Meta, last bool) {
			n, size := m.Chunk.NumSamples(), len(m.Chunk.Bytes())
			switch enc := m.Chunk.Encoding(); enc {
			case chunkenc.EncXOR:
				if n > 120 || size > 1024 || !last && n < 120 && size < 1000 {
					t.Errorf("%s: float chunk of %d samples, %d bytes", series, n, size)
				}
			case chunkenc.EncHistogram:
				if !last && (n < 10 || n > 10 && size > 2*1024) {
					t.Errorf("%s: histogram chunk of %d samples, %d bytes", series, n, size)
				}
			default:
				t.Errorf("%s: encoding %s", series, enc)
			}
		})
	}
}

// TestHeadKeepsUntouchedChunks checks that chunks without an out-of-order sample between their
// ends are written unchanged.
func TestHeadKeepsUntouchedChunks(t *testing.T) {
	wal := [][]byte{seriesRecord(1)}
	for i := range int64(600) {
		wal = append(wal, floatsRecord(plain, record.RefSample{Ref: 1, T: 10 * i, V: math.Sqrt(float64(i))}))
	}
	read := func(wbl [][]byte) (all [][]byte) {
		for _, b := range buildHead(t, HeadSpec{Parent: t.TempDir(), MinTime: 0, MaxTime: 1 << 20}, wal, wbl) {
			data, err := os.ReadFile(filepath.Join(b.Dir, "chunks", "000001"))
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, data)
		}
		return all
	}
	without, with := read(nil), read([][]byte{floatsRecord(plain, record.RefSample{Ref: 1, T: 5, V: 1}, record.RefSample{Ref: 1, T: 5985, V: 1})})
	if len(without) != 1 || len(with) != 1 {
		t.Fatal("want one block")
	}
	n := len(without[0])
	if !bytes.Contains(with[0], without[0][n*2/5:n*3/5]) {
		t.Error("chunks between those with an out-of-order sample have changed")
	}
}

// TestHeadKeepsTheFirstOfMany adds many out-of-order samples with the same time. The first is kept.
func TestHeadKeepsTheFirstOfMany(t *testing.T) {
	wbl := make([][]byte, 0, 500)
	for i := range int64(500) {
		wbl = append(wbl, floatsRecord(plain, record.RefSample{Ref: 1, T: i % 50, V: float64(i)}))
	}
	var want []string
	for i := range 50 {
		want = append(want, fmt.Sprintf("%d=%d", i, i))
	}
	built := buildHead(t, HeadSpec{Parent: t.TempDir(), MinTime: 0, MaxTime: 100}, [][]byte{seriesRecord(1)}, wbl)
	if diff := cmp.Diff("1: "+strings.Join(want, " "), dump(t, built)); diff != "" {
		t.Errorf("want -, got +:\n%s", diff)
	}
}

// TestHeadForgetsResets checks the counter reset header of a chunk: it becomes unknown when the
// sample before the chunk is an out-of-order one or was deleted.
func TestHeadForgetsResets(t *testing.T) {
	wal := [][]byte{
		seriesRecord(1), histRecord(plain, record.RefHistogramSample{Ref: 1, T: 10, H: counts(1)}),
		histRecord(withST, record.RefHistogramSample{Ref: 1, T: 30, ST: 3, H: counts(5)}), // begins a new chunk
	}
	for _, c := range []struct {
		name     string
		wal, wbl [][]byte
		want     chunkenc.CounterResetHeader
	}{
		{"as it was", wal, nil, chunkenc.NotCounterReset},
		{"late", wal, [][]byte{histRecord(plain, record.RefHistogramSample{Ref: 1, T: 20, H: counts(9)})}, chunkenc.UnknownCounterReset},
		{"deleted", append(slices.Clip(wal), stone(1, 10, 20)), nil, chunkenc.UnknownCounterReset},
	} {
		found := false
		eachChunk(t, buildHead(t, HeadSpec{Parent: t.TempDir(), MinTime: 0, MaxTime: 100}, c.wal, c.wbl)[0], func(_ string, m chunks.Meta, _ bool) {
			if m.MinTime != 30 {
				return
			}
			found = true
			if got := chunkenc.CounterResetHeader(*counterResetHeader(m.Chunk.Encoding(), m.Chunk.Bytes()) & chunkenc.CounterResetHeaderMask); got != c.want {
				t.Errorf("%s: the chunk from 30 on has counter reset header %#x, want %#x", c.name, got, c.want)
			}
		})
		if !found {
			t.Errorf("%s: no chunk begins at 30", c.name)
		}
	}
}

// eachChunk calls f for the chunks of a block, with true for the last one of a series.
func eachChunk(t *testing.T, b *Built, visit func(series string, m chunks.Meta, last bool)) {
	t.Helper()
	r, err := chunks.NewDirReader(filepath.Join(b.Dir, "chunks"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	block, err := tsdb.OpenBlock(nil, b.Dir, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer block.Close()
	ir, err := block.Index()
	if err != nil {
		t.Fatal(err)
	}
	defer ir.Close()
	p, err := ir.Postings(context.Background(), "__name__", "m")
	if err != nil {
		t.Fatal(err)
	}
	for p.Next() {
		var lb labels.ScratchBuilder
		var metas []chunks.Meta
		if err := ir.Series(p.At(), &lb, &metas); err != nil {
			t.Fatal(err)
		}
		for i, m := range metas {
			if m.Chunk, _, err = r.ChunkOrIterable(m); err != nil {
				t.Fatal(err)
			}
			visit(lb.Labels().String(), m, i == len(metas)-1)
		}
	}
}

// TestHeadShards checks that the blocks do not depend on the number of shards, and that no
// goroutine is left.
func TestHeadShards(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	var records [][]byte
	for ref := range chunks.HeadSeriesRef(100) {
		records = append(records, seriesRecord(ref+1))
	}
	for at := range int64(50) {
		var samples []record.RefSample
		for ref := range chunks.HeadSeriesRef(100) {
			samples = append(samples, record.RefSample{Ref: ref + 1, T: at * 1000, V: float64(at) * float64(ref)})
		}
		records = append(records, floatsRecord(plain, samples...))
	}
	late := floatsRecord(plain, record.RefSample{Ref: 7, T: 2500, V: 1}, record.RefSample{Ref: 99, T: 1500, V: 2}, record.RefSample{Ref: 5000, T: 1, V: 1})
	before := runtime.NumGoroutine()
	names := map[string]bool{}
	for _, n := range []int{1, 2, 3, 8} {
		runtime.GOMAXPROCS(n)
		h, err := NewHeadBuilder(HeadSpec{Parent: t.TempDir(), MaxTime: 1e6, BlockRange: 20_000})
		if err != nil {
			t.Fatal(err)
		}
		if want := min(n, maxShards); len(h.shards) != want {
			t.Errorf("%d processors: %d shards, want %d", n, len(h.shards), want)
		}
		for _, rec := range records {
			feed(t, h, wire.WAL, [][]byte{rec})
		}
		feed(t, h, wire.WBL, [][]byte{late})
		built, err := h.Finish(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		all := ""
		var samples uint64
		for _, b := range built {
			all += b.Meta.ULID.String() + " " // derived from the contents
			samples += b.Meta.Stats.NumSamples
		}
		names[all] = true
		if samples != 100*50+2 || len(built) != 3 || h.Ignored() != (HeadIgnored{UnknownSeries: 1}) {
			t.Errorf("%d processors: %d samples in %d blocks, ignored %+v", n, samples, len(built), h.Ignored())
		}
		// A builder that is discarded before Finish.
		if h, err = NewHeadBuilder(HeadSpec{Parent: t.TempDir(), MaxTime: 1e6}); err != nil {
			t.Fatal(err)
		}
		feed(t, h, wire.WAL, records)
		if err := h.Discard(); err != nil {
			t.Error(err)
		}
	}
	if len(names) != 1 {
		t.Errorf("the blocks depend on the number of processors: %v", names)
	}
	for range 100 {
		if runtime.NumGoroutine() <= before {
			return
		}
		runtime.Gosched()
	}
	if n := runtime.NumGoroutine(); n > before {
		t.Errorf("%d goroutines are left", n-before)
	}
}
