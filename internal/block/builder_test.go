package block

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/tombstones"

	"github.com/promdump/promdump/internal/wire"
)

// TestBuilderKeepsExactlyTheSelection compares the samples of built blocks with those of their
// sources in the range.
func TestBuilderKeepsExactlyTheSelection(t *testing.T) {
	const start = 1_700_000_000_000
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			var src string
			switch seed % 4 {
			case 0, 1:
				src = libraryBlock(t, r, t.TempDir(), 60, 400, start)
			case 2:
				src = compactedBlock(t, r, start)
			case 3:
				src = encodingsBlock(t, r, t.TempDir(), start, false)
			}
			mustBeClean(t, src)
			if seed%4 != 0 {
				deleteSome(t, r, src)
				mustBeClean(t, src)
			}
			meta, err := ReadMeta(src)
			if err != nil {
				t.Fatal(err)
			}
			all := readBlock(t, src)
			for range 4 {
				mint := meta.MinTime + r.Int64N(meta.MaxTime-meta.MinTime)
				maxt := mint + r.Int64N(meta.MaxTime-mint)
				switch r.IntN(5) {
				case 0:
					mint, maxt = meta.MinTime, meta.MaxTime-1
				case 1:
					maxt = mint
				}
				want := queryBlock(t, src, mint, maxt)
				built := build(t, r, all, mint, maxt)
				if built == nil {
					if len(want) > 0 {
						t.Errorf("[%d, %d]: no block, but %d series have samples", mint, maxt, len(want))
					}
					continue
				}
				sameAnswers(t, want, queryBlock(t, built.Dir, math.MinInt64, math.MaxInt64))
				bytesKept(t, all, built.Dir, mint, maxt)
				stats := mustBeClean(t, built.Dir)
				if stats.Series != uint64(len(want)) {
					t.Errorf("the built block has %d series, %d have samples", stats.Series, len(want))
				}
				if built.Meta.MinTime != mint || built.Meta.MaxTime != maxt+1 {
					t.Errorf("meta.json has the range %d to %d, want %d to %d", built.Meta.MinTime, built.Meta.MaxTime, mint, maxt+1)
				}
				onDisk, err := ReadMeta(built.Dir)
				if err != nil {
					t.Fatal(err)
				}
				if d := cmp.Diff(&built.Meta, onDisk); d != "" {
					t.Error("meta on disk differs:", d)
				}
			}
		})
	}
}

