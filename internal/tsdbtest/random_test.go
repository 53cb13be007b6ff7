package tsdbtest

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/tsdb"
)

// TestRandomServesTheSameInAllShapes compares the samples of a random TSDB while it is open, after a
// shutdown, after a crash, and after all of it became blocks. If they differed, the right samples of a
// dump would not be defined.
func TestRandomServesTheSameInAllShapes(t *testing.T) {
	for _, opts := range []Options{{}, {StartTimestamps: true}, {Plain: true}} {
		for seed := range uint64(1) {
			t.Run(fmt.Sprintf("st=%v,plain=%v,seed=%d", opts.StartTimestamps, opts.Plain, seed), func(t *testing.T) {
				start := time.Now()
				d := Random(t, filepath.Join(t.TempDir(), "data"), seed, opts)
				filled := time.Since(start)
				want := Samples(t, d.DB(), Everything())
				t.Logf("filled in %v, read in %v: %d series, %d samples", filled, time.Since(start)-filled, len(want), want.Count())

				crashed := filepath.Join(t.TempDir(), "crashed")
				if err := d.Crash(crashed); err != nil {
					t.Fatal(err)
				}
				if diff := Diff(want, SamplesDir(t, crashed, Everything())); diff != "" {
					t.Errorf("after a crash:\n%s", diff)
				}
				if err := d.Close(); err != nil {
					t.Fatal(err)
				}
				if diff := Diff(want, SamplesDir(t, d.Dir, Everything())); diff != "" {
					t.Errorf("after a clean shutdown:\n%s", diff)
				}
				db := Open(t, d.Dir)
				compactHead(t, db)
				want = withoutDeleted(want, d)
				if diff := Diff(want, withoutDeleted(Samples(t, db, Everything()), d)); diff != "" {
					t.Errorf("after the head became blocks:\n%s", diff)
				}
				if err := db.CleanTombstones(); err != nil {
					t.Fatal(err)
				}
				if diff := Diff(want, withoutDeleted(Samples(t, db, Everything()), d)); diff != "" {
					t.Errorf("after deletions were carried out:\n%s", diff)
				}
			})
		}
	}
}

// withoutDeleted removes deleted samples that Prometheus' compaction restores.
func withoutDeleted(served Served, d *TSDB) Served {
	for name, samples := range served {
		for _, del := range d.HeadDeletions {
			if strings.Contains(name, fmt.Sprintf(" i=%q", del.I)) {
				samples = slices.DeleteFunc(samples, func(s Sample) bool { return s.T >= del.MinTime && s.T <= del.MaxTime })
			}
		}
		served[name] = samples
		if len(samples) == 0 {
			delete(served, name)
		}
	}
	return served
}

func compactHead(t *testing.T, db *tsdb.DB) {
	t.Helper()
	const step = int64(blockRange / time.Millisecond)
	from, to := db.Head().MinTime()/step*step, db.Head().MaxTime() // read first: compaction changes them
	for ; from <= to; from += step {
		if err := db.CompactHead(tsdb.NewRangeHead(db.Head(), from, from+step-1)); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.CompactOOOHead(context.Background()); err != nil {
		t.Fatal(err)
	}
}
