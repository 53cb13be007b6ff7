package local_test

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"

	"github.com/promdump/promdump/internal/source/local"
	"github.com/promdump/promdump/internal/source/sourcetest"
	"github.com/promdump/promdump/internal/tsdbtest"
	"github.com/promdump/promdump/internal/wire"
)

// segmented makes a data dir of one block with several chunk segments.
func segmented(t *testing.T) (dir, id string, segments int) {
	t.Helper()
	db := tsdbtest.Random(t, t.TempDir(), 4, tsdbtest.Options{})
	largest := db.DB().Blocks()[0]
	for _, b := range db.DB().Blocks() {
		if b.Meta().Stats.NumSamples > largest.Meta().Stats.NumSamples {
			largest = b
		}
	}
	from := largest.Dir()
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	c, err := tsdb.NewLeveledCompactorWithOptions(t.Context(), nil, slog.New(slog.DiscardHandler), []int64{2 * 3600_000, 24 * 3600_000}, nil,
		tsdb.LeveledCompactorOptions{MaxBlockChunkSegmentSize: 8 << 10})
	if err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir()
	made, err := c.Compact(dir, []string{from}, nil)
	if err != nil || len(made) != 1 {
		t.Fatal(made, err)
	}
	found, err := filepath.Glob(filepath.Join(dir, made[0].String(), "chunks", "*"))
	if err != nil || len(found) < 3 {
		t.Fatalf("%d segments, %v", len(found), err)
	}
	return dir, made[0].String(), len(found)
}

// samplesIn counts the samples in the segments of a block that are kept.
func samplesIn(t *testing.T, dir string, kept func(segment int) bool) (n int) {
	t.Helper()
	r, err := index.NewFileReader(filepath.Join(dir, "index"), index.DecodePostingsRaw)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cr, err := chunks.NewDirReader(filepath.Join(dir, "chunks"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer cr.Close()
	all, err := r.Postings(t.Context(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	var builder labels.ScratchBuilder
	var metas []chunks.Meta
	for all.Next() {
		if err := r.Series(all.At(), &builder, &metas); err != nil {
			t.Fatal(err)
		}
		for _, m := range metas {
			if segment, _ := chunks.BlockChunkRef(m.Ref).Unpack(); kept(segment + 1) {
				c, _, err := cr.ChunkOrIterable(m)
				if err != nil {
					t.Fatal(err)
				}
				n += c.NumSamples()
			}
		}
	}
	return n
}

// Of a block that lacks chunk segments, the others are dumped, and it is named.
func TestLostSegments(t *testing.T) {
	dir, id, n := segmented(t)
	intact := tsdbtest.SamplesDir(t, dir, tsdbtest.Everything())
	everything := wire.Request{Head: wire.HeadNone, Selection: tsdbtest.Everything()}
	whole, matched := everything, everything
	whole.WholeBlocks = true
	matched.Selection.Matchers = [][]wire.Matcher{{{Type: "=~", Name: "__name__", Value: ".+"}}}
	for _, lost := range [][]int{{1}, {2}, {n}, {1, n}} {
		t.Run(fmt.Sprint(lost), func(t *testing.T) {
			damaged := t.TempDir()
			if err := tsdbtest.CopyDir(damaged, dir); err != nil {
				t.Fatal(err)
			}
			for _, i := range lost {
				if err := os.Remove(filepath.Join(damaged, id, "chunks", fmt.Sprintf("%06d", i))); err != nil {
					t.Fatal(err)
				}
			}
			want := samplesIn(t, filepath.Join(dir, id), func(i int) bool { return !slices.Contains(lost, i) })
			for _, req := range []wire.Request{everything, whole, matched} {
				out, report, _, err := sourcetest.Dump(t, local.New(damaged, local.Options{}), req)
				if err != nil {
					t.Fatal(err)
				}
				got := tsdbtest.SamplesDir(t, out, tsdbtest.Everything())
				if got.Count() != want {
					t.Errorf("%+v: %d samples, want %d", req, got.Count(), want)
				}
				for series, samples := range got {
					for _, s := range samples {
						if !slices.ContainsFunc(intact[series], func(i tsdbtest.Sample) bool { return tsdbtest.Same(i, s) }) {
							t.Fatalf("%s has %v, which the block never had", series, s)
						}
					}
				}
				if l := report.Plan.LeftOut; len(l) != 1 || l[0].ULID != id || !l[0].Partly || report.Loss() == nil {
					t.Errorf("left out: %v", l)
				}
			}
		})
	}
}
