package restore

import (
	"encoding/json"
	"slices"

	"github.com/promdump/promdump/internal/promapi"
)

// origin is what says which blocks have the samples of another one: a server merges
// blocks into a new one with a name of its own, and does so again with that one.
type origin struct {
	ulid    string
	parents []string // what it was made of at the last compaction
	sources []string // what it was made of first, over all compactions
	samples uint64   // 0: unknown

	deletions bool // some of its samples are deleted and gone after a compaction
	part      bool // it does not have all samples of its sources
}

// holders returns the names of blocks that have all samples of b; none: it cannot be
// told from names. A block that was cut or built by us is its own only source, named
// by its content, so it never stands for the block that it was cut from.
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
	// Fewer samples: some were deleted there, or it is a part without saying so.
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
		return true // of which nothing is known
	}
	_, shard := thanos.Labels["__compactor_shard_id__"]
	return shard || thanos.Downsample.Resolution != 0 || len(thanos.Extensions) > 0
}

// originOf is that of a block as a server lists it.
func originOf(b promapi.Block) origin {
	o := origin{
		ulid: b.ULID, sources: b.Compaction.Sources, samples: b.Stats.Samples, deletions: b.Stats.Tombstones > 0,
	}
	for _, p := range b.Compaction.Parents {
		o.parents = append(o.parents, p.ULID)
	}
	return o
}