// compactedBlock merges overlapping blocks with the TSDB's compactor.
func compactedBlock(t *testing.T, r *rand.Rand, start int64) string {
	t.Helper()
	parent := t.TempDir()
	dirs := []string{
		libraryBlock(t, r, parent, 40, 300, start),
		libraryBlock(t, r, parent, 50, 300, start+100*step),
	}
	c, err := tsdb.NewLeveledCompactor(t.Context(), nil, slog.New(slog.DiscardHandler), []int64{1000 * 3600 * 24}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	ids, err := c.Compact(parent, dirs, nil)
	if err != nil || len(ids) != 1 {
		t.Fatal(ids, err)
	}
	return filepath.Join(parent, ids[0].String())
}

// bytesKept checks that the block has the original bytes of chunks inside the range without deletions.
func bytesKept(t *testing.T, all []stored, dir string, mint, maxt int64) {
	t.Helper()
	built := map[string]map[int64]wire.Chunk{}
	for _, s := range readBlock(t, dir) {
		byStart := map[int64]wire.Chunk{}
		for _, c := range s.chunks {
			byStart[c.MinTime] = c
		}
		built[s.labels.String()] = byStart
	}
	for _, s := range all {
	chunk:
		for _, c := range s.chunks {
			if c.MinTime < mint || c.MaxTime > maxt {
				continue
			}
			for _, d := range s.deleted {
				if d.MinTime <= c.MaxTime && c.MinTime <= d.MaxTime {
					continue chunk
				}
			}
			got := built[s.labels.String()][c.MinTime]
			if got.Encoding != c.Encoding || got.MaxTime != c.MaxTime || !bytes.Equal(got.Data, c.Data) {
				t.Errorf("series %.200s: the chunk at %d is inside the range, and its bytes changed", s.labels, c.MinTime)
			}
		}
	}
}

func TestCutChunksKeepTheirEncoding(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	all := readBlock(t, encodingsBlock(t, r, t.TempDir(), 1000, false))
	for _, s := range all {
		c := s.chunks[1]
		mid := c.MinTime + (c.MaxTime-c.MinTime)/2
		built := build(t, r, []stored{s}, mid, c.MaxTime)
		for _, got := range readBlock(t, built.Dir)[0].chunks {
			if got.Encoding != c.Encoding {
				t.Errorf("a chunk of encoding %d became one of %d", c.Encoding, got.Encoding)
			}
		}
		// A chunk without its end keeps its counter reset header.
		if h := counterResetHeader(chunkenc.Encoding(c.Encoding), c.Data); h != nil {
			head := build(t, r, []stored{s}, c.MinTime, mid)
			got := readBlock(t, head.Dir)[0].chunks[0]
			if g := counterResetHeader(chunkenc.Encoding(got.Encoding), got.Data); *g>>6 != *h>>6 {
				t.Errorf("encoding %d: the reset header is %x, was %x", c.Encoding, *g>>6, *h>>6)
			}
		}
	}
}

func TestCutKeepsCounterResetHeader(t *testing.T) {
	var points []point
	for i := range 20 {
		points = append(points, histograms.point(rand.New(rand.NewPCG(7, 7)), i, int64(i)))
	}
	for _, enc := range []chunkenc.Encoding{chunkenc.EncHistogram, chunkenc.EncHistogramST} {
		data := encode(t, enc, points)[0].Chunk.Bytes()
		*counterResetHeader(enc, data) |= byte(chunkenc.CounterReset)
		for from, want := range map[int64]chunkenc.CounterResetHeader{0: chunkenc.CounterReset, 3: chunkenc.UnknownCounterReset} {
			var c cutter
			drop := tombstones.Intervals{{Mint: math.MinInt64, Maxt: from - 1}, {Mint: 10, Maxt: math.MaxInt64}}
			metas, err := c.cut(nil, enc, data, drop)
			if err != nil || len(metas) != 1 {
				t.Fatal(metas, err)
			}
			if got := *counterResetHeader(enc, metas[0].Chunk.Bytes()) & chunkenc.CounterResetHeaderMask; got != byte(want) {
				t.Errorf("%s from %d: header %x, want %x", enc, from, got, want)
			}
			if n := metas[0].Chunk.NumSamples(); n != int(10-from) {
				t.Errorf("%s from %d: %d samples", enc, from, n)
			}
		}
	}
}

func TestUnknownEncoding(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	src := encodingsBlock(t, r, t.TempDir(), 1000, true)
	all := readBlock(t, src)
	meta, err := ReadMeta(src)
	if err != nil {
		t.Fatal(err)
	}
	built := build(t, r, all, meta.MinTime, meta.MaxTime-1)
	bytesKept(t, all, built.Dir, meta.MinTime, meta.MaxTime-1)
	if stats := mustBeClean(t, built.Dir); stats.Unknown != 6 {
		t.Errorf("%d chunks of unknown encoding, want 6", stats.Unknown)
	}

	last := all[0].chunks[len(all[0].chunks)-1]
	for name, s := range map[string]stored{
		"border":  {labels: all[0].labels, chunks: []wire.Chunk{last}},
		"deleted": {labels: all[0].labels, chunks: []wire.Chunk{last}, deleted: []wire.Interval{{MinTime: last.MaxTime, MaxTime: last.MaxTime + 5}}},
	} {
		mint := last.MinTime
		if name == "border" {
			mint++
		}
		b, err := NewBuilder(Spec{Parent: t.TempDir(), MinTime: mint, MaxTime: last.MaxTime})
		if err != nil {
			t.Fatal(err)
		}
		err = send(t, nil, b, []stored{s}, mint, last.MaxTime)
		enc, ok := errors.AsType[*EncodingError](err)
		if !ok || enc.Encoding != 77 || !strings.Contains(err.Error(), "--whole-blocks") || !strings.Contains(err.Error(), "enc=") {
			t.Errorf("%s: the error is %v", name, err)
		}
		if _, again := b.Finish(t.Context()); !errors.Is(again, err) {
			t.Errorf("%s: Finish after the error returns %v", name, again)
		}
		if err := b.Discard(); err != nil {
			t.Error(err)
		}
	}
	// A completely deleted chunk need not be decoded.
	gone := stored{labels: all[0].labels, chunks: []wire.Chunk{last}, deleted: []wire.Interval{{MinTime: last.MinTime, MaxTime: last.MaxTime}}}
	if built := build(t, nil, []stored{gone}, 0, math.MaxInt64); built != nil {
		t.Error("a deleted chunk was kept")
	}
}

func TestOverlappingChunksAreMerged(t *testing.T) {
	points := func(from, to, by int64) (out []point) {
		for at := from; at < to; at += by {
			out = append(out, point{t: at, f: float64(at)})
		}
		return out
	}
	chunk := func(p []point) wire.Chunk {
		m := encode(t, chunkenc.EncXOR, p)[0]
		return wire.Chunk{MinTime: m.MinTime, MaxTime: m.MaxTime, Encoding: uint8(chunkenc.EncXOR), Data: m.Chunk.Bytes()}
	}
	for seed := range uint64(20) { // random parts
		s := stored{labels: testLabels(1), chunks: []wire.Chunk{
			chunk(points(0, 100, 10)), chunk(points(200, 300, 10)), chunk(points(255, 500, 10)), chunk(points(256, 260, 1)), chunk(points(600, 700, 10)),
		}}
		built := build(t, rand.New(rand.NewPCG(seed, 9)), []stored{s}, 50, 650)
		if stats := mustBeClean(t, built.Dir); stats.Samples != 5+10+25+4+6 {
			t.Fatalf("%d samples, want 50", stats.Samples)
		}
		for _, got := range queryBlock(t, built.Dir, 0, 1000) {
			last := int64(-1)
			for _, a := range got {
				var at, bits int64
				if _, err := fmt.Sscanf(a.text, "%d st 0: %x", &at, &bits); err != nil {
					t.Fatal(err)
				}
				if at <= last || math.Float64frombits(uint64(bits)) != float64(at) {
					t.Errorf("sample %s after %d", a.text, last)
				}
				last = at
			}
		}
	}
}

func TestSameSelectionSameBlock(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 5))
	all := readBlock(t, libraryBlock(t, r, t.TempDir(), 30, 300, 1_000_000))
	a := build(t, rand.New(rand.NewPCG(1, 1)), all, 1_500_000, 3_000_000)
	b := build(t, rand.New(rand.NewPCG(2, 2)), all, 1_500_000, 3_000_000) // received in other parts
	if a.Meta.ULID != b.Meta.ULID {
		t.Errorf("%s and %s", a.Meta.ULID, b.Meta.ULID)
	}
	if d := cmp.Diff(a.Files, b.Files); d != "" {
		t.Error(d)
	}
	for _, f := range a.Files {
		x, err := os.ReadFile(filepath.Join(a.Dir, filepath.FromSlash(f.Name)))
		if err != nil {
			t.Fatal(err)
		}
		y, err := os.ReadFile(filepath.Join(b.Dir, filepath.FromSlash(f.Name)))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(x, y) || int64(len(x)) != f.Size {
			t.Errorf("%s differs, or its size", f.Name)
		}
	}
	if a.Meta.ULID.Time() != 3_000_000 {
		t.Errorf("the ULID's time is %d", a.Meta.ULID.Time())
	}
	for name, other := range map[string]*Built{
		"range":  build(t, nil, all, 1_500_000, 3_000_001),
		"series": build(t, nil, all[10:], 1_500_000, 3_000_000),
	} {
		if other.Meta.ULID == a.Meta.ULID {
			t.Errorf("another %s gives the same ULID", name)
		}
	}
}

