package datadir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// Head has the open files of the head of a data directory. They are valid until the [Dir]
// is closed.
type Head struct {
	WAL    []*File // segments of the checkpoint, then those after it
	WBL    []*File // segments of the out-of-order log
	Chunks []*File // files of m-mapped chunks, in chunks_head

	// MinValidTime is the time, in Unix milliseconds, from which readers use the in-order
	// samples of the WAL; a block has the earlier ones. It is math.MinInt64 if they use
	// all.
	MinValidTime int64

	startWAL int   // required number of the first segment after the checkpoint
	lastWAL  *File // segment that a server may be writing to, or nil
	lastWBL  *File // as lastWAL
	damage   []Damage
}

// Damage returns the damage that [Open] found in the head's files: all damage for
// [RawHead], otherwise only what shows without reading the files.
func (h *Head) Damage() []Damage { return h.damage }

// Bytes returns the size of the head's files, in bytes.
func (h *Head) Bytes() int64 { return totalSize(h.WAL) + totalSize(h.WBL) + totalSize(h.Chunks) }

func (h *Head) close() error {
	return errors.Join(closeAll(h.WAL), closeAll(h.WBL), closeAll(h.Chunks))
}

// open opens the files of the head. It opens the m-mapped chunks before the logs: a log
// opened later has all of their samples that are still in the head, one opened earlier
// may lack some.
//
// open returns [errChanged] for a state that a server may be changing. On the last attempt
// it accepts that state: a server that crashed may have left it.
func (h *Head) open(ctx context.Context, dir string, want HeadFiles, last bool) error {
	h.MinValidTime = math.MinInt64
	if want == NoHead {
		return nil
	}
	var err error
	if h.Chunks, err = openSegments(dir, "chunks_head"); err != nil {
		return err
	}
	checkpoint, from, err := lastCheckpoint(dir)
	if err != nil {
		return err
	}
	if checkpoint != "" {
		if h.WAL, err = openSegments(dir, checkpoint); err != nil {
			return err
		}
	}
	all, err := openSegments(dir, "wal")
	if err != nil {
		return err
	}
	wal, covered := splitSegments(all, from)
	h.WAL = append(h.WAL, wal...)
	if err := closeAll(covered); err != nil {
		return err
	}
	h.startWAL, h.lastWAL = from, lastWritten(wal)
	if h.WBL, err = openSegments(dir, "wbl"); err != nil {
		return err
	}
	h.lastWBL = lastWritten(h.WBL)
	// A new checkpoint replaces segments that a server deletes: some may be missing.
	if now, _, err := lastCheckpoint(dir); err != nil {
		return err
	} else if now != checkpoint {
		return fmt.Errorf("%w: %s is new", errChanged, now)
	}
	h.damage = h.gaps()
	empty := checkpoint != "" && len(h.WAL) == len(wal)
	if want == RawHead && empty && len(wal) > 0 && filepath.Base(wal[0].Name) != segmentName(0) {
		h.damage = append(h.damage, Damage{File: checkpoint, Err: errEmptyCheckpoint, Fatal: true})
	}
	if len(h.damage) > 0 && !last {
		return fmt.Errorf("%w: %v", errChanged, h.damage[0])
	}
	if want == RawHead {
		return h.openRaw(ctx, dir, last)
	}
	return nil
}

// errEmptyCheckpoint reports a checkpoint that a copy of the head lacks. A server starts
// on the original head, but not on the copy.
var errEmptyCheckpoint = errors.New("the checkpoint is empty, and a dump cannot hold empty directories")

// splitSegments divides the segments of the WAL into those that readers need and those
// that the checkpoint covers, which are numbered below from.
//
// A checkpoint that covers all segments is from another log. A server that starts skips
// the segments but appends to them later. Readers need them.
func splitSegments(all []*File, from int) (read, covered []*File) {
	i := slices.IndexFunc(all, func(f *File) bool {
		n, err := segmentNumber(filepath.Base(f.Name))
		return err == nil && n >= from
	})
	if i < 0 {
		return all, nil
	}
	return all[i:], all[:i]
}

