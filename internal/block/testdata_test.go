package block

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"log/slog"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"
	"github.com/prometheus/prometheus/tsdb/tombstones"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"

	"github.com/promdump/promdump/internal/wire"
)

// point is a sample: a histogram, a float histogram, or a float if both are nil.
type point struct {
	st, t int64
	f     float64
	h     *histogram.Histogram
	fh    *histogram.FloatHistogram
}

// kind generates the points of a series.
type kind int

const (
	floats kind = iota
	nans
	stales
	histograms
	resets
	gauges
	customs
	floatHistograms
	floatGauges
	floatCustoms
	mixed
	kinds
)

func (k kind) point(r *rand.Rand, i int, t int64) point {
	if k == mixed {
		return []kind{floats, histograms, floatHistograms}[i/50%3].point(r, i, t)
	}
	p := point{t: t}
	if r.IntN(40) == 0 && k != floats && k != nans {
		stale := math.Float64frombits(value.StaleNaN)
		switch k {
		case stales:
			p.f = stale
		case histograms, resets, customs:
			p.h = &histogram.Histogram{Sum: stale}
		case gauges:
			p.h = &histogram.Histogram{Sum: stale, CounterResetHint: histogram.GaugeType}
		default:
			p.fh = &histogram.FloatHistogram{Sum: stale}
		}
		return p
	}
	n := int64(i)
	if k == resets {
		n %= 17
	}
	switch k {
	case nans:
		p.f = math.Float64frombits(0x7ff8000000000000 | r.Uint64N(1<<50)) // payloads
	case floats, stales:
		p.f = r.NormFloat64() * 1e6
	case histograms, resets:
		p.h = tsdbutil.GenerateTestHistogram(n)
		if i%60 > 30 { // new buckets in the middle of a chunk
			p.h.PositiveSpans = append(p.h.PositiveSpans, histogram.Span{Offset: 3, Length: 1})
			for _, delta := range p.h.PositiveBuckets {
				n -= delta
			}
			p.h.PositiveBuckets = append(p.h.PositiveBuckets, n)
			p.h.Count += uint64(i)
			if k == resets {
				p.h.Count += uint64(i%17) - uint64(i)
			}
		}
	case gauges:
		p.h = tsdbutil.GenerateTestGaugeHistogram(r.Int64N(100))
	case customs:
		p.h = tsdbutil.GenerateTestCustomBucketsHistogram(n)
	case floatHistograms:
		p.fh = tsdbutil.GenerateTestFloatHistogram(n)
	case floatGauges:
		p.fh = tsdbutil.GenerateTestGaugeFloatHistogram(r.Int64N(100))
	case floatCustoms:
		p.fh = tsdbutil.GenerateTestCustomBucketsFloatHistogram(n)
	}
	return p
}

// testLabels returns the labels of series i: some realistic, some odd.
func testLabels(i int) labels.Labels {
	b := labels.NewBuilder(labels.FromStrings(
		"__name__", fmt.Sprintf("metric_%d", i%7),
		"instance", fmt.Sprintf("10.0.0.%d:9090", i),
		"job", "test"))
	switch i % 5 {
	case 1:
		b.Set("naïve.label-名", "värde \xff\x00 "+fmt.Sprint(i))
	case 2:
		b.Set("huge", strings.Repeat("x", 70_000)+fmt.Sprint(i%3))
	}
	return b.Labels()
}

const step = 15_000 // ms between the samples of libraryBlock

