package dump_test

import (
	"bytes"
	"errors"
	"fmt"

	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/promdump/promdump/internal/archive"
	"github.com/promdump/promdump/internal/block"
	"github.com/promdump/promdump/internal/dump"
	"github.com/promdump/promdump/internal/source/local"
	"github.com/promdump/promdump/internal/tsdbtest"
	"github.com/promdump/promdump/internal/wire"
)

const oddStart, oddLength = int64(1_700_000_000_000), int64(7_200_000)

// oddBlocks writes blocks that have everything that Prometheus serves and does not
// write: chunks that touch, overlap, are in disorder, empty or there twice, times twice
// or backwards, samples outside of the block, labels and series in disorder or twice,
// deletions that end before they start, no stats.
func oddBlocks(t *testing.T, r *rand.Rand, dir string) {
	for n := range 3 {
		start := oddStart + int64(n)*oddLength
		b := tsdbtest.HandBlock{
			Meta: tsdb.BlockMeta{
				ULID: ulid.MustNew(uint64(start), bytes.NewReader(bytes.Repeat([]byte{byte(n + 1)}, 16))), MinTime: start, MaxTime: start + oddLength,
			},
			NoStats: r.IntN(2) == 0,
		}
		for i := range 12 {
			s := tsdbtest.HandSeries{Labels: []string{"__name__", fmt.Sprint("m", i/4), "a", fmt.Sprint(i % 4), "job", "x", "z", "1"}}
			at := start + r.Int64N(oddLength/10)
			for range r.IntN(5) {
				var tv []float64
				for range r.IntN(8) + 1 {
					tv = append(tv, float64(at), float64(r.IntN(5)))
					switch r.IntN(8) {
					case 0: // twice
					case 1:
						at -= r.Int64N(oddLength / 60)
					default:
						at += 1 + r.Int64N(oddLength/40)
					}
				}
				switch c := tsdbtest.FloatChunk(t, tv...); r.IntN(10) {
				case 0:
					s.Chunks = append(s.Chunks, tsdbtest.HandChunk{MinTime: at, MaxTime: at + 5, Encoding: chunkenc.EncXOR, Data: []byte{0, 0}})
				case 1:
					s.Chunks = append(s.Chunks, c, c)
				default:
					c.Segment = r.IntN(2)
					s.Chunks = append(s.Chunks, c)
				}
				if r.IntN(4) == 0 { // the next one overlaps, or touches
					at -= r.Int64N(oddLength / 20)
				}
			}
			if r.IntN(4) == 0 {
				r.Shuffle(len(s.Chunks), func(i, j int) { s.Chunks[i], s.Chunks[j] = s.Chunks[j], s.Chunks[i] })
			}
			if r.IntN(4) == 0 { // zone before job
				s.Labels = slices.Concat(s.Labels[:2], s.Labels[6:], s.Labels[2:6])
			}
			if r.IntN(5) == 0 {
				d := tsdbtest.HandDeletion{Series: i, MinTime: start + r.Int64N(oddLength), MaxTime: start + r.Int64N(oddLength)}
				b.Deletions = append(b.Deletions, d)
			}
			b.Series = append(b.Series, s)
			if r.IntN(8) == 0 {
				b.Series = append(b.Series, s) // deletions are of the places before
			}
		}
		if r.IntN(3) == 0 && len(b.Deletions) == 0 {
			r.Shuffle(len(b.Series), func(i, j int) { b.Series[i], b.Series[j] = b.Series[j], b.Series[i] })
		}
		// Now and then a block that ends within its samples, or with the last of them.
		if r.IntN(3) == 0 {
			b.Meta.MaxTime -= r.Int64N(oddLength / 2)
		}
		b.Write(t, dir)
	}
}

// A dump of blocks that are odd serves what Prometheus serves of the blocks, whole
// and cut, and verifies.
func TestOddBlocks(t *testing.T) {
	cut := 0
	for seed := range uint64(12) {
		r := rand.New(rand.NewPCG(seed, 11))
		dir := t.TempDir()
		oddBlocks(t, r, dir)
		db := tsdbtest.Open(t, dir)
		src := local.New(dir, local.Options{})
		at := func() int64 { return oddStart + r.Int64N(3*oddLength) - oddLength/10 }
		for _, sel := range []wire.Selection{
			tsdbtest.Everything(),
			{MinTime: oddStart + oddLength/3, MaxTime: oddStart + 2*oddLength + oddLength/4},
			{MinTime: at(), MaxTime: oddStart + 4*oddLength},
			{MinTime: oddStart - oddLength, MaxTime: at()},
			{MinTime: oddStart, MaxTime: oddStart + 3*oddLength, Matchers: [][]wire.Matcher{{{Type: "=", Name: "a", Value: "1"}}}},
			{MinTime: at(), MaxTime: oddStart + 3*oddLength, Matchers: [][]wire.Matcher{{{Type: "=", Name: "z", Value: "1"}, {Type: "=", Name: "a", Value: "0"}}, {{Type: "=", Name: "__name__", Value: "m1"}}}},
		} {
			// Prometheus asks the blocks whose own range is selected.
			want := tsdbtest.Served{}
			for _, b := range db.Blocks() {
				if b.OverlapsClosedInterval(sel.MinTime, sel.MaxTime) {
					tsdbtest.Add(want, tsdbtest.OddSamples(t, tsdbtest.BlockQueryable{Block: b}, sel))
				}
			}
			got, odd := oddDump(t, src, sel)
			cut += odd
			if diff := tsdbtest.Diff(want, tsdbtest.Within(got, sel)); diff != "" {
				t.Fatalf("seed %d, %+v:\n%s", seed, sel, diff)
			}
		}
	}
	if cut < 20 {
		t.Errorf("%d dumps had something odd left: too few to tell anything", cut)
	}
}

