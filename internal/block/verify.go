package block

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"

	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/fileutil"
	"github.com/prometheus/prometheus/tsdb/tombstones"
)

// Level is the severity of a finding: what Prometheus does with such a block.
type Level uint8

// The levels, the worst first.
const (
	// Unloadable means that Prometheus cannot open the block. A server with such a block
	// in its data directory may not start, load no new blocks, or not compact.
	Unloadable Level = iota

	// Unreadable means that queries of some samples of the block fail or miss samples. The
	// server serves the rest of the block and all other blocks.
	Unreadable

	// Odd means that Prometheus serves every sample, but current versions do not write
	// such blocks.
	Odd

	levels
)

// String returns the level in lower case.
func (l Level) String() string {
	return [...]string{"unloadable", "unreadable", "odd", ""}[min(l, levels)]
}

// Finding is something wrong or odd about a block.
type Finding struct {
	Level   Level
	Block   string // the name of its directory
	Place   string // "meta.json", "index, series {…}, chunk 3 (chunks/000001 at 1234)", …
	Problem string

	// More is the number of further findings that this one counts in place of listing
	// them. It is 0 otherwise.
	More int
}

// String returns block, place and problem.
func (f Finding) String() string { return f.Block + ": " + f.Place + ": " + f.Problem }

// Stats has the statistics of the data that Verify read.
type Stats struct {
	Samples, Series, Chunks uint64

	// Unknown is the number of chunks with an unknown encoding and a good checksum. Verify
	// cannot read their samples. They are odd, not damaged: a newer Prometheus reads them.
	Unknown uint64

	// MinTime and MaxTime are the times of the first and the last sample, in Unix
	// milliseconds. Both are zero if no chunk can be read.
	MinTime, MaxTime int64
}

// maxFindings is the maximum number of listed findings of a level and a block. Damage to an index
// can cause one for each series.
const maxFindings = 20

// Verify reads the block in dir completely, like Prometheus: meta.json, the tables of the index,
// every postings list, every series, and every sample of every chunk. It calls report, in its own
// goroutine, for each finding. The name of the directory must be the block's ULID, with or without
// a suffix such as ".tmp-for-creation".
//
// Damage is a finding, never an error or a panic. An error means that Verify could not continue:
// it cannot read the directory, or ctx is done. After 20 findings of a level Verify only counts
// further ones, in one more finding.
func Verify(ctx context.Context, dir string, report func(Finding)) (Stats, error) {
	if info, err := os.Stat(dir); err != nil {
		return Stats{}, fmt.Errorf("verify block: %w", err)
	} else if !info.IsDir() {
		return Stats{}, fmt.Errorf("verify block: %s is not a directory", dir)
	}
	v := &verifier{dir: dir, name: filepath.Base(dir), report: report}
	stats, err := v.run(ctx)
	for l, n := range v.counts {
		if n -= maxFindings; n > 0 {
			report(Finding{
				Level: Level(l), Block: v.name, Place: "block",
				Problem: fmt.Sprintf("%d more problems, not listed", n), More: n,
			})
		}
	}
	if err != nil {
		return stats, fmt.Errorf("verify block %s: %w", v.name, err)
	}
	return stats, nil
}

// verifier verifies one block.
type verifier struct {
	dir, name string
	report    func(Finding)
	counts    [levels]int // number of findings, also unlisted ones
}

// found counts a finding, and reports it unless there are too many.
func (v *verifier) found(level Level, place, format string, args ...any) {
	if v.counts[level]++; v.counts[level] <= maxFindings {
		v.report(Finding{Level: level, Block: v.name, Place: place, Problem: fmt.Sprintf(format, args...)})
	}
}

// damaged reports whether there are findings worse than Odd.
func (v *verifier) damaged() bool { return v.counts[Unloadable]+v.counts[Unreadable] > 0 }

// guard calls f and turns a panic into a finding. Prometheus' readers panic on some invalid data,
// and a malicious block has good checksums.
func (v *verifier) guard(level Level, place string, f func()) {
	defer func() {
		if p := recover(); p != nil {
			v.found(level, place, "malformed: %v", p)
		}
	}()
	f()
}

// run verifies all parts of the block.
func (v *verifier) run(ctx context.Context) (Stats, error) {
	meta, err := v.meta()
	if err != nil {
		return Stats{}, err
	}
	data, closeIndex, err := v.mmap(indexName)
	if err != nil {
		return Stats{}, err
	}
	defer closeIndex()
	segments, closeSegments, err := v.segments()
	if err != nil {
		return Stats{}, err
	}
	defer closeSegments()

	var x *indexFile
	if data != nil {
		v.guard(Unloadable, indexName, func() { x = v.index(ctx, data) })
	}
	if x == nil {
		return Stats{}, ctx.Err()
	}
	if err := ctx.Err(); err != nil {
		return Stats{}, err
	}
	v.guard(Unloadable, tombstones.TombstonesFilename, func() { err = v.tombstones(meta, x) })
	if err != nil {
		return Stats{}, err
	}
	stats, err := v.chunks(ctx, x, meta, segments)
	if err != nil {
		return stats.Stats, err
	}
	if meta != nil && !v.damaged() {
		v.stats(meta, stats)
	}
	return stats.Stats, nil
}

