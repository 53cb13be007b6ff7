package datadir

import (
	"context"
	"fmt"
	"path/filepath"
)

// openRaw makes the opened head fit to be copied.
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
			return f.f.Close()
		}
	}
	return nil
}
