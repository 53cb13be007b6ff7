package block

import (
	"bytes"
	"context"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/record"

	"github.com/promdump/promdump/internal/wire"
)

// mapped returns an m-mapped chunk of floats whose values are their times.
func mapped(t *testing.T, ref uint64, late bool, times ...int64) wire.HeadChunk {
	t.Helper()
	c := chunkenc.NewXORChunk()
	app, err := c.Appender()
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range times {
		app.Append(0, at, float64(at))
	}
	return wire.HeadChunk{Ref: ref, OutOfOrder: late, Chunk: wire.Chunk{
		MinTime: times[0], MaxTime: times[len(times)-1], Encoding: uint8(chunkenc.EncXOR), Data: c.Bytes(),
	}}
}

func logged(ref chunks.HeadSeriesRef, times ...int64) []byte {
	var all []record.RefSample
	for _, at := range times {
		all = append(all, record.RefSample{Ref: ref, T: at, V: float64(at)})
	}
	return floatsRecord(plain, all...)
}

func TestMappedChunks(t *testing.T) {
	everything := HeadSpec{MinTime: math.MinInt64, MaxTime: math.MaxInt64, BlockRange: 1000}
	broken := mapped(t, 1, false, 10, 20, 30)
	broken.Data = broken.Data[:2]
	unknown := mapped(t, 1, false, 10, 20, 30)
	unknown.Encoding = 99
	for _, c := range []struct {
		name    string
		spec    HeadSpec
		chunks  []wire.HeadChunk
		wal     [][]byte
		wbl     [][]byte
		want    string
		ignored HeadIgnored
	}{
		{
			name:   "the log has nothing of them",
			chunks: []wire.HeadChunk{mapped(t, 1, false, 10, 20), mapped(t, 1, false, 30, 40)},
			wal:    [][]byte{seriesRecord(1)},
			want:   "1: 10=10 20=20 30=30 40=40",
		},
		{
			name:   "the log has the same samples, and more",
			chunks: []wire.HeadChunk{mapped(t, 1, false, 10, 20), mapped(t, 1, false, 30, 40)},
			wal:    [][]byte{seriesRecord(1), logged(1, 10, 20, 30, 40, 50)},
			want:   "1: 10=10 20=20 30=30 40=40 50=50",
		},
		{
			name:   "the log lost its middle",
			chunks: []wire.HeadChunk{mapped(t, 1, false, 20, 30)},
			wal:    [][]byte{seriesRecord(1), logged(1, 10, 40)},
			want:   "1: 10=10 20=20 30=30 40=40",
		},
		{
			name:   "a chunk in the middle is lost, the log has its samples",
			chunks: []wire.HeadChunk{mapped(t, 1, false, 10, 20), mapped(t, 1, false, 50, 60)},
			wal:    [][]byte{seriesRecord(1), logged(1, 10, 20, 30, 40, 50, 60)},
			want:   "1: 10=10 20=20 30=30 40=40 50=50 60=60",
		},
		{
			name:   "a chunk over the borders of the range and of a window",
			spec:   HeadSpec{MinTime: 20, MaxTime: 1010, BlockRange: 1000},
			chunks: []wire.HeadChunk{mapped(t, 1, false, 10, 20, 999, 1000, 1010, 1020)},
			wal:    [][]byte{seriesRecord(1), logged(1, 1030)},
			want:   "1: 20=20 999=999 1000=1000 1010=1010",
		},
		{
			name:   "out of order, between others and twice",
			chunks: []wire.HeadChunk{mapped(t, 1, true, 5, 25), mapped(t, 1, false, 10, 20, 30), mapped(t, 1, true, 25, 35)},
			wal:    [][]byte{seriesRecord(1)}, wbl: [][]byte{logged(1, 35, 27)},
			want: "1: 5=5 10=10 20=20 25=25 27=27 30=30 35=35",
		},
		{
			name:   "a series under two refs",
			chunks: []wire.HeadChunk{mapped(t, 1, false, 10, 20), mapped(t, 101, false, 30, 40)},
			wal:    [][]byte{seriesRecord(1), logged(1, 10, 20, 25), seriesRecord(101), logged(101, 30, 40, 50)},
			want:   "1: 10=10 20=20 25=25 30=30 40=40 50=50",
		},
		{
			name:   "deleted",
			chunks: []wire.HeadChunk{mapped(t, 1, false, 10, 20, 30)},
			wal:    [][]byte{seriesRecord(1), stone(1, 15, 25)},
			want:   "1: 10=10 30=30",
		},
		{
			name:   "no series record",
			chunks: []wire.HeadChunk{mapped(t, 7, false, 10, 20), mapped(t, 1, false, 10)},
			wal:    [][]byte{seriesRecord(1)},
			want:   "1: 10=10", ignored: HeadIgnored{UnknownChunks: 2},
		},
		{
			name:   "the ref was another series' before a repair",
			chunks: []wire.HeadChunk{mapped(t, 1, false, 10, 20), mapped(t, 1, false, 15, 25)},
			wal:    [][]byte{seriesRecord(1)},
			want:   "1: 15=15 25=25", ignored: HeadIgnored{UnknownChunks: 2},
		},
		{
			name:   "a file of chunks was copied",
			chunks: []wire.HeadChunk{mapped(t, 1, false, 10, 20), mapped(t, 1, false, 30), mapped(t, 1, false, 10, 20), mapped(t, 1, false, 30)},
			wal:    [][]byte{seriesRecord(1)},
			want:   "1: 10=10 20=20 30=30",
		},
		{
			name:   "one that must be cut does not decode",
			spec:   HeadSpec{MinTime: 20, MaxTime: 100, BlockRange: 1000},
			chunks: []wire.HeadChunk{broken},
			wal:    [][]byte{seriesRecord(1, 2), logged(2, 30)},
			want:   "2: 30=30", ignored: HeadIgnored{BadChunks: 1},
		},
		{
			name:   "a chunk with an unknown encoding must be cut",
			spec:   HeadSpec{MinTime: 20, MaxTime: 100, BlockRange: 1000},
			chunks: []wire.HeadChunk{unknown},
			wal:    [][]byte{seriesRecord(1, 2), logged(2, 30)},
			want:   "2: 30=30", ignored: HeadIgnored{BadChunks: 1},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.spec.Parent = t.TempDir()
			if c.spec.BlockRange == 0 {
				c.spec.MinTime, c.spec.MaxTime, c.spec.BlockRange = everything.MinTime, everything.MaxTime, everything.BlockRange
			}
			h, err := NewHeadBuilder(c.spec)
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := h.Discard(); err != nil {
					t.Error(err)
				}
			}()
			if err := h.Chunks(&wire.HeadChunks{Chunks: c.chunks}); err != nil {
				t.Fatal(err)
			}
			feed(t, h, wire.WAL, c.wal)
			feed(t, h, wire.WBL, c.wbl)
			if err := h.Chunks(&wire.HeadChunks{Chunks: c.chunks}); err == nil {
				t.Error("no error for chunks after records")
			}
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
		})
	}
}

