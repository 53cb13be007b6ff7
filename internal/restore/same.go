package restore

import (
	"encoding/json"
	"slices"

	"github.com/promdump/promdump/internal/promapi"
)

// origin identifies the blocks whose samples a block has: a server merges blocks into a
// block with a new name, and later merges that block again.
type origin struct {
	ulid    string
	parents []string // the blocks of the last compaction
	sources []string // the original blocks, over all compactions
	samples uint64   // 0: unknown

	deletions bool // some of its samples are deleted and gone after a compaction
	part      bool // it lacks samples of its sources
}

// holders returns the names of blocks that have all samples of b, or none if names do
// not prove that. A block that promdump cut or built is its own only source and is
// named by its content, so it is never taken for the block that it was cut from.
func holders(b origin, all []origin) (names []string) {
	for _, o := range all {
		if o.ulid == b.ulid || slices.Contains(o.parents, b.ulid) {
			return []string{o.ulid}
		}
	}
	if b.part || len(b.sources) == 0 {
		return nil
	}
	left := map[string]bool{}
	for _, s := range b.sources {
		left[s] = true
	}
	samples, counted := uint64(0), true
	for _, o := range all {
		if o.part || !slices.ContainsFunc(o.sources, func(s string) bool { return slices.Contains(b.sources, s) }) {
			continue
		}
		for _, s := range o.sources {
			delete(left, s)
		}
		names = append(names, o.ulid)
		samples, counted = samples+o.samples, counted && o.samples > 0
	}
	// Fewer samples: some were deleted there, or it is a part that is not marked as
	// one.
	if len(left) > 0 || counted && samples < b.samples && !b.deletions {
		return nil
	}
	return names
}

func (m *meta) origin() origin {
	o := origin{
		ulid: m.ULID, sources: m.Compaction.Sources, samples: m.Stats.Samples,
		deletions: m.Stats.Tombstones > 0, part: isPart(m.Thanos),
	}
	for _, p := range m.Compaction.Parents {
		o.parents = append(o.parents, p.ULID)
	}
	return o
}

// isPart reads the section that Thanos, Cortex and Mimir add to a meta.json. Their
// compactors make several blocks of the same sources: one for each share of the
// series, and downsampled ones.
func isPart(section json.RawMessage) bool {
	if len(section) == 0 || string(section) == "null" {
		return false
	}
	var thanos struct {
		Labels     map[string]string `json:"labels"`
		Downsample struct {
			Resolution int64 `json:"resolution"`
		} `json:"downsample"`
		Extensions map[string]any `json:"extensions"`
	}
	if err := json.Unmarshal(section, &thanos); err != nil {
		return true // unreadable: assume a part
	}
	_, shard := thanos.Labels["__compactor_shard_id__"]
	return shard || thanos.Downsample.Resolution != 0 || len(thanos.Extensions) > 0
}

// originOf returns the origin of a block as a server lists it.
func originOf(b promapi.Block) origin {
	o := origin{
		ulid: b.ULID, sources: b.Compaction.Sources, samples: b.Stats.Samples, deletions: b.Stats.Tombstones > 0,
	}
	for _, p := range b.Compaction.Parents {
		o.parents = append(o.parents, p.ULID)
	}
	return o
}
