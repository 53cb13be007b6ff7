package block

import (
	"math/rand/v2"
	"testing"

	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// byIterator returns the result of walkXOR as computed with chunkenc's iterator.
func byIterator(data []byte) (first, last int64, ok bool) {
	c, err := chunkenc.FromData(chunkenc.EncXOR, data)
	if err != nil || len(data) < 2 || c.NumSamples() == 0 {
		return 0, 0, false
	}
	n := 0
	it := c.Iterator(nil)
	for ; it.Next() != chunkenc.ValNone; n++ {
		t := it.AtT()
		if n == 0 {
			first = t
		} else if t <= last {
			return 0, 0, false
		}
		last = t
	}
	if it.Err() != nil || n != c.NumSamples() {
		return 0, 0, false
	}
	return first, last, true
}

func sameWalk(t *testing.T, data []byte) (ok bool) {
	t.Helper()
	first, last, ok := walkXOR(data)
	wantFirst, wantLast, want := byIterator(data)
	if ok && (!want || first != wantFirst || last != wantLast) {
		t.Fatalf("%x: %d to %d, %v; chunkenc returns %d to %d, %v", data, first, last, ok, wantFirst, wantLast, want)
	}
	return ok
}

// xorChunk returns a chunk of floats whose times and values use all codes of the format.
func xorChunk(t testing.TB, r *rand.Rand, samples int) []byte {
	c := chunkenc.NewXORChunk()
	app, err := c.Appender()
	if err != nil {
		t.Fatal(err)
	}
	at, step, v := r.Int64N(1<<50)-1<<49, int64(15_000), 1.0
	for range samples {
		app.Append(0, at, v)
		switch r.IntN(8) {
		case 0:
			step = 1 + r.Int64N(1<<(1+r.IntN(40)))
		case 1:
			step += r.Int64N(20) - 8
		}
		if step <= 0 {
			step = 1
		}
		at += step
		switch r.IntN(5) {
		case 0:
			v = r.Float64()
		case 1:
			v += float64(r.IntN(1000))
		case 2:
			v = -v / 3
		}
	}
	return c.Bytes()
}

func TestWalkXOR(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 3000 {
		data := xorChunk(t, r, 1+r.IntN(250))
		if !sameWalk(t, data) {
			t.Fatalf("%x is not read", data)
		}
		// Cut, and with a bit that is another.
		sameWalk(t, data[:r.IntN(len(data))])
		data[r.IntN(len(data))] ^= 1 << r.IntN(8)
		sameWalk(t, data)
	}
}

func FuzzWalkXOR(f *testing.F) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 20 {
		f.Add(xorChunk(f, r, 1+r.IntN(40)))
	}
	f.Fuzz(func(t *testing.T, data []byte) { sameWalk(t, data) })
}

func BenchmarkWalkXOR(b *testing.B) {
	data := xorChunk(b, rand.New(rand.NewPCG(5, 6)), 120)
	for name, walk := range map[string]func([]byte) (int64, int64, bool){"walk": walkXOR, "iterator": byIterator} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				walk(data)
			}
		})
	}
}
