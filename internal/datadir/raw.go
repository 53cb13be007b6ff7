package datadir

import (
	"context"
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// openRaw prepares the opened head for copying.
//
//   - The original of an interrupted repair gets its name without ".repair" back, and a
//     server repairs it again.
//   - An unreadable segment is copied as an empty one; other unreadable files are not
//     copied.
//   - The files that a server may be writing to end after their last complete record or
//     chunk: a torn record makes Prometheus repair its log at start, and a torn chunk
//     makes it remove the file.
//   - Records of the out-of-order log with markers of chunk 0 are blanked, see
//     [blankMarkers].
//
// It returns [errChanged] if a server is repairing a log, unless last is set.
func (h *Head) openRaw(ctx context.Context, dir string, last bool) error {
	for _, name := range []string{"wal", "wbl"} {
		found, err := filepath.Glob(filepath.Join(dir, name, "*"+repairSuffix))
		if err == nil && len(found) > 0 && !last {
			return fmt.Errorf("%w: a server is repairing %s", errChanged, name)
		}
	}
	h.undoRepairs()
	h.checkNames()
	for _, files := range []*[]*File{&h.WAL, &h.WBL, &h.Chunks} {
		*files = slices.DeleteFunc(*files, func(f *File) bool { return f.fault != nil && f.faultFatal() })
	}
	add := func(d Damage) { h.damage = append(h.damage, d) }
	logs := []struct {
		files []*File
		last  *File
	}{{h.WAL, h.lastWAL}, {h.WBL, h.lastWBL}}
	for _, log := range logs {
		for _, f := range log.files {
			if err := ctx.Err(); err != nil {
				return err
			}
			r := newSegmentReader(f, f == log.last, add)
			end := r.end()
			if r.err != nil {
				return r.err
			}
			if f == log.last {
				f.Size = end
			}
		}
	}
	for _, f := range h.WBL {
		if err := blankMarkers(f); err != nil {
			return err
		}
	}
	return h.cutChunks(ctx, add)
}

// undoRepairs removes ".repair" from the names of segments. A server can start on them
// then, so the damage is not fatal.
func (h *Head) undoRepairs() {
	for _, f := range slices.Concat(h.WAL, h.WBL) {
		f.Name = strings.TrimSuffix(f.Name, repairSuffix)
	}
	for i := range h.damage {
		if errors.Is(h.damage[i].Err, ErrRepair) {
			h.damage[i].Fatal = false
		}
	}
}

// checkNames adds to h.damage the segments with names that servers do not read.
func (h *Head) checkNames() {
	for _, f := range slices.Concat(h.WAL, h.WBL) {
		n, err := segmentNumber(path.Base(f.Name))
		if err != nil || strings.Contains(f.Name, "checkpoint.") || f.hasPrefix(oldMagic) {
			continue
		}
		if want := segmentName(n); path.Base(f.Name) != want {
			h.damage = append(h.damage, Damage{File: f.Name, Err: fmt.Errorf("%w: %s", ErrName, want), Fatal: true})
		}
	}
}

// cutChunks sets the size of the last file of m-mapped chunks to the end of its last complete
// chunk, or removes the file from h.Chunks if not even its header is complete.
func (h *Head) cutChunks(ctx context.Context, damaged func(Damage)) error {
	for i, f := range h.Chunks {
		r := newChunkFileReader(f, i == len(h.Chunks)-1, damaged)
		for r.next() {
			if err := ctx.Err(); err != nil {
				return err
			}
		}
		if r.err != nil {
			return r.err
		}
		if !r.last || r.reported {
			continue
		}
		if f.Size = r.whole; f.Size == 0 {
			h.Chunks = h.Chunks[:i]
			return f.close()
		}
	}
	return nil
}
