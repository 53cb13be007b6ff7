package wire

import (
	"errors"
	"io"
)

// Message is one piece of the story that every source tells its consumer:
//
//	Plan
//	( File | BlockStart (Symbols | Series)* BlockEnd )*
//	[ HeadStart HeadChunks* Records* HeadEnd ]
//	End
//
// A source whose stream breaks may go on after a second Plan, and tell what had begun
// once more: a Forget says what does not count. A second Plan is also sent, between two
// blocks, if blocks of the first were compacted before their turn. It lists the blocks
// that were already sent and those still to be sent, and no deleted block.
//
// A story that does not finish with End is incomplete, however quietly it
// stopped. A message, and every slice and reader in it, belongs to its consumer
// only until the consumer asks for the next one. Times are Unix milliseconds.
type Message interface{ message() }

// Plan is the first message: what the data dir holds and what will be sent of it.
type Plan struct {
	Blocks []PlannedBlock `json:"blocks"`
	Head   PlannedHead    `json:"head"`

	// Bytes is an estimate of what will be read, for progress.
	Bytes int64 `json:"bytes"`

	// LeftOut lists the blocks of the selection that the stream lacks, completely or in
	// part, because they cannot be read.
	LeftOut []LeftOut `json:"leftOut,omitempty"`

	// Notes are things a person should know, each one sentence.
	Notes []string `json:"notes,omitempty"`
}

// LeftOut is a block that Prometheus cannot load, or that lacks samples.
type LeftOut struct {
	ULID    string `json:"ulid"`
	MinTime *int64 `json:"minTime,omitempty"` // included; nil: its meta.json cannot be read
	MaxTime *int64 `json:"maxTime,omitempty"` // excluded
	Reason  string `json:"reason"`
	Partly  bool   `json:"partly,omitempty"` // what can be read of it is taken
}

// Action is what happens to one block.
type Action string

const (
	Whole Action = "whole" // its files are sent byte for byte
	Cut   Action = "cut"   // its selected series are sent
	Skip  Action = "skip"  // nothing of it is in the selection
)

// PlannedBlock is one block of the data dir and its fate.
type PlannedBlock struct {
	ULID       string   `json:"ulid"`
	MinTime    int64    `json:"minTime"` // included
	MaxTime    int64    `json:"maxTime"` // excluded, as in meta.json
	Samples    uint64   `json:"samples"`
	Series     uint64   `json:"series"`
	Chunks     uint64   `json:"chunks"`
	Tombstones uint64   `json:"tombstones,omitempty"`
	Level      int      `json:"level"`
	Sources    []string `json:"sources"` // ULIDs of what it was compacted of, itself if of none
	Hints      []string `json:"hints,omitempty"`
	Bytes      int64    `json:"bytes"` // sum of its files

	Action Action `json:"action"`
	Reason string `json:"reason"` // why this action, for a person

	// Dropped is set if a server deletes the block because another one replaces it or
	// its samples are deleted. Such a block is skipped and does not count as sent: the
	// block that replaces it is sent.
	Dropped bool `json:"dropped,omitempty"`
}

// PlannedHead is what the data dir has outside of blocks.
type PlannedHead struct {
	Mode  HeadMode `json:"mode"`
	Bytes int64    `json:"bytes"` // of WAL, out-of-order WAL and head chunks

	// MinValidTime is the first time that in-order records count from: before it a
	// block has them. math.MinInt64 when there is no such block.
	MinValidTime int64 `json:"minValidTime"`

	// Damage is what is wrong with the head's files. With HeadRaw that is all of it.
	// With HeadBlock it is what shows without reading them; HeadEnd has all.
	Damage []HeadDamage `json:"damage,omitempty"`
}

// HeadDamage is a part of the head's files that cannot be read.
type HeadDamage struct {
	File   string `json:"file"`             // relative to the data directory
	Offset int64  `json:"offset,omitempty"` // bytes
	Bytes  int64  `json:"bytes,omitempty"`  // that are lost; 0: all of the file, or it is missing
	Reason string `json:"reason"`

	// Fatal damage keeps a server from starting. Other damage it repairs when it
	// starts: it drops what comes after it.
	Fatal bool `json:"fatal,omitempty"`

	// In a log, the samples between these times may be lost, both excluded. Zero
	// means not known: nothing was read before, or after.
	After  int64 `json:"after,omitempty"`
	Before int64 `json:"before,omitempty"`
}

// File is a file as it stands in the data dir. Body gives exactly the bytes from
// Offset to Size and must be read to its end, or the story cannot go on.
type File struct {
	Name   string // relative to the data dir, with slashes: "01ARZ…/chunks/000001", "wal/00000003"
	Size   int64
	Offset int64 // not 0 only where a Resume asked for it
	Body   io.Reader

	// Tentative is set if a Forget may take the file back, until something follows
	// that is not of the same block; files of a raw head until End. It is not sent. A
	// Body that returns ErrCut is followed by that Forget, or by the source's error.
	Tentative bool
}

// ErrCut is returned by the Body of a file of which no more bytes come.
var ErrCut = errors.New("the rest of the file does not come")

