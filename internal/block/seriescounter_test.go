package block_test

import (
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"

	"github.com/promdump/promdump/internal/block"
	"github.com/promdump/promdump/internal/tsdbtest"
)

// TestSeriesCounter writes the indexes of blocks in pieces of several sizes, and compares the count
// with the distinct series that the TSDB library reads.
func TestSeriesCounter(t *testing.T) {
	db := tsdbtest.Random(t, t.TempDir(), 7, tsdbtest.Options{Series: 30, Interval: 10 * time.Minute})
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	dirs, err := filepath.Glob(filepath.Join(db.Dir, "*", "index"))
	if err != nil || len(dirs) < 2 {
		t.Fatalf("%d blocks, %v", len(dirs), err)
	}
	distinct, sum, series := map[string]bool{}, 0, map[string]map[string]bool{}
	for _, pieces := range []int{1, 2, 17, 4096, 1 << 20} {
		c := block.NewSeriesCounter()
		r := rand.New(rand.NewPCG(1, uint64(pieces)))
		for _, file := range dirs {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if series[file] == nil {
				series[file] = seriesOf(t, filepath.Dir(file))
				sum += len(series[file])
				maps.Copy(distinct, series[file])
			}
			i := c.Index(uint64(len(series[file])))
			for len(text) > 0 {
				k := min(1+r.IntN(pieces), len(text))
				if _, err := i.Write(text[:k]); err != nil {
					t.Fatal(err)
				}
				text = text[k:]
			}
			i.Done()
		}
		if got, exact := c.Count(); !exact || got != uint64(len(distinct)) {
			t.Errorf("in pieces of %d: %d series, exact %v, want %d", pieces, got, exact, len(distinct))
		}
	}
	if sum <= len(distinct) {
		t.Errorf("%d series of %d: none is in two blocks", len(distinct), sum)
	}
}

// TestSeriesCounterOfABadIndex counts damaged and truncated indexes: a wrong count is inexact.
func TestSeriesCounterOfABadIndex(t *testing.T) {
	db := tsdbtest.Random(t, t.TempDir(), 8, tsdbtest.Options{Series: 20, Interval: 10 * time.Minute})
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	dirs, err := filepath.Glob(filepath.Join(db.Dir, "*", "index"))
	if err != nil || len(dirs) == 0 {
		t.Fatal(err)
	}
	text, err := os.ReadFile(dirs[0])
	if err != nil {
		t.Fatal(err)
	}
	var n uint64
	for range seriesOf(t, filepath.Dir(dirs[0])) {
		n++
	}
	count := func(text []byte) (uint64, bool) {
		c := block.NewSeriesCounter()
		i := c.Index(n)
		_, _ = i.Write(text)
		i.Done()
		return c.Count()
	}
	r := rand.New(rand.NewPCG(5, 6))
	for range 500 {
		bad := append([]byte{}, text...)
		bad[r.IntN(len(bad))] ^= 1 << r.IntN(8)
		if got, exact := count(bad); exact && got > n {
			t.Fatalf("%d series of %d", got, n)
		}
		if got, exact := count(text[:r.IntN(len(text)/4)]); exact && got != n {
			t.Fatalf("%d series of %d from a truncated index", got, n)
		}
	}
}

func seriesOf(t *testing.T, dir string) map[string]bool {
	t.Helper()
	b, err := tsdb.OpenBlock(nil, dir, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	r, err := b.Index()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	p, err := r.Postings(t.Context(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]bool{}
	var builder labels.ScratchBuilder
	for p.Next() {
		if err := r.Series(p.At(), &builder, nil); err != nil {
			t.Fatal(err)
		}
		all[builder.Labels().String()] = true
	}
	return all
}
