package wire

// Version of the language that agent and client speak. Both sides refuse
// another one by name.
const Version = 1

// Request is what a client asks of a data dir. It is sent as JSON.
type Request struct {
	Version   int       `json:"version"`
	Selection Selection `json:"selection"`
	Head      HeadMode  `json:"head"`

	// WholeBlocks takes every block that overlaps the selection's times byte
	// for byte, whatever its matchers.
	WholeBlocks bool `json:"wholeBlocks,omitempty"`

	// PlanOnly ends the story after the Plan (dry runs).
	PlanOnly bool `json:"planOnly,omitempty"`

	// Resume goes on with a story that was cut.
	Resume *Resume `json:"resume,omitempty"`
}

// Resume says what was told before. A block is not told again when it is there,
// or when it was compacted of nothing but blocks that are. The head is told from
// its beginning.
type Resume struct {
	Have []Block   `json:"have,omitempty"`
	At   *Position `json:"at,omitempty"` // nil: the story was cut between blocks
}

// Block names a block, and what it was compacted of.
type Block struct {
	ULID    string   `json:"ulid"`
	Sources []string `json:"sources,omitempty"`
}

// Position is a place in a block. Its block is told first, from there on; if it
// is not there any more, it is not in the plan.
type Position struct {
	ULID   string `json:"ulid"`
	File   string `json:"file,omitempty"`   // of a whole block: this file, relative to the data dir,
	Offset int64  `json:"offset,omitempty"` // from this byte on; the files before it are here
	Parts  uint64 `json:"parts,omitempty"`  // of a cut block: how many Series messages are here
}

// HeadMode says what is done with what is not in a block yet.
type HeadMode string

const (
	HeadBlock HeadMode = "block" // its records are told, filtered; they become blocks at home
	HeadRaw   HeadMode = "raw"   // its files are told as they are, cut at a record
	HeadNone  HeadMode = "none"  // it is left out
)

// Selection is what is wanted of a data dir: a time range and series matchers.
type Selection struct {
	MinTime int64 `json:"minTime"` // Unix milliseconds, included
	MaxTime int64 `json:"maxTime"` // Unix milliseconds, included

	// Matchers holds lists of matchers. A series is taken when every matcher of
	// at least one list matches it. No list at all takes every series.
	Matchers [][]Matcher `json:"matchers,omitempty"`
}

// Matcher is one label matcher. Type is "=", "!=", "=~" or "!~"; the regular
// expressions are Prometheus' own (RE2, anchored at both ends).
type Matcher struct {
	Type  string `json:"type"`
	Name  string `json:"name"`
	Value string `json:"value"`
}
