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
	// Unloadable: Prometheus cannot open the block. A server that finds one in its
	// data directory may not start, load no new blocks, or compact none.
	Unloadable Level = iota
	// Unreadable: queries for some samples of the block fail or miss them. The server
	// is well, and serves the rest and all other blocks.
	Unreadable
	// Odd: Prometheus serves every sample, though no Prometheus of today would write
	// the block like this.
	Odd

	levels
)

func (l Level) String() string {
	return [...]string{"unloadable", "unreadable", "odd", ""}[min(l, levels)]
}

// Finding is something wrong or odd about a block.
type Finding struct {
	Level   Level
	Block   string // the name of its directory
	Place   string // "meta.json", "index, series {…}, chunk 3 (chunks/000001 at 1234)", …
	Problem string

	// More is the number of findings that this one stands for because they are not
	// listed.
	More int
}

func (f Finding) String() string { return f.Block + ": " + f.Place + ": " + f.Problem }

// Stats is what a block was found to hold.
type Stats struct {
	Samples, Series, Chunks uint64

	// Unknown counts the chunks of an unknown encoding. Their checksum is right, their
	// samples were not read. They are odd, not damaged: a newer Prometheus reads them.
	Unknown uint64

	// MinTime and MaxTime are of the first and the last sample, both included, in Unix
	// milliseconds; both are zero if no chunk can be read.
	MinTime, MaxTime int64
}

// maxFindings is how many findings of one level are listed one by one for a block.
// Damage to an index can make one for each series.
const maxFindings = 20

// Verify reads the block in dir as Prometheus would, but all of it, and reports
// what it finds wrong or odd: meta.json, the tables of the index, every postings list,
// every series, and every chunk down to its samples. report is called from the
// goroutine of Verify. The directory must be named by the block's ULID, as it is
// or with a suffix such as ".tmp-for-creation".
//
// The error is for what keeps Verify from going on: the directory cannot be read,
// ctx is done. Damage is a finding, never an error and never a panic. After 20
// findings of a level the others are only counted, in one more finding.
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
				Problem: fmt.Sprintf("%d more problems are not listed", n), More: n,
			})
		}
	}
	if err != nil {
		return stats, fmt.Errorf("verify block %s: %w", v.name, err)
	}
	return stats, nil
}

type verifier struct {
	dir, name string
	report    func(Finding)
	counts    [levels]int // findings
}

func (v *verifier) found(level Level, place, format string, args ...any) {
	if v.counts[level]++; v.counts[level] <= maxFindings {
		v.report(Finding{Level: level, Block: v.name, Place: place, Problem: fmt.Sprintf(format, args...)})
	}
}

// damaged reports whether something was found that is more than odd.
func (v *verifier) damaged() bool { return v.counts[Unloadable]+v.counts[Unreadable] > 0 }

// guard makes a finding of a panic: Prometheus' readers trust what a checksum
// covers, and a hostile block has right checksums.
func (v *verifier) guard(level Level, place string, f func()) {
	defer func() {
		if p := recover(); p != nil {
			v.found(level, place, "malformed: %v", p)
		}
	}()
	f()
}

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
		v.found(Odd, metaName, "is of block %s", meta.ULID)
	}
	if meta.MinTime >= meta.MaxTime {
		v.found(Odd, metaName, "the block starts at %d and ends at %d", meta.MinTime, meta.MaxTime)
	}
	if meta.Compaction.Deletable {
		v.found(Unreadable, metaName, "says that the block can be deleted: a server deletes it")
	}
	if slices.ContainsFunc(meta.Compaction.Parents, func(p tsdb.BlockDesc) bool { return p.ULID == meta.ULID }) {
		v.found(Unreadable, metaName, "names the block as its own parent: a server deletes it")
	}
	return meta, nil
}

// stats compares the statistics in meta.json with the block. Prometheus ignores these
// numbers.
func (v *verifier) stats(meta *tsdb.BlockMeta, got chunkStats) {
	want := meta.Stats
	if got.Chunks > 0 && want.NumSamples == 0 && want.NumSeries == 0 && want.NumChunks == 0 {
		v.found(Odd, metaName, "has no statistics; the block has %d samples", got.Samples)
		return
	}
	same := func(what string, want, got uint64) {
		if want != got {
			v.found(Odd, metaName, "says %d %s, there are %d", want, what, got)
		}
	}
	same("samples", want.NumSamples, got.Samples)
	same("series", want.NumSeries, got.Series)
	same("chunks", want.NumChunks, got.Chunks)
	// Older servers do not tell samples apart, or do not know all encodings.
	if want.NumFloatSamples+want.NumHistogramSamples == want.NumSamples {
		same("float samples", want.NumFloatSamples, got.floats)
		same("histogram samples", want.NumHistogramSamples, got.histograms)
	}
}

// tombstones checks that the deletions can be read and belong to this index. A
// block without the file has no deletions; Prometheus accepts that.
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
	// How many there are is not compared: Prometheus writes tombstones and meta.json
	// one after the other, and a live block can be read in between.
	if meta != nil && meta.Stats.NumTombstones > 0 && r.Total() == 0 {
		v.found(Odd, place, "%s says %d deletions, there are 0", metaName, meta.Stats.NumTombstones)
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

// segment is one file of chunks.
type segment struct {
	name string // "chunks/000001"
	data []byte
}

// segments opens the chunk files. Their place in the order of names, not their
// number, is what an index refers to.
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
		v.found(Unloadable, chunksDir, "there is no such directory")
		return nil, closeAll, nil
	} else if err != nil {
		return nil, nil, err
	}
	for _, e := range entries {
		if strings.Trim(e.Name(), "0123456789") != "" { // Prometheus ignores it too
			continue
		}
		name := chunksDir + "/" + e.Name()
		if want := fmt.Sprintf("%0.6d", len(segs)+1); e.Name() != want {
			v.found(Odd, name, "is where %s should be", want)
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

// mmap opens a file of the block. A file that is missing or empty is a finding,
// and its data nil.
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
		v.found(Unloadable, name, "the file is empty, or not a file")
		return nil, nothing, nil
	}
	f, err := fileutil.OpenMmapFile(path)
	if err != nil {
		return nil, nothing, err
	}
	return f.Bytes(), func() { f.Close() }, nil //nolint:errcheck // it was only read
}