// libraryBlock writes a block with the TSDB's head: series of all kinds with about that many
// samples each, from about start. It returns the block's directory.
func libraryBlock(t testing.TB, r *rand.Rand, parent string, series, samples int, start int64) string {
	t.Helper()
	w, err := tsdb.NewBlockWriter(slog.New(slog.DiscardHandler), parent, 1000*3600*24)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	app := w.Appender(t.Context())
	for i := range series {
		lset, k := testLabels(i), kind(i%int(kinds))
		first, n := r.Int64N(20*step), 1+r.IntN(samples)
		if i%3 == 0 {
			n = samples
		}
		for j := range n {
			p := k.point(r, j, start+first+int64(j)*step+r.Int64N(100))
			if p.h != nil || p.fh != nil {
				_, err = app.AppendHistogram(0, lset, p.t, p.h, p.fh)
			} else {
				_, err = app.Append(0, lset, p.t, p.f)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := app.Commit(); err != nil {
		t.Fatal(err)
	}
	id, err := w.Flush(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(parent, id.String())
}

// encodingsBlock writes a block with chunks of all six encodings, with start timestamps where
// possible, and of an unknown encoding if unknown is set.
func encodingsBlock(t testing.TB, r *rand.Rand, parent string, start int64, unknown bool) string {
	t.Helper()
	w, err := newWriter(Spec{Parent: parent, MinTime: start, MaxTime: start + 1000*step, Origin: fmt.Sprint(r.Uint64())})
	if err != nil {
		t.Fatal(err)
	}
	byKind := map[chunkenc.Encoding]kind{
		chunkenc.EncXOR: floats, chunkenc.EncXOR2: nans, chunkenc.EncHistogram: histograms,
		chunkenc.EncFloatHistogram: floatCustoms, chunkenc.EncHistogramST: gauges, chunkenc.EncFloatHistogramST: floatHistograms,
	}
	for enc := chunkenc.EncXOR; enc <= chunkenc.EncFloatHistogramST; enc++ {
		var metas []chunks.Meta
		at := start
		for range 4 {
			var points []point
			for i := range 50 + r.IntN(100) {
				at += 1 + r.Int64N(step)
				p := byKind[enc].point(r, i, at)
				if i%60 > 30 && enc == chunkenc.EncHistogram {
					p = byKind[enc].point(r, 1, at) // keeps the layout of the first
				}
				p.st = at - 10_000 - int64(i%3)
				points = append(points, p)
			}
			metas = append(metas, encode(t, enc, points)...)
		}
		if unknown {
			metas = append(metas, chunks.Meta{MinTime: at + 1, MaxTime: at + 100, Chunk: &rawChunk{enc: 77, data: []byte{0, 9, 1, 2, 3}}})
		}
		if err := w.addSeries(labels.FromStrings("__name__", "enc", "enc", fmt.Sprint(int(enc))), metas); err != nil {
			t.Fatal(err)
		}
	}
	built, err := w.finish(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return built.Dir
}

// encode returns chunks of one encoding.
func encode(t testing.TB, enc chunkenc.Encoding, points []point) []chunks.Meta {
	t.Helper()
	var metas []chunks.Meta
	var app chunkenc.Appender
	for _, p := range points {
		if app == nil {
			c, err := chunkenc.NewEmptyChunk(enc)
			if err != nil {
				t.Fatal(err)
			}
			if app, err = c.Appender(); err != nil {
				t.Fatal(err)
			}
			metas = append(metas, chunks.Meta{MinTime: p.t, Chunk: c})
		}
		var next chunkenc.Chunk
		var wider bool
		var err error
		switch {
		case p.h != nil:
			next, wider, app, err = app.AppendHistogram(nil, p.st, p.t, p.h, false)
		case p.fh != nil:
			next, wider, app, err = app.AppendFloatHistogram(nil, p.st, p.t, p.fh, false)
		default:
			app.Append(p.st, p.t, p.f)
		}
		if err != nil {
			t.Fatal(err)
		}
		if next != nil && !wider {
			metas = append(metas, chunks.Meta{MinTime: p.t, Chunk: next})
		} else if next != nil {
			metas[len(metas)-1].Chunk = next
		}
		metas[len(metas)-1].MaxTime = p.t
	}
	return metas
}

// deleteSome deletes random intervals of random series, like the admin API.
func deleteSome(t testing.TB, r *rand.Rand, dir string) {
	t.Helper()
	b, err := tsdb.OpenBlock(nil, dir, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	meta := b.Meta()
	for range 6 {
		from := meta.MinTime + r.Int64N(meta.MaxTime-meta.MinTime)
		m := labels.MustNewMatcher(labels.MatchRegexp, "instance", fmt.Sprintf("10.0.0.[0-9]*%d:9090|", r.IntN(10)))
		if err := b.Delete(t.Context(), from, from+r.Int64N(120*step), m); err != nil {
			t.Fatal(err)
		}
	}
}

// stored is a series of a block.
type stored struct {
	labels  labels.Labels
	chunks  []wire.Chunk
	deleted []wire.Interval
}

// readBlock reads all series of a block with the TSDB's readers. It reads chunk bytes from the
// segment files, because the TSDB does not return chunks of unknown encodings.
func readBlock(t testing.TB, dir string) []stored {
	t.Helper()
	ir, err := index.NewFileReader(filepath.Join(dir, indexName), index.DecodePostingsRaw)
	if err != nil {
		t.Fatal(err)
	}
	defer ir.Close()
	tr, _, err := tombstones.ReadTombstones(dir)
	if err != nil {
		t.Fatal(err)
	}
	segs := map[int][]byte{}
	name, val := index.AllPostingsKey()
	p, err := ir.Postings(t.Context(), name, val)
	if err != nil {
		t.Fatal(err)
	}
	var out []stored
	for p.Next() {
		var lb labels.ScratchBuilder
		var metas []chunks.Meta
		if err := ir.Series(p.At(), &lb, &metas); err != nil {
			t.Fatal(err)
		}
		s := stored{labels: lb.Labels().Copy()}
		s.labels = labels.FromMap(s.labels.Map()) // a copy: the index is unmapped later
		ivs, _ := tr.Get(p.At())
		for _, iv := range ivs {
			s.deleted = append(s.deleted, wire.Interval{MinTime: iv.Mint, MaxTime: iv.Maxt})
		}
		for _, m := range metas {
			seg, off := chunks.BlockChunkRef(m.Ref).Unpack()
			if segs[seg] == nil {
				if segs[seg], err = os.ReadFile(filepath.Join(dir, chunksDir, fmt.Sprintf("%06d", seg+1))); err != nil {
					t.Fatal(err)
				}
			}
			b := segs[seg][off:]
			n, k := binary.Uvarint(b)
			s.chunks = append(s.chunks, wire.Chunk{MinTime: m.MinTime, MaxTime: m.MaxTime, Encoding: b[k], Data: b[k+1 : k+1+int(n)]})
		}
		out = append(out, s)
	}
	if err := p.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

// send passes series to a Builder like a source: chunks that overlap the range, sometimes in parts,
// in memory that it overwrites afterwards.
func send(t testing.TB, r *rand.Rand, b *Builder, all []stored, mint, maxt int64) error {
	t.Helper()
	refs := map[string]uint32{}
	for _, s := range all {
		var syms wire.Symbols
		ref := func(str string) uint32 {
			if n, ok := refs[str]; ok {
				return n
			}
			n := uint32(len(refs))*3 + 7
			refs[str] = n
			syms.Refs, syms.Strings = append(syms.Refs, n), append(syms.Strings, str)
			return n
		}
		var w wire.Series
		s.labels.Range(func(l labels.Label) { w.Labels = append(w.Labels, ref(l.Name), ref(l.Value)) })
		if len(syms.Refs) > 0 {
			if err := b.Symbols(&syms); err != nil {
				return err
			}
		}
		w.Deleted = s.deleted
		var data []byte
		for i, c := range s.chunks {
			if c.MaxTime >= mint && c.MinTime <= maxt {
				at := len(data)
				data = append(data, c.Data...)
				c.Data = data[at:len(data):len(data)]
				w.Chunks = append(w.Chunks, c)
			}
			if r != nil && r.IntN(3) == 0 && i < len(s.chunks)-1 {
				w.More = true
				if err := b.Series(&w); err != nil {
					return err
				}
				for _, c := range w.Chunks {
					for i := range c.Data {
						c.Data[i] = 0xaa
					}
				}
				w.More, w.Chunks, data = false, nil, nil
			}
		}
		if err := b.Series(&w); err != nil {
			return err
		}
	}
	return nil
}

// build builds a block of the samples of all series in [mint, maxt].
func build(t testing.TB, r *rand.Rand, all []stored, mint, maxt int64) *Built {
	t.Helper()
	b, err := NewBuilder(Spec{Parent: t.TempDir(), MinTime: mint, MaxTime: maxt, Origin: "test"})
	if err != nil {
		t.Fatal(err)
	}
	if err := send(t, r, b, all, mint, maxt); err != nil {
		t.Fatal(err)
	}
	built, err := b.Finish(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return built
}

// verifyAll returns all findings of a block as text.
func verifyAll(t testing.TB, dir string) (Stats, []string) {
	t.Helper()
	var all []string
	stats, err := Verify(t.Context(), dir, func(f Finding) { all = append(all, f.String()) })
	if err != nil {
		t.Fatal(err)
	}
	return stats, all
}

func mustBeClean(t testing.TB, dir string) Stats {
	t.Helper()
	stats, all := verifyAll(t, dir)
	if stats.Unknown > 0 && len(all) == 1 && strings.Contains(all[0], "unknown encoding") {
		return stats
	}
	if len(all) > 0 {
		t.Errorf("findings of Verify in a good block:\n%s", strings.Join(all, "\n"))
	}
	return stats
}

func castagnoli(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

func sortedSeries(all []stored) {
	slices.SortFunc(all, func(a, b stored) int { return cmp.Or(labels.Compare(a.labels, b.labels), 0) })
}
