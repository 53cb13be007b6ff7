package slice

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"
	"github.com/prometheus/prometheus/tsdb/tombstones"

	"github.com/promdump/promdump/internal/datadir"
	"github.com/promdump/promdump/internal/tsdbtest"
	"github.com/promdump/promdump/internal/wire"
)

// blockText is what Block sent: each series as text, in order, with the chunks' bytes.
type blockText struct {
	Series  []string
	Unread  int // chunks
	Lost    int // series
	Symbols map[string]bool
}

// readBlock returns what Block sends of a block.
func readBlock(t *testing.T, b *datadir.Block, sel *Selection) blockText {
	t.Helper()
	out := blockText{Symbols: map[string]bool{}}
	symbols := map[uint32]string{}
	open, ended := "", false
	err := Block(t.Context(), b, sel, 0, func(m wire.Message) bool {
		switch m := m.(type) {
		case *wire.Symbols:
			for i, ref := range m.Refs {
				symbols[ref] = strings.Clone(m.Strings[i])
				out.Symbols[symbols[ref]] = true
			}
		case *wire.Series:
			var s strings.Builder
			for _, ref := range m.Labels {
				sym, ok := symbols[ref]
				if !ok {
					t.Fatalf("symbol %d was not sent", ref)
				}
				fmt.Fprintf(&s, "%q ", sym)
			}
			var deleted tombstones.Intervals // merged like the TSDB's
			for _, d := range m.Deleted {
				deleted = deleted.Add(tombstones.Interval{Mint: d.MinTime, Maxt: d.MaxTime})
			}
			fmt.Fprintf(&s, "deleted %v ", deleted)
			if open != "" && !strings.HasPrefix(open, s.String()) {
				t.Fatalf("%s continues as %s", open, s.String())
			} else if open == "" {
				open = s.String()
			}
			for _, c := range m.Chunks {
				if c.Encoding == wire.Unread {
					out.Unread++
					open += fmt.Sprintf("[%d %d unread]", c.MinTime, c.MaxTime)
					continue
				}
				open += fmt.Sprintf("[%d %d %d %x]", c.MinTime, c.MaxTime, c.Encoding, c.Data)
			}
			if !m.More {
				out.Series = append(out.Series, open)
				open = ""
			}
		case *wire.BlockEnd:
			ended = true
			out.Lost = int(m.Unread)
			if m.Series != uint64(len(out.Series)) {
				t.Errorf("sent %d series, counted %d", len(out.Series), m.Series)
			}
		}
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	if !ended {
		t.Fatal("no BlockEnd")
	}
	return out
}

// reference returns the text of the selected series as the TSDB's readers read them.
func reference(t *testing.T, dir string, meta datadir.Meta, sel wire.Selection) []string {
	t.Helper()
	ir, err := index.NewFileReader(filepath.Join(dir, "index"), index.DecodePostingsRaw)
	if err != nil {
		t.Fatal(err)
	}
	defer ir.Close()
	cr, err := chunks.NewDirReader(filepath.Join(dir, "chunks"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer cr.Close()
	stones, _, err := tombstones.ReadTombstones(dir)
	if err != nil {
		t.Fatal(err)
	}
	lists, err := tsdbtest.Matchers(sel)
	if err != nil {
		t.Fatal(err)
	}
	if len(sel.Matchers) == 0 {
		lists = [][]*labels.Matcher{nil}
	}
	var ps []index.Postings
	for _, list := range lists {
		if len(list) == 0 {
			list = []*labels.Matcher{labels.MustNewMatcher(labels.MatchRegexp, "__name__", ".*")}
		}
		p, err := tsdb.PostingsForMatchers(context.Background(), ir, list...)
		if err != nil {
			t.Fatal(err)
		}
		ps = append(ps, p)
	}
	lo, hi := max(sel.MinTime, meta.MinTime), min(sel.MaxTime, meta.MaxTime-1)
	var out []string
	var lb labels.ScratchBuilder
	var metas []chunks.Meta
	all := index.Merge(context.Background(), ps...)
	for all.Next() {
		if err := ir.Series(all.At(), &lb, &metas); err != nil {
			t.Fatal(err)
		}
		var s strings.Builder
		lb.Labels().Range(func(l labels.Label) { fmt.Fprintf(&s, "%q %q ", l.Name, l.Value) })
		deleted, _ := stones.Get(all.At())
		fmt.Fprintf(&s, "deleted %v ", deleted)
		n := 0
		for _, m := range metas {
			if m.MinTime > hi || m.MaxTime < lo {
				continue
			}
			c, _, err := cr.ChunkOrIterable(m)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&s, "[%d %d %d %x]", m.MinTime, m.MaxTime, c.Encoding(), c.Bytes())
			n++
		}
		if n > 0 {
			out = append(out, s.String())
		}
	}
	return out
}

// opened opens a data directory until the test ends.
func opened(t *testing.T, dir string) *datadir.Dir {
	t.Helper()
	d, err := datadir.Open(t.Context(), dir, datadir.Options{Head: datadir.ReadHead, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// TestBlockReadsLikeTSDB compares the series that Block sends of random selections with those
// that the TSDB's readers read.
func TestBlockReadsLikeTSDB(t *testing.T) {
	for seed := range uint64(3) {
		random := tsdbtest.Random(t, t.TempDir(), seed, tsdbtest.Options{StartTimestamps: seed == 1})
		d := opened(t, random.Dir)
		if len(d.Blocks) < 3 {
			t.Fatalf("seed %d has %d blocks, too few for this test", seed, len(d.Blocks))
		}
		series := 0
		for i, ws := range random.Selections(seed, 40) {
			sel, err := Compile(ws)
			if err != nil {
				t.Fatal(err)
			}
			for _, b := range d.Blocks {
				got := readBlock(t, b, sel)
				want := reference(t, filepath.Join(random.Dir, b.Meta.ULID), b.Meta, ws)
				series += len(want)
				if diff := cmp.Diff(want, got.Series); diff != "" {
					t.Fatalf("seed %d, selection %d %+v, block %s:\n%.2000s", seed, i, ws, b.Meta.ULID, diff)
				}
				if len(ws.Matchers) == 0 {
					continue
				}
				for s := range got.Symbols {
					if !strings.Contains(strings.Join(got.Series, " "), fmt.Sprintf("%q", s)) {
						t.Fatalf("seed %d, selection %d: symbol %.100q was sent, but no series has it", seed, i, s)
					}
				}
			}
		}
		if series == 0 {
			t.Fatalf("seed %d: no selection has a series", seed)
		}
	}
}

// diff compares with what was sent of the damaged block. Only unread chunks and series may
// differ. It returns an empty string if the two are equal otherwise.
func (right blockText) diff(got blockText) string {
	missing := 0
	for _, s := range right.Series {
		if len(got.Series) == 0 || !sameButUnread(s, got.Series[0]) {
			missing++
			continue
		}
		got.Series = got.Series[1:]
	}
	if missing != got.Lost || len(got.Series) > 0 {
		return fmt.Sprintf("%d series are missing, %d were counted; too many: %.300q", missing, got.Lost, got.Series)
	}
	return ""
}

// sameButUnread reports whether two texts of a series differ only in unread chunks of got.
func sameButUnread(right, got string) bool {
	a, b := strings.SplitAfter(right, "["), strings.SplitAfter(got, "[")
	for i := range min(len(a), len(b)) {
		times, ok := strings.CutSuffix(strings.TrimSuffix(b[i], "["), "unread]")
		if a[i] != b[i] && (!ok || !strings.HasPrefix(a[i], times)) {
			return false
		}
	}
	return len(a) == len(b)
}

// TestDamagedBlock flips bytes of the index and of chunks. A flipped byte never becomes
// another sample, another label or a panic, and only the damaged part is unread.
func TestDamagedBlock(t *testing.T) {
	random := tsdbtest.Random(t, t.TempDir(), 5, tsdbtest.Options{Plain: true})
	if err := random.Close(); err != nil {
		t.Fatal(err)
	}
	d := opened(t, random.Dir)
	b := d.Blocks[0]
	everything := &Selection{MinTime: b.Meta.MinTime, MaxTime: b.Meta.MaxTime}
	some, err := Compile(wire.Selection{MinTime: b.Meta.MinTime, MaxTime: b.Meta.MaxTime, Matchers: [][]wire.Matcher{{{Type: "=~", Name: "namespace", Value: "ns-.*"}}}})
	if err != nil {
		t.Fatal(err)
	}
	want := map[*Selection]blockText{everything: readBlock(t, b, everything), some: readBlock(t, b, some)}
	for _, name := range []string{"index", "chunks/000001"} {
		path := filepath.Join(random.Dir, b.Meta.ULID, name)
		good, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var postings, postingsEnd int
		if name == "index" {
			toc := good[len(good)-tocSize:]
			postings, postingsEnd = int(binary.BigEndian.Uint64(toc[32:])), int(binary.BigEndian.Uint64(toc[40:]))
		}
		seen, unread, lost := 0, 0, 0
		var places []int
		for at := 0; at < len(good); at += max(1, len(good)/400) {
			places = append(places, at)
		}
		for at := postings; at < postingsEnd; at += 40 {
			places = append(places, at)
		}
		for _, at := range places {
			bad := append([]byte(nil), good...)
			bad[at] ^= 0x10
			if err := os.WriteFile(path, bad, 0o666); err != nil {
				t.Fatal(err)
			}
			for sel, right := range want {
				var err error
				var got blockText
				func() {
					defer func() {
						if r := recover(); r != nil {
							t.Fatalf("%s, flip at %d: %v", name, at, r)
						}
					}()
					if err = Block(t.Context(), b, sel, 0, func(wire.Message) bool { return true }); err == nil {
						got = readBlock(t, b, sel)
					}
				}()
				if err != nil && at >= postings && at < postingsEnd {
					t.Fatalf("%s, flip at %d in a postings list makes the block unreadable: %v", name, at, err)
				} else if err != nil {
					seen++
				} else if diff := right.diff(got); diff != "" {
					t.Fatalf("%s, flip at %d changed the series sent:\n%.1000s", name, at, diff)
				} else {
					unread += got.Unread
					lost += got.Lost
				}
			}
		}
		counts := fmt.Sprintf("%s: %d flips made the block unreadable, %d chunks and %d series were unread", name, seen, unread, lost)
		t.Log(counts)
		if name == "index" && (seen == 0 || lost == 0) || name != "index" && (seen > 0 || unread == 0) {
			t.Error(counts)
		}
		if err := os.WriteFile(path, good, 0o666); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDecide(t *testing.T) {
	block := func(from, to int64) datadir.Meta { return datadir.Meta{MinTime: from, MaxTime: to} }
	all := &Selection{MinTime: 100, MaxTime: 199}
	some, err := Compile(wire.Selection{MinTime: 100, MaxTime: 199, Matchers: [][]wire.Matcher{{{Type: "=", Name: "a", Value: "b"}}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		sel   *Selection
		meta  datadir.Meta
		whole bool
		want  wire.Action
	}{
		{all, block(0, 100), false, wire.Skip}, // a block's end is exclusive
		{all, block(0, 101), false, wire.Cut},
		{all, block(100, 200), false, wire.Whole},
		{all, block(99, 200), false, wire.Cut},
		{all, block(100, 201), false, wire.Cut},
		{all, block(150, 160), false, wire.Whole},
		{all, block(199, 300), false, wire.Cut},
		{all, block(200, 300), false, wire.Skip},
		{all, block(0, 101), true, wire.Whole},
		{all, block(0, 100), true, wire.Skip},
		{some, block(100, 200), false, wire.Cut},
		{some, block(100, 200), true, wire.Whole},
		{some, block(0, 100), false, wire.Skip},
	} {
		if got, why := c.sel.Decide(c.meta, c.whole); got != c.want {
			t.Errorf("block [%d, %d), whole %v, matchers %v: %s (%s), want %s",
				c.meta.MinTime, c.meta.MaxTime, c.whole, len(c.sel.lists), got, why, c.want)
		}
	}
}

func TestCompileErrors(t *testing.T) {
	for _, s := range []wire.Selection{
		{MinTime: 2, MaxTime: 1},
		{Matchers: [][]wire.Matcher{{{Type: "~", Name: "a"}}}},
		{Matchers: [][]wire.Matcher{{{Type: "=~", Name: "a", Value: "("}}}},
	} {
		if _, err := Compile(s); err == nil {
			t.Errorf("%+v: no error", s)
		}
	}
}

// TestOldIndex cuts a block with an index of format version 1, which Prometheus 2.0 wrote and every
// later version reads. Its refs of series and symbols are offsets in bytes.
func TestOldIndex(t *testing.T) {
	var series []tsdbtest.HandSeries
	for i, pod := range []string{"a", "b", "c", "d"} {
		series = append(series, tsdbtest.HandSeries{
			Labels: []string{"__name__", "up", "pod", pod},
			Chunks: []tsdbtest.HandChunk{
				tsdbtest.FloatChunk(t, 0, float64(i), 1000, 2), tsdbtest.FloatChunk(t, 2000, 3, 3000, float64(i)),
			},
		})
	}
	dir := t.TempDir()
	tsdbtest.HandBlock{
		Version: index.FormatV1, Series: series, Deletions: []tsdbtest.HandDeletion{{Series: 2, MinTime: 0, MaxTime: 10}},
		Meta: tsdb.BlockMeta{ULID: ulid.MustNew(1, nil), MinTime: 0, MaxTime: 4000},
	}.Write(t, dir)
	d := opened(t, dir)
	for _, sel := range []wire.Selection{
		{MinTime: 0, MaxTime: 5000},
		{MinTime: 1500, MaxTime: 2500},
		{MinTime: 0, MaxTime: 5000, Matchers: [][]wire.Matcher{{{Type: "=~", Name: "pod", Value: "b|c"}}}},
		{MinTime: 0, MaxTime: 1500, Matchers: [][]wire.Matcher{{{Type: "=", Name: "__name__", Value: "up"}, {Type: "!=", Name: "pod", Value: "a"}}}},
	} {
		compiled, err := Compile(sel)
		if err != nil {
			t.Fatal(err)
		}
		b := d.Blocks[0]
		want := reference(t, filepath.Join(dir, b.Meta.ULID), b.Meta, sel)
		if got := readBlock(t, b, compiled); len(want) == 0 || cmp.Diff(want, got.Series) != "" {
			t.Errorf("%+v: %s", sel, cmp.Diff(want, got.Series))
		}
	}
}
