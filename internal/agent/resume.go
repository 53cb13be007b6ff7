package agent

import (
	"slices"

	"github.com/promdump/promdump/internal/datadir"
	"github.com/promdump/promdump/internal/wire"
)

// told is what a story that was cut had told.
type told struct {
	blocks  map[string]bool // ULIDs
	sources map[string]bool // of all of them
	where   wire.Position
}

func before(r *wire.Resume) told {
	t := told{blocks: map[string]bool{}, sources: map[string]bool{}}
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
func (t told) add(b wire.Block) {
	t.blocks[b.ULID] = true
	for _, s := range b.Sources {
		t.sources[s] = true
	}
}

// has tells whether all samples of a block were told: the block itself was, or
// all that it was compacted of.
func (t told) has(m datadir.Meta) bool {
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

// at is where a block goes on.
func (t told) at(ulid string) wire.Position {
	if t.where.ULID == ulid {
		return t.where
	}
	return wire.Position{}
}

// first puts the block that was told in part before the others.
func (t told) first(blocks []*datadir.Block) {
	i := slices.IndexFunc(blocks, func(b *datadir.Block) bool { return b.Meta.ULID == t.where.ULID })
	if i > 0 {
		b := blocks[i]
		copy(blocks[1:], blocks[:i])
		blocks[0] = b
	}
}