// oddDump gives what Prometheus serves of a dump.
func oddDump(t *testing.T, src *local.Source, sel wire.Selection) (served tsdbtest.Served, odd int) {
	t.Helper()
	served = tsdbtest.Served{}
	var out bytes.Buffer
	report, err := dump.Write(t.Context(), src, spec(t, wire.Request{Head: wire.HeadNone, Selection: sel}), &out)
	if _, ok := errors.AsType[*dump.EmptyError](err); ok {
		return served, 0
	}
	if err != nil {
		t.Fatalf("%+v: %v", sel, err)
	}
	if len(report.LeftOut) > 0 {
		t.Errorf("left out: %q", report.LeftOut)
	}
	dir := t.TempDir()
	if _, _, err := archive.Extract(t.Context(), &out, dir, nil); err != nil {
		t.Fatal(err)
	}
	metas, err := filepath.Glob(filepath.Join(dir, "*", "meta.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range metas {
		_, err := block.Verify(t.Context(), filepath.Dir(m), func(f block.Finding) {
			if odd = 1; f.Level != block.Odd {
				t.Errorf("%+v: %s", sel, f)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, b := range tsdbtest.Open(t, dir).Blocks() {
		tsdbtest.Add(served, tsdbtest.OddSamples(t, tsdbtest.BlockQueryable{Block: b}, tsdbtest.Everything()))
	}
	return served, odd
}

// A damaged chunk, or a damaged series, is left out of a block that is cut, and
// named; the rest is dumped.
func TestDamagedChunkIsLeftOut(t *testing.T) {
	float := func(tv ...float64) tsdbtest.HandChunk { return tsdbtest.FloatChunk(t, tv...) }
	b := tsdbtest.HandBlock{
		Meta: tsdb.BlockMeta{ULID: ulid.MustNew(1, bytes.NewReader(make([]byte, 16))), MinTime: 1000, MaxTime: 5000},
		Series: []tsdbtest.HandSeries{
			{Labels: []string{"__name__", "m", "a", "1"}, Chunks: []tsdbtest.HandChunk{float(1000, 1, 1500, 2), float(2000, 3, 2500, 4), float(3000, 5, 3500, 6)}},
			{Labels: []string{"__name__", "m", "a", "2"}, Chunks: []tsdbtest.HandChunk{float(1000, 1, 4000, 2)}},
		},
	}
	torn := func(from, to float64) tsdbtest.HandChunk {
		c := float(from, 3, to, 4)
		c.Data = c.Data[:6]
		return c
	}
	for name, c := range map[string]struct {
		change func(b *tsdbtest.HandBlock)
		flip   int // a byte of chunks/000001
		lost   string
		want   int
	}{
		"flipped":          {func(*tsdbtest.HandBlock) {}, 45, "1970-01-01T00:00:02Z to 1970-01-01T00:00:02.5Z (chunks/000001 at byte", 5},
		"no such file":     {func(b *tsdbtest.HandBlock) { b.Series[0].Chunks[1].Ref = 7 << 32 }, 0, "it lacks 7 of its 8 chunk segments", 5},
		"beyond the end":   {func(b *tsdbtest.HandBlock) { b.Series[0].Chunks[1].Ref = 70000 }, 0, "chunks/000001 at byte 70000", 5},
		"cannot be cut":    {func(b *tsdbtest.HandBlock) { b.Series[0].Chunks[2] = torn(3000, 4900) }, 0, "decode chunk", 5},
		"cannot be merged": {func(b *tsdbtest.HandBlock) { b.Series[0].Chunks[2] = torn(2000, 3000) }, 0, "decode chunk", 5},
		"symbol that is none": {func(b *tsdbtest.HandBlock) {
			b.Symbols = func(s []string) []string { return slices.DeleteFunc(s, func(s string) bool { return s == "2" }) }
		}, 0, "damaged series", 6},
	} {
		t.Run(name, func(t *testing.T) {
			b, dir := b, t.TempDir()
			b.Series = slices.Clone(b.Series)
			b.Series[0].Chunks = slices.Clone(b.Series[0].Chunks)
			c.change(&b)
			data := b.Write(t, dir)
			if c.flip > 0 {
				flipByte(t, filepath.Join(data, "chunks", "000001"), c.flip)
			}
			sel := wire.Selection{MinTime: 1200, MaxTime: 4500}
			var out bytes.Buffer
			report, err := dump.Write(t.Context(), local.New(dir, local.Options{}), spec(t, wire.Request{Head: wire.HeadNone, Selection: sel}), &out)
			if err != nil {
				t.Fatal(err)
			}
			said := slices.Clone(report.LeftOut)
			for _, l := range report.Plan.LeftOut { // found before the block is read
				said = append(said, l.Reason)
			}
			if len(said) != 1 || !strings.Contains(said[0], c.lost) || report.Loss() == nil {
				t.Errorf("left out: %q, loss %v", said, report.Loss())
			}
			into := t.TempDir()
			if _, _, err := archive.Extract(t.Context(), &out, into, nil); err != nil {
				t.Fatal(err)
			}
			if got := tsdbtest.SamplesDir(t, into, tsdbtest.Everything()); got.Count() != c.want-1 {
				t.Errorf("%d samples are served, want %d: %v", got.Count(), c.want-1, got)
			}
		})
	}
}

func flipByte(t *testing.T, path string, at int) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[at] ^= 0xff
	if err := os.WriteFile(path, b, 0o666); err != nil {
		t.Fatal(err)
	}
}