// meta checks meta.json. It returns nil if the file cannot be used.
func (v *verifier) meta() (*tsdb.BlockMeta, error) {
	meta, err := ReadMeta(v.dir)
	if err != nil {
		if pathErr, ok := errors.AsType[*fs.PathError](err); ok && !errors.Is(pathErr, fs.ErrNotExist) {
			return nil, err
		}
		v.found(Unloadable, metaName, "%v", err)
		return nil, nil
	}
	if id, _, _ := strings.Cut(v.name, "."); id != meta.ULID.String() {
		v.found(Odd, metaName, "its ULID is %s", meta.ULID)
	}
	if meta.MinTime >= meta.MaxTime {
		v.found(Odd, metaName, "the block starts at %d and ends at %d", meta.MinTime, meta.MaxTime)
	}
	if meta.Compaction.Deletable {
		v.found(Unreadable, metaName, "the block is marked deletable: a server deletes it")
	}
	if slices.ContainsFunc(meta.Compaction.Parents, func(p tsdb.BlockDesc) bool { return p.ULID == meta.ULID }) {
		v.found(Unreadable, metaName, "the block is its own parent: a server deletes it")
	}
	return meta, nil
}

// stats compares the statistics in meta.json with the block. Prometheus ignores these
// numbers.
func (v *verifier) stats(meta *tsdb.BlockMeta, got chunkStats) {
	want := meta.Stats
	if got.Chunks > 0 && want.NumSamples == 0 && want.NumSeries == 0 && want.NumChunks == 0 {
		v.found(Odd, metaName, "no statistics; the block has %d samples", got.Samples)
		return
	}
	same := func(what string, want, got uint64) {
		if want != got {
			v.found(Odd, metaName, "its statistics have %d %s, but the block has %d", want, what, got)
		}
	}
	same("samples", want.NumSamples, got.Samples)
	same("series", want.NumSeries, got.Series)
	same("chunks", want.NumChunks, got.Chunks)
	// Older servers do not count floats and histograms separately, or not in all encodings.
	if want.NumFloatSamples+want.NumHistogramSamples == want.NumSamples {
		same("float samples", want.NumFloatSamples, got.floats)
		same("histogram samples", want.NumHistogramSamples, got.histograms)
	}
}

// tombstones checks that the deletions can be read and refer to series of the index. Prometheus
// accepts a block without the file.
func (v *verifier) tombstones(meta *tsdb.BlockMeta, x *indexFile) error {
	const place = tombstones.TombstonesFilename
	r, _, err := tombstones.ReadTombstones(v.dir)
	if err != nil {
		if _, ok := errors.AsType[*fs.PathError](err); ok {
			return err
		}
		v.found(Unloadable, place, "%v", err)
		return nil
	}
	// Other numbers may differ: Prometheus writes tombstones before meta.json, and a block of
	// a running server can be read in between.
	if meta != nil && meta.Stats.NumTombstones > 0 && r.Total() == 0 {
		v.found(Odd, place, "no deletions, but %s has %d", metaName, meta.Stats.NumTombstones)
	}
	var lost []storage.SeriesRef
	err = r.Iter(func(ref storage.SeriesRef, _ tombstones.Intervals) error {
		i := sort.Search(len(x.refs), func(i int) bool { return x.refs[i] >= uint64(ref) })
		if i == len(x.refs) || x.refs[i] != uint64(ref) {
			lost = append(lost, ref)
		}
		return nil
	})
	if err != nil {
		v.found(Unloadable, place, "%v", err)
	}
	slices.Sort(lost)
	for _, ref := range lost {
		v.found(Odd, place, "deletes from series %d, which is not in the index", ref)
	}
	return nil
}

// segment is a mapped chunk file.
type segment struct {
	name string // "chunks/000001"
	data []byte // nil if the file cannot be used
}

// segments maps the chunk files. An index refers to their position in the order of names, not to
// the number in the name. The caller must call the returned function.
func (v *verifier) segments() ([]segment, func(), error) {
	var segs []segment
	var closers []func()
	closeAll := func() {
		for _, c := range closers {
			c()
		}
	}
	entries, err := os.ReadDir(filepath.Join(v.dir, chunksDir))
	if errors.Is(err, fs.ErrNotExist) {
		v.found(Unloadable, chunksDir, "the directory is missing")
		return nil, closeAll, nil
	} else if err != nil {
		return nil, nil, err
	}
	for _, e := range entries {
		if strings.Trim(e.Name(), "0123456789") != "" { // Prometheus ignores other names
			continue
		}
		name := chunksDir + "/" + e.Name()
		if want := fmt.Sprintf("%0.6d", len(segs)+1); e.Name() != want {
			v.found(Odd, name, "the name should be %s", want)
		}
		data, c, err := v.mmap(name)
		if err != nil {
			closeAll()
			return nil, nil, err
		}
		closers = append(closers, c)
		if data != nil {
			if p := checkSegmentHeader(data); p != "" {
				v.found(Unloadable, name, "%s", p)
				data = nil
			}
		}
		segs = append(segs, segment{name: name, data: data})
	}
	return segs, closeAll, nil
}

// mmap maps a file of the block. It returns nil data, after a finding, if the file is missing or
// empty. The caller must call the returned function.
func (v *verifier) mmap(name string) ([]byte, func(), error) {
	nothing := func() {}
	path := filepath.Join(v.dir, filepath.FromSlash(name))
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		v.found(Unloadable, name, "the file is missing")
		return nil, nothing, nil
	} else if err != nil {
		return nil, nothing, err
	}
	if !info.Mode().IsRegular() || info.Size() == 0 {
		v.found(Unloadable, name, "empty, or not a regular file")
		return nil, nothing, nil
	}
	f, err := fileutil.OpenMmapFile(path)
	if err != nil {
		return nil, nothing, err
	}
	return f.Bytes(), func() { f.Close() }, nil //nolint:errcheck // opened for reading
}
