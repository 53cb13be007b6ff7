package agent

import (
	"slices"

	"github.com/promdump/promdump/internal/datadir"
	"github.com/promdump/promdump/internal/wire"
)

// resumePoint records what an interrupted stream has already sent.
type resumePoint struct {
	blocks  map[string]bool // ULIDs
	sources map[string]bool // of all of them
	where   wire.Position
}

func before(r *wire.Resume) resumePoint {
	t := resumePoint{blocks: map[string]bool{}, sources: map[string]bool{}}
	if r == nil {
		return t
	}
	for _, b := range r.Have {
		t.add(b)
	}
	if r.At != nil {
		t.where = *r.At
	}
	return t
}

// add adds a block that was sent.
func (t resumePoint) add(b wire.Block) {
	t.blocks[b.ULID] = true
	for _, s := range b.Sources {
		t.sources[s] = true
	}
}

// has reports whether all samples of a block were sent: as the block itself, or as all
// the blocks that it was compacted from.
func (t resumePoint) has(m datadir.Meta) bool {
	if t.blocks[m.ULID] {
		return true
	}
	for _, s := range m.Compaction.Sources {
		if !t.sources[s] {
			return false
		}
	}
	return len(m.Compaction.Sources) > 0
}

// at returns the position from which a block is to be sent.
func (t resumePoint) at(ulid string) wire.Position {
	if t.where.ULID == ulid {
		return t.where
	}
	return wire.Position{}
}

// first puts the block that was sent in part before the others.
func (t resumePoint) first(blocks []*datadir.Block) {
	i := slices.IndexFunc(blocks, func(b *datadir.Block) bool { return b.Meta.ULID == t.where.ULID })
	if i > 0 {
		b := blocks[i]
		copy(blocks[1:], blocks[:i])
		blocks[0] = b
	}
}
