// Package tsdbtest makes real TSDBs for tests, reads back what a Prometheus
// would serve of a data dir, and says in words how two of them differ.
//
// A TSDB holds its samples in many shapes: blocks of several ages, some of which
// overlap; tombstones beside blocks and in the log; a head as checkpoint,
// segments and m-mapped chunks; out-of-order samples that are still in their own
// log, and others that were compacted already. What is read is one and the same
// in all of them. So a test of what promdump did asks two questions only: what
// does a server serve from here, what from there ([Samples]), and is it equal
// ([Diff])?
//
//   - [Random] fills a TSDB at random with all of these shapes, the same for the
//     same seed, and with values that are easily damaged: NaN payloads, infinities,
//     stale markers, every kind of native histogram, names in UTF-8, huge values.
//   - [Bench] writes a big data dir like that of a Kubernetes cluster, quickly.
//   - [Demo] writes a small one with an incident in it.
//
// What is not promised: the names of blocks and the bytes of files (names are
// random in Prometheus itself), or that a generated TSDB looks like a real one
// in its proportions.
package tsdbtest

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/util/compression"
)

// Options shape a random TSDB. The zero value is a good one.
type Options struct {
	Start          time.Time     // of the first sample; default 2026-01-01 00:00 UTC; aligned down to 6 h
	Duration       time.Duration // of all data; default 15 h, at least 9 h
	Interval       time.Duration // between a series' samples; default 1 min
	Series         int           // default 48, at least 24: two of each kind
	WALSegmentSize int           // bytes, a multiple of 32 KiB; default 64 KiB

	// StartTimestamps stores a start timestamp with each sample: chunk
	// encodings 4 to 6 instead of 1 to 3, and the newer records in the WAL.
	StartTimestamps bool

	// Plain leaves out what an older Prometheus cannot read or have: native
	// histograms and names in UTF-8.
	Plain bool
}

func (o Options) withDefaults() Options {
	if o.Start.IsZero() {
		o.Start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	}
	o.Start = o.Start.Truncate(6 * time.Hour)
	if o.Duration == 0 {
		o.Duration = 15 * time.Hour
	}
	o.Duration = max(o.Duration, 9*time.Hour)
	if o.Interval == 0 {
		o.Interval = time.Minute
	}
	if o.Series == 0 {
		o.Series = 48
	}
	o.Series = max(o.Series, 24)
	if o.WALSegmentSize == 0 {
		o.WALSegmentSize = 64 << 10
	}
	return o
}

// TSDB is a data dir with a database that has it open.
type TSDB struct {
	Dir              string
	MinTime, MaxTime int64 // of all samples that were appended, Unix milliseconds, both included

	// Borders are times at which blocks, deletions or the head begin or end, in
	// Unix milliseconds: where off-by-one errors live.
	Borders []int64

	// HeadDeletions were made while their samples, or some, were in the head.
	// Prometheus itself applies them to what it serves, also after a restart, but
	// forgets them when it compacts out-of-order samples: those come back.
	HeadDeletions []Deletion

	opts Options
	db   *tsdb.DB
	seed uint64
}

// Deletion is a deleted range of the series whose label i has this value, in
// Unix milliseconds, both ends included.
type Deletion struct {
	I                string
	MinTime, MaxTime int64
}

// DB is the open database. It is nil after Close.
func (d *TSDB) DB() *tsdb.DB { return d.db }

// Close shuts the database down cleanly and leaves its data dir.
func (d *TSDB) Close() error {
	if d.db == nil {
		return nil
	}
	db := d.db
	d.db = nil
	return db.Close()
}

// Crash copies the data dir as a power cut would leave it: the database is not
// shut down first. The TSDB itself stays open.
func (d *TSDB) Crash(dir string) error { return CopyDir(dir, d.Dir) }

// CopyDir copies a data dir that nobody writes to at this time, without its lock.
func CopyDir(dst, src string) error {
	return filepath.WalkDir(src, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(src, path)
		if err != nil {
			return err
		}
		to := filepath.Join(dst, rel)
		switch {
		case e.IsDir():
			return os.MkdirAll(to, 0o777)
		case rel == "lock":
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(to, b, 0o666)
	})
}

// Open opens a copy of a data dir with the TSDB that Prometheus is made of, and
// so leaves dir alone. Nothing is compacted or deleted. It is closed at the end
// of the test.
func Open(t testing.TB, dir string) *tsdb.DB {
	t.Helper()
	private := filepath.Join(t.TempDir(), "tsdb")
	if err := CopyDir(private, dir); err != nil {
		t.Fatalf("copy the data dir %s: %v", dir, err)
	}
	opts := tsdb.DefaultOptions()
	opts.RetentionDuration = 0
	opts.EnableOverlappingCompaction = false
	opts.FloatChunkEncoding = chunkenc.EncXOR2 // keeps start timestamps where there are some
	opts.EnableSTStorage = true
	opts.EnableHistogramSTEncoding = true
	db, err := tsdb.Open(private, nil, nil, opts, nil)
	if err != nil {
		t.Fatalf("open a copy of the data dir %s: %v", dir, err)
	}
	db.DisableCompactions()
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Errorf("close the copy of the data dir %s: %v", dir, err)
		}
	})
	return db
}

const blockRange = 2 * time.Hour

// open opens the data dir for one session of filling; merge lets blocks be merged.
func (d *TSDB) open(merge bool, wal compression.Type) error {
	opts := tsdb.DefaultOptions()
	opts.RetentionDuration = 0
	opts.MinBlockDuration = blockRange.Milliseconds()
	if opts.MaxBlockDuration = opts.MinBlockDuration; merge {
		opts.MaxBlockDuration *= 3
	}
	opts.SamplesPerChunk = 30
	opts.WALSegmentSize = d.opts.WALSegmentSize
	opts.WALCompression = wal
	opts.OutOfOrderTimeWindow = (3 * time.Hour).Milliseconds()
	opts.OutOfOrderCapMax = 4 // so that some out-of-order chunks are m-mapped
	opts.EnableOverlappingCompaction = merge
	if d.opts.StartTimestamps {
		opts.FloatChunkEncoding = chunkenc.EncXOR2
		opts.EnableSTStorage = true
		opts.EnableHistogramSTEncoding = true
	}
	db, err := tsdb.Open(d.Dir, nil, nil, opts, nil)
	if err != nil {
		return fmt.Errorf("open the TSDB: %w", err)
	}
	// Else a commit triggers a compaction in the background, at a time that the
	// seed does not decide.
	db.DisableCompactions()
	d.db = db
	return nil
}

// compact does what the database would do by itself from time to time.
func (d *TSDB) compact(ctx context.Context) error {
	d.db.ForceHeadMMap()
	if err := d.db.Compact(ctx); err != nil {
		return fmt.Errorf("compact: %w", err)
	}
	return nil
}