// gaps returns the damage that the names of the files show: missing files, interrupted
// repairs and files that cannot be read.
func (h *Head) gaps() (found []Damage) {
	for _, log := range []struct {
		files []*File
		start int
	}{{h.WAL, h.startWAL}, {h.WBL, anySegment}, {h.Chunks, anySegment}} {
		seq := sequence{next: log.start}
		for _, f := range log.files {
			found = append(found, seq.take(f)...)
		}
	}
	return found
}

// lastWritten returns the segment that may end within a record, or nil: the last one that
// is not empty. A server that starts after a crash creates an empty segment before it
// repairs the one that it was writing.
func lastWritten(files []*File) *File {
	for _, f := range slices.Backward(files) {
		if f.Size > 0 {
			return f
		}
	}
	return nil
}

// lastCheckpoint returns the newest complete checkpoint, relative to dir, and the number of
// the first segment that it does not cover. The name is empty if there is no checkpoint.
func lastCheckpoint(dir string) (name string, from int, err error) {
	entries, err := os.ReadDir(filepath.Join(dir, "wal"))
	if err != nil && !missing(err) {
		return "", 0, fmt.Errorf("list wal: %w", err)
	}
	for _, e := range entries {
		num, ok := strings.CutPrefix(e.Name(), "checkpoint.")
		if !ok || !e.IsDir() {
			continue
		}
		n, err := strconv.Atoi(num) // not a number: checkpoint.N.tmp
		if err == nil && (name == "" || n >= from) {
			name, from = "wal/"+e.Name(), n+1
		}
	}
	return name, from, nil
}

// repairSuffix is the suffix of a segment while a server repairs it: the server renames the
// segment and copies the records before the damage to a new one with the old name.
const repairSuffix = ".repair"

// numbered returns the names of the numbered files in a directory, sorted by number. It
// returns none if the directory does not exist.
//
// The original of an interrupted repair replaces the new segment with its number, which
// has only a part of its records.
func numbered(dir, name string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(dir, filepath.FromSlash(name)))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list %s: %w", name, err)
	}
	found := map[int]string{}
	for _, e := range entries {
		n, err := segmentNumber(e.Name())
		if err != nil || n < 0 || strings.HasSuffix(found[n], repairSuffix) {
			continue
		}
		found[n] = name + "/" + e.Name()
	}
	names := make([]string, 0, len(found))
	for _, n := range slices.Sorted(maps.Keys(found)) {
		names = append(names, found[n])
	}
	return names, nil
}

// segments returns the names of the numbered files of a directory. It returns [errChanged]
// if there is a gap between them.
func segments(dir, name string) ([]string, error) {
	names, err := numbered(dir, name)
	for i := 1; i < len(names) && err == nil; i++ {
		before, _ := segmentNumber(filepath.Base(names[i-1]))
		if n, _ := segmentNumber(filepath.Base(names[i])); n != before+1 {
			return nil, fmt.Errorf("%w: %s has %d and then %d", errChanged, name, before, n)
		}
	}
	return names, err
}

// openSegments opens the numbered files of a directory, in order. A file or directory of
// the wrong type becomes an [unreadable] file.
func openSegments(dir, name string) ([]*File, error) {
	names, err := numbered(dir, name)
	if errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ELOOP) {
		return []*File{unreadable(name, errNotDir)}, nil
	}
	if err != nil {
		return nil, err
	}
	var files []*File
	for _, n := range names {
		f, err := openFile(dir, n)
		if errors.Is(err, errNotRegular) {
			f, err = unreadable(n, errNotRegular), nil
		}
		if err != nil {
			return nil, errors.Join(err, closeAll(files))
		}
		if whole, repair := strings.CutSuffix(n, repairSuffix); repair {
			f.unrepaired = !exists(filepath.Join(dir, filepath.FromSlash(whole)))
		}
		files = append(files, f)
	}
	return files, nil
}
