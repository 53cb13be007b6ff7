package slice

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/record"

	"github.com/promdump/promdump/internal/datadir"
	"github.com/promdump/promdump/internal/wire"
)

// mapChunk writes an m-mapped chunk of three samples.
func mapChunk(t *testing.T, m *chunks.ChunkDiskMapper, ref chunks.HeadSeriesRef, from int64, late bool) {
	t.Helper()
	c := chunkenc.NewXORChunk()
	app, err := c.Appender()
	if err != nil {
		t.Fatal(err)
	}
	for i := range int64(3) {
		app.Append(0, from+i, 1)
	}
	m.WriteChunk(ref, from, from+2, c, late, func(err error) {
		if err != nil {
			t.Error(err)
		}
	})
}

// headWithChunks returns a head with series records of 1 (namespace a) and 2 (b), and chunks
// of 1, 2 and 9.
func headWithChunks(t *testing.T) *datadir.Head {
	t.Helper()
	h := head(t, [][]byte{
		enc.Series([]record.RefSeries{series(1, "a"), series(2, "b")}, nil),
		enc.Samples([]record.RefSample{sample(1, 40, 1), sample(9, 41, 1)}, nil),
	}, nil)
	dir := filepath.Join(t.TempDir(), "data")
	for _, f := range h.WAL {
		b := make([]byte, f.Size)
		if _, err := f.ReadAt(b, 0); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Join(dir, "wal"), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, f.Name), b, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	m, err := chunks.NewChunkDiskMapper(nil, filepath.Join(dir, "chunks_head"), chunkenc.NewPool(), chunks.DefaultWriteBufferSize, 0)
	if err != nil {
		t.Fatal(err)
	}
	mapChunk(t, m, 1, 10, false)
	mapChunk(t, m, 2, 10, false)
	mapChunk(t, m, 9, 10, false)
	mapChunk(t, m, 1, 5, true)
	mapChunk(t, m, 1, 20, false)
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	return &opened(t, dir).Head
}

func TestHeadChunksOfTheSelection(t *testing.T) {
	h := headWithChunks(t)
	for _, c := range []struct {
		name    string
		sel     wire.Selection
		from    int64 // MinValidTime
		want    []string
		unknown [2]uint64 // samples in the log and in chunks
	}{
		{"all", everything(), 0, []string{"1 10 false", "2 10 false", "9 10 false", "1 5 true", "1 20 false"}, [2]uint64{}},
		{"a time range", wire.Selection{MinTime: 12, MaxTime: 20}, 0, []string{"1 10 false", "2 10 false", "9 10 false", "1 20 false"}, [2]uint64{}},
		{"a series", only("a", 0, 100), 0, []string{"1 10 false", "1 5 true", "1 20 false"}, [2]uint64{1, 3}},
		{"after the blocks", everything(), 13, []string{"1 5 true", "1 20 false"}, [2]uint64{}},
	} {
		h.MinValidTime = c.from
		sel, err := Compile(c.sel)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		var end wire.HeadEnd
		if err := Head(t.Context(), h, sel, func(m wire.Message) bool {
			switch m := m.(type) {
			case *wire.HeadChunks:
				for _, c := range m.Chunks {
					got = append(got, fmt.Sprint(c.Ref, c.MinTime, c.OutOfOrder))
					if n := len(c.Data); n < 10 || c.Encoding != uint8(chunkenc.EncXOR) || c.MaxTime != c.MinTime+2 {
						t.Errorf("chunk %+v", c)
					}
				}
			case *wire.HeadEnd:
				end = *m
			}
			return true
		}); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s: want -, got +:\n%s", c.name, diff)
		}
		if unknown := [2]uint64{end.UnknownSamples, end.UnknownChunkSamples}; unknown != c.unknown || end.Chunks != uint64(len(got)) {
			t.Errorf("%s: end %+v", c.name, end)
		}
	}
	h.MinValidTime = 0
	inv, err := HeadInventory(t.Context(), h)
	if err != nil {
		t.Fatal(err)
	}
	want := wire.HeadInventory{MinTime: 5, MaxTime: 41, Series: 2, Bytes: h.Bytes(), UnknownSamples: 1, UnknownChunkSamples: 3}
	if diff := cmp.Diff(want, inv); diff != "" {
		t.Errorf("inventory: want -, got +:\n%s", diff)
	}
}

// TestInventoryCountsSeriesOnce counts a series with two refs once. A series gets a new ref
// after the server has removed it from the head.
func TestInventoryCountsSeriesOnce(t *testing.T) {
	h := head(t, [][]byte{
		enc.Series([]record.RefSeries{series(1, "a"), series(2, "b")}, nil),
		enc.Samples([]record.RefSample{sample(1, 10, 1), sample(2, 10, 1)}, nil),
		enc.Series([]record.RefSeries{{Ref: 70_000, Labels: series(1, "a").Labels}}, nil),
		enc.Samples([]record.RefSample{sample(70_000, 20, 1)}, nil),
	}, nil)
	inv, err := HeadInventory(t.Context(), h)
	if err != nil || inv.Series != 2 {
		t.Errorf("%d series, %v", inv.Series, err)
	}
}