func TestNoSamplesNoBlock(t *testing.T) {
	parent := t.TempDir()
	all := readBlock(t, libraryBlock(t, rand.New(rand.NewPCG(5, 5)), t.TempDir(), 5, 50, 1_000_000))
	b, err := NewBuilder(Spec{Parent: parent, MinTime: 5, MaxTime: 10})
	if err != nil {
		t.Fatal(err)
	}
	if err := send(t, nil, b, all, math.MinInt64, math.MaxInt64); err != nil {
		t.Fatal(err)
	}
	if built, err := b.Finish(t.Context()); built != nil || err != nil {
		t.Fatal(built, err)
	}
	b, err = NewBuilder(Spec{Parent: parent, MinTime: 0, MaxTime: math.MaxInt64})
	if err != nil {
		t.Fatal(err)
	}
	if err := send(t, nil, b, all, math.MinInt64, math.MaxInt64); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := b.Discard(); err != nil {
			t.Fatal(err)
		}
	}
	if entries, err := os.ReadDir(parent); err != nil || len(entries) > 0 {
		t.Error(entries, err)
	}
}

func TestBuilderErrors(t *testing.T) {
	good := encode(t, chunkenc.EncXOR, []point{{t: 10, f: 1}, {t: 20, f: 2}})[0].Chunk.Bytes()
	syms := &wire.Symbols{Refs: []uint32{0, 1, 2, 3, 4}, Strings: []string{"", "a", "b", "c", "x"}}
	chunk := func(mint, maxt int64, data []byte) wire.Chunk {
		return wire.Chunk{MinTime: mint, MaxTime: maxt, Encoding: 1, Data: data}
	}
	ok := wire.Series{Labels: []uint32{1, 4}, Chunks: []wire.Chunk{chunk(10, 20, good)}}
	for name, c := range map[string]struct {
		series []wire.Series
		want   string
	}{
		"unknown ref":     {[]wire.Series{{Labels: []uint32{1, 99}}}, "symbol 99"},
		"odd refs":        {[]wire.Series{{Labels: []uint32{1}}}, "pairs"},
		"no labels":       {[]wire.Series{{}}, "pairs"},
		"part of another": {[]wire.Series{{Labels: ok.Labels, More: true}, {Labels: []uint32{2, 4}}}, "before the end of"},
		"never finished":  {[]wire.Series{{Labels: ok.Labels, Chunks: ok.Chunks, More: true}}, "before the end of"},
	} {
		t.Run(name, func(t *testing.T) {
			parent := t.TempDir()
			b, err := NewBuilder(Spec{Parent: parent, MinTime: 0, MaxTime: 1000})
			if err != nil {
				t.Fatal(err)
			}
			if err = b.Symbols(syms); err != nil {
				t.Fatal(err)
			}
			for i := range c.series {
				if err = b.Series(&c.series[i]); err != nil {
					break
				}
			}
			if err == nil {
				_, err = b.Finish(t.Context())
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error is %v, want %q in it", err, c.want)
			}
			if err := b.Discard(); err != nil {
				t.Error(err)
			}
			if entries, _ := os.ReadDir(parent); len(entries) > 0 {
				t.Error("left behind:", entries)
			}
		})
	}
	b, err := NewBuilder(Spec{Parent: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Discard()
	if err := b.Symbols(&wire.Symbols{Refs: []uint32{1, 1}, Strings: []string{"a", "b"}}); err == nil {
		t.Error("no error for a symbol with two strings")
	}
	if _, err := NewBuilder(Spec{Parent: t.TempDir(), MinTime: 2, MaxTime: 1}); err == nil {
		t.Error("no error for a block that ends before it starts")
	}
}

// TestLayoutBomb reads a histogram chunk whose layout has too many buckets for the memory.
func TestLayoutBomb(t *testing.T) {
	data := []byte{0, 1, 0, 0} // one sample, no hint, zero threshold 0
	// schema 0 (bit 0), then 7 spans (0b110 000111) of 2^32-1 buckets each.
	bits := "0" + "110000111" + strings.Repeat("11111110"+strings.Repeat("0", 24)+strings.Repeat("1", 32)+"0", 7)
	bits += strings.Repeat("0", 64)
	for i := 0; i+8 <= len(bits); i += 8 {
		var v byte
		for _, c := range bits[i : i+8] {
			v = v<<1 | byte(c-'0')
		}
		data = append(data, v)
	}
	for _, enc := range []chunkenc.Encoding{chunkenc.EncHistogram, chunkenc.EncFloatHistogram, chunkenc.EncHistogramST, chunkenc.EncFloatHistogramST} {
		var c cutter
		if _, err := c.cut(nil, enc, data, tombstones.Intervals{{Mint: 5, Maxt: 6}}); !errors.Is(err, errLayout) {
			t.Errorf("%s: %v", enc, err)
		}
	}
}

// TestLayoutOfSoundChunks checks that checkLayout accepts all chunks that the TSDB encodes.
func TestLayoutOfSoundChunks(t *testing.T) {
	for seed := range uint64(5) {
		for _, s := range readBlock(t, encodingsBlock(t, rand.New(rand.NewPCG(seed, 0)), t.TempDir(), 0, false)) {
			for _, c := range s.chunks {
				if err := checkLayout(chunkenc.Encoding(c.Encoding), c.Data); err != nil {
					t.Error(err)
				}
			}
		}
	}
}

func TestBordersAreInclusive(t *testing.T) {
	var points []point
	for i := range int64(10) {
		points = append(points, point{t: i, f: float64(i)})
	}
	m := encode(t, chunkenc.EncXOR, points)[0]
	all := []stored{{labels: testLabels(0), chunks: []wire.Chunk{{MinTime: 0, MaxTime: 9, Encoding: 1, Data: m.Chunk.Bytes()}}}}
	for _, c := range []struct{ mint, maxt, want int64 }{{3, 6, 4}, {0, 9, 10}, {9, 9, 1}, {0, 0, 1}, {1, 9, 9}, {0, 8, 9}} {
		stats := mustBeClean(t, build(t, nil, all, c.mint, c.maxt).Dir)
		if stats.Samples != uint64(c.want) || stats.MinTime != c.mint || stats.MaxTime != c.maxt {
			t.Errorf("[%d, %d]: %+v, want %d samples", c.mint, c.maxt, stats, c.want)
		}
	}
	m.Chunk.Bytes()[len(m.Chunk.Bytes())-1] ^= 0x80 // changes only a value
	before := build(t, nil, all, 0, 9).Meta.ULID
	m.Chunk.Bytes()[len(m.Chunk.Bytes())-1] ^= 0x80
	if build(t, nil, all, 0, 9).Meta.ULID == before {
		t.Error("another value gives the same ULID")
	}
}

// TestStaleGaugeStaysInItsChunk cuts a gauge chunk with a stale sample, which lacks the gauge hint.
func TestStaleGaugeStaysInItsChunk(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	stale := &histogram.Histogram{Sum: math.Float64frombits(value.StaleNaN), CounterResetHint: histogram.GaugeType}
	points := []point{gauges.point(r, 0, 1), gauges.point(r, 1, 2), {t: 3, h: stale}}
	metas := encode(t, chunkenc.EncHistogram, points)
	if len(metas) != 1 {
		t.Fatal("not one chunk:", len(metas))
	}
	var c cutter
	got, err := c.cut(nil, chunkenc.EncHistogram, metas[0].Chunk.Bytes(), tombstones.Intervals{{Mint: 1, Maxt: 1}})
	if err != nil || len(got) != 1 || got[0].Chunk.NumSamples() != 2 || got[0].MaxTime != 3 {
		t.Errorf("%+v, %v", got, err)
	}
}
