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
// A segment whose repair did not end gets its name back: it is as it was before, and
// a server repairs it again. What can be no file of a head is left out; if it is a
// segment, an empty one is in its place.
//
// The files that may be written to end at the last whole record or chunk: a torn
// record makes Prometheus repair its log at start, and a torn chunk makes it drop
// the file. No marker in the out-of-order log may stand for a chunk that is not
// there.
func (h *Head) openRaw(ctx context.Context, dir string, last bool) error {
	for _, name := range []string{"wal", "wbl"} {
		found, err := filepath.Glob(filepath.Join(dir, name, "*"+repairSuffix))
		if err == nil && len(found) > 0 && !last {
			return fmt.Errorf("%w: %s is repaired", errChanged, name)
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

// checkNames reports the segments that no server finds.
func (h *Head) checkNames() {
	for _, f := range slices.Concat(h.WAL, h.WBL) {
		n, err := segmentNumber(path.Base(f.Name))
		if err != nil || strings.Contains(f.Name, "checkpoint.") || f.begins(oldMagic) {
			continue
		}
		if want := segmentName(n); path.Base(f.Name) != want {
			h.damage = append(h.damage, Damage{File: f.Name, Err: fmt.Errorf("%w: %s", ErrName, want), Fatal: true})
		}
	}
}

// cutChunks ends the last file of head chunks where its last whole chunk ends, and
// leaves it out if it has none.
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
		if !r.last || r.damaging {
			continue
		}
		if f.Size = r.whole; f.Size == 0 {
			h.Chunks = h.Chunks[:i]
			return f.close()
		}
	}
	return nil
}
