package wire

// Inventory is what a data dir holds.
type Inventory struct {
	Blocks []PlannedBlock `json:"blocks"` // Action and Reason are empty
	Head   HeadInventory  `json:"head"`
	Notes  []string       `json:"notes,omitempty"` // things a person should know

	// LeftOut are blocks that Prometheus cannot load, or that lack samples.
	LeftOut []LeftOut `json:"leftOut,omitempty"`

	// A running server does not tell all of it. Sizes in bytes that it does not tell
	// are -1.
	BlocksUnknown bool `json:"blocksUnknown,omitempty"`
	HeadUnknown   bool `json:"headUnknown,omitempty"`
}

// HeadInventory is what the head holds beyond the blocks, read from its files in
// bounded memory.
type HeadInventory struct {
	MinTime int64  `json:"minTime"` // first sample, Unix milliseconds; MinTime > MaxTime: no samples
	MaxTime int64  `json:"maxTime"` // last sample, Unix milliseconds, included
	Series  uint64 `json:"series"`  // with at least one sample
	Bytes   int64  `json:"bytes"`   // of WAL, out-of-order WAL and head chunks

	// Samples, in the logs and in m-mapped chunks, whose series no series record
	// names.
	UnknownSamples      uint64 `json:"unknownSamples,omitempty"`
	UnknownChunkSamples uint64 `json:"unknownChunkSamples,omitempty"`

	Damage     []HeadDamage `json:"damage,omitempty"` // the first MaxDamage
	MoreDamage uint64       `json:"moreDamage,omitempty"`
}
