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

// Head has the files of a data directory that are not in blocks.
type Head struct {
	WAL    []*File // the checkpoint's segments, then those after it
	WBL    []*File // the out-of-order log
	Chunks []*File // of chunks_head: the m-mapped chunks

	// MinValidTime is the first time, in Unix milliseconds, from which in-order
	// samples of the WAL count; a block has those before. math.MinInt64: all count.
	MinValidTime int64

	startWAL int   // the number that the first segment after the checkpoint must have
	lastWAL  *File // the segment that may be written to, if any
	lastWBL  *File
	damage   []Damage
}

// Damage returns the damage that [Open] found in the head's files. For [RawHead] that
// is all damage; otherwise it is what can be found without reading the files.
func (h *Head) Damage() []Damage { return h.damage }

// Bytes is the size of the head's files, in bytes.
func (h *Head) Bytes() int64 { return sizes(h.WAL) + sizes(h.WBL) + sizes(h.Chunks) }

func (h *Head) close() error {
	return errors.Join(closeAll(h.WAL), closeAll(h.WBL), closeAll(h.Chunks))
}

// open opens the head chunks before the logs: a log that is younger than the
// chunks has all of their samples that still count, an older one may not.
//
// A state that may be a change in progress gives errChanged. The last try accepts it: a
// server that died may have left it.
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
	// A checkpoint that came meanwhile has what the segments before it had.
	if now, _, err := lastCheckpoint(dir); err != nil {
		return err
	} else if now != checkpoint {
		return fmt.Errorf("%w: %s came", errChanged, now)
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

// errEmptyCheckpoint says why a server starts on a head and not on its copy.
var errEmptyCheckpoint = errors.New("it is empty, and a dump has no empty directories")

// splitSegments divides the segments of the WAL into those that are read after the
// checkpoint, which ends before segment from, and those that it covers.
//
// A checkpoint that covers all segments is from another log: a server that starts skips
// these segments, and then appends to them. They are read.
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

// gaps returns the files that are missing in a sequence.
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

// lastWritten is the segment that may end within a record. A server that starts
// after a crash makes a new, empty one before it looks at the one that it died in.
func lastWritten(files []*File) *File {
	for _, f := range slices.Backward(files) {
		if f.Size > 0 {
			return f
		}
	}
	return nil
}

// lastCheckpoint is the newest finished checkpoint and the number of the first
// segment that it does not cover.
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

// repairSuffix ends the name of a segment while a server repairs it: it copies the
// records before the damage to a new segment with the old name.
const repairSuffix = ".repair"

// numbered returns the sorted names of the numbered files in a directory. A directory
// that does not exist has none.
//
// A segment that was being repaired takes the place of the new one with its number,
// which has only a part of its records.
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

// segments returns the numbered files of a directory. A gap between them gives
// errChanged.
func segments(dir, name string) ([]string, error) {
	names, err := numbered(dir, name)
	for i := 1; i < len(names) && err == nil; i++ {
		before, _ := segmentNumber(filepath.Base(names[i-1]))
		if n, _ := segmentNumber(filepath.Base(names[i])); n != before+1 {
			return nil, fmt.Errorf("%w: %s goes from %d to %d", errChanged, name, before, n)
		}
	}
	return names, err
}

// openSegments opens the numbered files of a directory.
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