// BlockStart begins the selected series of one cut block.
type BlockStart struct {
	ULID    string `json:"ulid"`    // of the block that is cut
	MinTime int64  `json:"minTime"` // first time that may be kept, included
	MaxTime int64  `json:"maxTime"` // last time that may be kept, included

	// Selected are the times that may be kept when samples of the block may lie
	// outside of its own range: Prometheus serves those too. Then MinTime and MaxTime
	// are the range of the block that is built, if it has none of them.
	Selected *Interval `json:"selected,omitempty"`

	// Hints are the block's compaction hints. What is cut out of a block keeps
	// them: without "from-out-of-order" a server would take the block's end for the
	// beginning of its head.
	Hints []string `json:"hints,omitempty"`
}

// Symbols gives names to strings; Refs[i] means Strings[i] until BlockEnd. A ref is
// sent once, before the first series that uses it.
type Symbols struct {
	Refs    []uint32
	Strings []string
}

// Series is one series of a cut block, or a part of it. Series and labels come in
// the order of the block's index, which is that of the labels, and of their names;
// but Prometheus serves blocks with other orders too. So it is with chunks: they
// come in the order of their start, and may overlap or be in disorder all the same.
// All chunks that overlap the range are whole: who builds the block cuts those at
// the border, and drops what is Deleted.
type Series struct {
	Labels  []uint32   // refs of name, value, name, value, …
	Deleted []Interval // tombstones, both ends included
	Chunks  []Chunk
	More    bool // the next Series goes on with this one: same labels, more chunks
}

// Chunk is a chunk as it is stored.
type Chunk struct {
	MinTime, MaxTime int64 // of its first and last sample, both included, as the index says
	Encoding         uint8 // as in chunkenc.Encoding, or Unread
	Data             []byte
}

// Unread is the encoding of a chunk that cannot be read. Its data is the reason.
const Unread uint8 = 0

// Interval is a closed range of time.
type Interval struct {
	MinTime int64 `json:"minTime"`
	MaxTime int64 `json:"maxTime"`
}

// BlockEnd ends a cut block.
type BlockEnd struct {
	Series uint64 `json:"series"`
	Chunks uint64 `json:"chunks"`

	// Unread counts the series whose entry in the index cannot be read, so that not
	// even their labels are known; Reason is of the first.
	Unread uint64 `json:"unread,omitempty"`
	Reason string `json:"reason,omitempty"`
}

// HeadStart begins the head: first its m-mapped chunks, then its in-order records,
// then the out-of-order ones.
type HeadStart struct {
	MinTime int64 `json:"minTime"` // of the selection, included
	MaxTime int64 `json:"maxTime"` // of the selection, included
}

// HeadChunks are m-mapped chunks of the head, in the order in which the server
// wrote them: chunks of selected series that overlap the selection, whole. The
// records name their series. They have samples that the log has as well, and
// samples that it has not: a server that repaired its log serves both.
type HeadChunks struct{ Chunks []HeadChunk }

// HeadChunk is one m-mapped chunk.
type HeadChunk struct {
	Ref        uint64 // of its series
	OutOfOrder bool
	Chunk
}

// Log says which of the head's logs a record is from.
type Log uint8

const (
	WAL Log = 1 // in order
	WBL Log = 2 // out of order
)

// Records are records of the write-ahead log in Prometheus' own encoding,
// uncompressed: series, samples, histograms and tombstones, filtered to the
// selection's series and times.
type Records struct {
	Log     Log
	Records [][]byte
}

// HeadEnd ends the head. Its times are of all samples of the head, also of those
// outside the selection; without samples MinTime > MaxTime.
type HeadEnd struct {
	MinTime int64  `json:"minTime"`
	MaxTime int64  `json:"maxTime"`
	Series  uint64 `json:"series"`           // refs with at least one sample in the head
	Samples uint64 `json:"samples"`          // sent as records
	Chunks  uint64 `json:"chunks,omitempty"` // sent

	// Samples of the selected times, in records and in chunks, that were left out:
	// no series record names their series. They are counted where the selection has
	// matchers; otherwise they are sent.
	UnknownSamples      uint64 `json:"unknownSamples,omitempty"`
	UnknownChunkSamples uint64 `json:"unknownChunkSamples,omitempty"`

	// Records that were left out: of kinds that this version does not know (a server
	// that does not know them ignores them, too), and such as do not decode.
	UnknownRecords uint64 `json:"unknownRecords,omitempty"`
	BadRecords     uint64 `json:"badRecords,omitempty"`
	BadRecord      string `json:"badRecord,omitempty"` // the first one's error

	Damage     []HeadDamage `json:"damage,omitempty"` // the first MaxDamage
	MoreDamage uint64       `json:"moreDamage,omitempty"`
}

// MaxDamage is how many places of damage one message names.
const MaxDamage = 50

// Forget withdraws what was sent of a block, or of the head: it is sent
// again, or the block that replaced it is.
type Forget struct {
	ULID string `json:"ulid"` // empty: the head
}

// End is the last message. It counts what was sent.
type End struct {
	Files  uint64 `json:"files"`
	Bytes  uint64 `json:"bytes"` // of files
	Blocks uint64 `json:"blocks"`
	Series uint64 `json:"series"`
}

func (*Plan) message()       {}
func (*File) message()       {}
func (*BlockStart) message() {}
func (*Symbols) message()    {}
func (*Series) message()     {}
func (*BlockEnd) message()   {}
func (*HeadStart) message()  {}
func (*HeadChunks) message() {}
func (*Records) message()    {}
func (*HeadEnd) message()    {}
func (*Forget) message()     {}
func (*End) message()        {}