// TestMappedChunksKeepTheirBytes checks that chunks inside the range are written unchanged, also
// with an unknown encoding.
func TestMappedChunksKeepTheirBytes(t *testing.T) {
	h, err := NewHeadBuilder(HeadSpec{Parent: t.TempDir(), MinTime: 0, MaxTime: 999, BlockRange: 1000})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Discard()
	strange := wire.HeadChunk{Ref: 1, Chunk: wire.Chunk{MinTime: 100, MaxTime: 200, Encoding: 99, Data: []byte{0, 2, 'x', 'y', 'z'}}}
	want := []wire.HeadChunk{mapped(t, 1, false, 10, 20), strange}
	if err := h.Chunks(&wire.HeadChunks{Chunks: want}); err != nil {
		t.Fatal(err)
	}
	feed(t, h, wire.WAL, [][]byte{seriesRecord(1), logged(1, 5, 10, 20, 150, 300)})
	built, err := h.Finish(context.Background())
	if err != nil || len(built) != 1 {
		t.Fatal(built, err)
	}
	var got [][]byte
	all, err := os.ReadFile(filepath.Join(built[0].Dir, "chunks", "000001"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range want {
		if bytes.Contains(all, append([]byte{c.Encoding}, c.Data...)) {
			got = append(got, c.Data)
		}
	}
	if len(got) != len(want) || built[0].Meta.Stats.NumChunks != 4 {
		t.Errorf("%d of %d chunks have their bytes, of %d in all", len(got), len(want), built[0].Meta.Stats.NumChunks)
	}
}
