// Package tsdbtest creates real TSDBs for tests, reads the samples that a Prometheus serves from a
// data directory, and describes how two sets of samples differ.
//
// A TSDB stores samples in many forms: blocks of several sizes, some of which overlap; tombstones of
// blocks and in the log; a head with checkpoint, segments and m-mapped chunks; out-of-order samples in
// their own log and in blocks. The samples that it serves do not depend on the form. A test therefore
// reads the samples that a server serves before and after an operation ([Samples]) and compares them
// ([Diff]).
//
//   - [Random] creates a random TSDB with all of these forms and with values that are easily damaged:
//     NaN payloads, infinities, stale markers, all types of native histograms, UTF-8 names, huge label
//     values. The samples depend on the seed only.
//   - [Bench] quickly writes a large data directory like that of a Kubernetes cluster.
//   - [Demo] writes a small one with an incident.
//
// The names of blocks and the bytes of files are not reproducible, because Prometheus names blocks at
// random. The proportions of a random TSDB are not those of a real one.
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

// Options are the options of [Random]. The zero value is valid.
type Options struct {
	Start          time.Time     // of the first sample; default 2026-01-01 00:00 UTC; aligned down to 6 h
	Duration       time.Duration // of all samples; default 15 h, at least 9 h
	Interval       time.Duration // between a series' samples; default 1 min
	Series         int           // default 48, at least 24: two of each kind
	WALSegmentSize int           // bytes, a multiple of 32 KiB; default 64 KiB

	// StartTimestamps stores a start timestamp with each sample: chunk encodings 4 to 6 in place of
	// 1 to 3, and newer record types in the WAL.
	StartTimestamps bool

	// Plain omits native histograms and UTF-8 names, which older versions of Prometheus do not
	// support.
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

// TSDB is a data directory and its open database.
type TSDB struct {
	Dir              string
	MinTime, MaxTime int64 // of all samples that were appended, Unix milliseconds, inclusive

	// Borders are the times at which blocks, deletions or the head begin or end, in Unix
	// milliseconds. They reveal off-by-one errors.
	Borders []int64

	// HeadDeletions are deletions of samples in the head. Prometheus applies them, also after a
	// restart, until it compacts out-of-order samples: those samples then appear again.
	HeadDeletions []Deletion

	opts Options
	db   *tsdb.DB
	seed uint64
}

// Deletion is a deleted time range, in Unix milliseconds, inclusive, of the series with a value of the
// label i.
type Deletion struct {
	I                string
	MinTime, MaxTime int64
}

// DB returns the open database, or nil after Close.
func (d *TSDB) DB() *tsdb.DB { return d.db }

// Close closes the database. The data directory remains.
func (d *TSDB) Close() error {
	if d.db == nil {
		return nil
	}
	db := d.db
	d.db = nil
	return db.Close()
}

// Crash copies the data directory of the open database into dir, as a power failure would leave it.
func (d *TSDB) Crash(dir string) error { return CopyDir(dir, d.Dir) }

// CopyDir copies a data directory without its lock file. No process may write to it meanwhile.
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

// Open opens a copy of the data directory dir with Prometheus' TSDB, without compaction or retention.
// The database is closed at the end of the test.
func Open(t testing.TB, dir string) *tsdb.DB {
	t.Helper()
	private := filepath.Join(t.TempDir(), "tsdb")
	if err := CopyDir(private, dir); err != nil {
		t.Fatalf("copy the data dir %s: %v", dir, err)
	}
	opts := tsdb.DefaultOptions()
	opts.RetentionDuration = 0
	opts.EnableOverlappingCompaction = false
	opts.FloatChunkEncoding = chunkenc.EncXOR2 // keeps start timestamps
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

// open opens the database. With merge it merges overlapping blocks in compactions.
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
	opts.OutOfOrderCapMax = 4 // small, so that some out-of-order chunks are m-mapped
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
	// Otherwise a commit starts a compaction in the background, at a time that does not depend on the
	// seed.
	db.DisableCompactions()
	d.db = db
	return nil
}

// compact compacts as the database would in the background.
func (d *TSDB) compact(ctx context.Context) error {
	d.db.ForceHeadMMap()
	if err := d.db.Compact(ctx); err != nil {
		return fmt.Errorf("compact: %w", err)
	}
	return nil
}
