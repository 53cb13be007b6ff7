package block

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/promdump/promdump/internal/wire"
)

func FuzzBuilderSeries(f *testing.F) {
	r := rand.New(rand.NewPCG(1, 1))
	for enc := chunkenc.EncXOR; enc <= chunkenc.EncFloatHistogramST; enc++ {
		k := []kind{0, floats, customs, floatCustoms, nans, resets, floatGauges}[enc]
		var points []point
		for i := range 30 {
			points = append(points, k.point(r, i, int64(i*10)))
		}
		for _, m := range encode(f, enc, points) {
			f.Add(uint8(enc), m.Chunk.Bytes(), int64(50), int64(150))
		}
	}
	f.Fuzz(func(t *testing.T, enc uint8, data []byte, from, to int64) {
		b, err := NewBuilder(Spec{Parent: t.TempDir(), MinTime: -1000, MaxTime: 280})
		if err != nil {
			t.Fatal(err)
		}
		defer b.Discard()
		if err := b.Symbols(&wire.Symbols{Refs: []uint32{1, 2}, Strings: []string{"a", "b"}}); err != nil {
			t.Fatal(err)
		}
		err = b.Series(&wire.Series{
			Labels:  []uint32{1, 2},
			Deleted: []wire.Interval{{MinTime: from, MaxTime: to}},
			Chunks: []wire.Chunk{
				{MinTime: math.MinInt64, MaxTime: math.MaxInt64, Encoding: enc, Data: data},
				{MinTime: 0, MaxTime: 300, Encoding: enc, Data: bytes.Clone(data)},
			},
		})
		if err != nil {
			return
		}
		built, err := b.Finish(t.Context())
		if err != nil || built == nil {
			return
		}
		for _, s := range readBlock(t, built.Dir) {
			for _, c := range s.chunks {
				if c.MinTime < -1000 || c.MaxTime > 280 {
					t.Errorf("a chunk from %d to %d was kept", c.MinTime, c.MaxTime)
				}
			}
		}
		// A block keeps two samples with the same time.
		_, err = Verify(t.Context(), built.Dir, func(f Finding) {
			if f.Level != Odd {
				t.Error(f)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}

// BenchmarkBuilder builds a block whose every series has two border chunks.
func BenchmarkBuilder(b *testing.B) {
	const nSeries = 58_000
	var points [2][]point
	for i := range 240 {
		points[i/120] = append(points[i/120], point{t: int64(i) * step, f: float64(i * i % 1000)})
	}
	var cs []wire.Chunk
	for _, p := range points {
		m := encode(b, chunkenc.EncXOR, p)[0]
		cs = append(cs, wire.Chunk{MinTime: m.MinTime, MaxTime: m.MaxTime, Encoding: 1, Data: m.Chunk.Bytes()})
	}
	var all []stored
	for i := range nSeries {
		all = append(all, stored{chunks: cs, labels: labels.FromStrings(
			"__name__", fmt.Sprintf("container_metric_%d", i%500), "cluster", "prod", "container", fmt.Sprintf("c%d", i%7),
			"id", fmt.Sprintf("/kubepods/burstable/pod%d", i), "image", fmt.Sprintf("registry/image:%d", i%50), "instance", fmt.Sprintf("10.0.%d.1", i%90),
			"job", "kubelet", "namespace", fmt.Sprintf("ns-%d", i%50), "node", fmt.Sprintf("node-%d", i%90), "pod", fmt.Sprintf("pod-%d", i%3000))})
	}
	sortedSeries(all)
	for _, c := range []struct {
		name       string
		mint, maxt int64
	}{{"border", 60 * step, 180 * step}, {"inside", 0, 240 * step}} {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				built := build(b, nil, all, c.mint, c.maxt)
				if built.Meta.Stats.NumSeries != nSeries {
					b.Fatal(built.Meta.Stats)
				}
				os.RemoveAll(built.Dir)
			}
		})
	}
}
