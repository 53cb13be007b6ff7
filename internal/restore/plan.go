package restore

import (
	"cmp"
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/common/model"

	"github.com/promdump/promdump/internal/block"
	"github.com/promdump/promdump/internal/datadir"
	"github.com/promdump/promdump/internal/term"
	"github.com/promdump/promdump/internal/wire"
)

// Policy is what a restore may do, and what is known of the server on the target.
type Policy struct {
	Replace bool // put the dump in the place of what the target holds

	// Restarted is set if a server is at work in the target, and is restarted after a
	// replacement. Otherwise a replacement needs a stopped server.
	Restarted bool

	IgnoreRetention bool // publish what retention deletes at the next reload
	IgnoreSpace     bool // use the last of the disk
	AllowUpload     bool // a Thanos sidecar may upload the blocks

	Retention Retention
	HeadTime  time.Time // of the newest sample in the server's head; zero: as the target says
	Version   string    // of the server; empty: not known
}

// Retention is what a server deletes.
type Retention struct {
	Time time.Duration // older blocks are deleted; 0: none is by its age
	Size string        // the limit for all blocks as the server says it; empty: none or not known
	From string        // where these are from, for a person

	// Assumed is set if no server and no person has given them.
	Assumed bool
}

const defaultRetention = 15 * 24 * time.Hour

// Dump is what was unpacked and verified.
type Dump struct {
	Blocks []PlannedBlock // their Action and Reason are empty
	Head   *RawHead       // nil: there is none, or it has become blocks

	// InPlace is set if it lies on the target's filesystem, and need not be copied.
	InPlace bool
}

// RawHead is a head as the files of a server.
type RawHead struct {
	Bytes  int64
	Damage []datadir.Damage
}

// PlannedBlock is a block of the dump and its fate.
type PlannedBlock struct {
	ULID     string
	MinTime  time.Time // included
	MaxTime  time.Time // excluded, as in meta.json
	Series   uint64
	Samples  uint64
	Bytes    int64
	Level    int
	FromHead bool // made of the dump's raw head
	Action   Action
	Reason   string // for a person
	Dir      string // where its files are on this machine

	damage int // number of places that a server cannot read
	origin origin
	probes []block.Sample // samples to query from a server
}

// Action is what happens to a block of the dump.
type Action string

const (
	Add  Action = "add"
	Skip Action = "skip" // the target has it
)

// Head is what happens to the dump's raw head.
type Head string

const (
	NoHead     Head = ""       // the dump has none
	HeadRaw    Head = "raw"    // its files are put in place as they are
	HeadBlocks Head = "blocks" // it became blocks
)

// Decision is what a restore will do, and what speaks against it.
type Decision struct {
	Target   *wire.Target
	Blocks   []PlannedBlock // in the order of their times
	Head     Head
	Bytes    int64     // of all that will be published
	Replaced []string  // names in the target that are taken away
	Refusals []Refusal // nothing is done while there is one
	Notes    []string  // what a person should know, a sentence each
}

// Refusal is a reason not to restore.
type Refusal struct {
	Kind   RefusalKind
	Reason string
}

// RefusalKind is what a [Refusal] is about.
type RefusalKind string

const (
	NotDataDir   RefusalKind = "not a data dir"
	ServerRuns   RefusalKind = "server runs"   // it must be stopped
	Busy         RefusalKind = "busy"          // another restore is at work
	NotWritable  RefusalKind = "not writable"  // by the user that this or the agent runs as
	OldServer    RefusalKind = "old server"    // a version that cannot take such blocks
	RawHeadKept  RefusalKind = "raw head"      // it must become blocks first
	BrokenBlock  RefusalKind = "broken block"  // the target has such a block, without a meta.json
	OutOfTime    RefusalKind = "retention"     // what retention deletes at once
	OutOfDefault RefusalKind = "default time"  // the same, with a retention that is assumed
	Uploads      RefusalKind = "uploads"       // a Thanos sidecar uploads the blocks
	LittleSpace  RefusalKind = "little space"  // less than the blocks and a server need
	FullDisk     RefusalKind = "disk is full"  // nothing more can be written
	MayNot       RefusalKind = "not permitted" // for a reason of the command's own
)

// RefusalKinds returns all kinds.
func RefusalKinds() []RefusalKind {
	return []RefusalKind{
		NotDataDir, ServerRuns, Busy, NotWritable, OldServer, RawHeadKept, BrokenBlock, OutOfTime, OutOfDefault,
		Uploads, LittleSpace, FullDisk, MayNot,
	}
}

// RefusedError says that nothing was done, and why.
type RefusedError struct{ Refusals []Refusal }

func (e *RefusedError) Error() string {
	reasons := make([]string, len(e.Refusals))
	for i, r := range e.Refusals {
		reasons[i] = r.Reason
	}
	return "restore refused: " + strings.Join(reasons, "; ")
}

func refused(kind RefusalKind, format string, args ...any) error {
	return &RefusedError{[]Refusal{{kind, fmt.Sprintf(format, args...)}}}
}

// targetBlock is a block of the target.
type targetBlock struct {
	origin
	maxTime time.Time // excluded
	broken  bool      // without a readable meta.json; the fields above are empty but for the name
}

// planning is one call of Plan.
type planning struct {
	*Decision
	p   Policy
	own []targetBlock // blocks of the target that stay
}

// Plan decides what a restore does. It is a function of its arguments alone, and touches
// no file: t is the inventory of the target.
func Plan(t *wire.Target, d Dump, p Policy) *Decision {
	pl := &planning{Decision: &Decision{Target: t, Blocks: slices.Clone(d.Blocks)}, p: p}
	if !p.Replace {
		pl.own = targetBlocks(t)
	}
	if r := checkTarget(t, p); r != nil {
		pl.refuse(r.Kind, "%s", r.Reason)
	}
	pl.planHead(d)
	pl.planBlocks()
	pl.checkRetention()
	pl.checkVersion()
	pl.checkUpload()
	pl.checkOwner()
	pl.checkSpace(d)
	return pl.Decision
}

func (pl *planning) refuse(kind RefusalKind, format string, args ...any) {
	pl.Refusals = append(pl.Refusals, Refusal{kind, fmt.Sprintf(format, args...)})
}

func (pl *planning) note(format string, args ...any) {
	pl.Notes = append(pl.Notes, fmt.Sprintf(format, args...))
}

// checkTarget finds what can be known before a dump is read; nil: nothing.
func checkTarget(t *wire.Target, p Policy) *Refusal {
	switch {
	case len(t.Foreign) > 0:
		return &Refusal{NotDataDir, fmt.Sprintf(
			"%s is not a data dir: it holds %s and nothing of Prometheus", t.Dir, some(t.Foreign))}
	case p.Replace && t.Live && !p.Restarted:
		return &Refusal{ServerRuns, fmt.Sprintf("a running server holds the lock of %s", t.Dir)}
	}
	return nil
}

func targetBlocks(t *wire.Target) (all []targetBlock) {
	for _, b := range t.Blocks {
		m := new(meta)
		if err := json.Unmarshal(b.Meta, m); err != nil || m.Version != 1 {
			all = append(all, targetBlock{origin: origin{ulid: b.ULID}, broken: true})
			continue
		}
		all = append(all, targetBlock{origin: m.origin(), maxTime: ms(m.MaxTime)})
	}
	return all
}

// keepsRaw returns why a raw head cannot be put in place as it is; empty: it can. Two WALs
// cannot be joined, and a server must be able to start on it.
func (h RawHead) keepsRaw(t *wire.Target, p Policy) string {
	if !p.Replace && (!t.Empty() || t.Live) {
		return "the data dir is not empty"
	}
	if i := slices.IndexFunc(h.Damage, func(d datadir.Damage) bool { return d.Fatal }); i >= 0 {
		return fmt.Sprintf("no server starts on it (%s)", h.Damage[i])
	}
	return ""
}

func (pl *planning) planHead(d Dump) {
	if d.Head == nil {
		if slices.ContainsFunc(d.Blocks, func(b PlannedBlock) bool { return b.FromHead }) {
			pl.Head = HeadBlocks
		}
		return
	}
	if why := d.Head.keepsRaw(pl.Target, pl.p); why != "" {
		pl.refuse(RawHeadKept, "the dump's raw head must become blocks, since %s", why)
		return
	}
	pl.Head = HeadRaw
	pl.Bytes += d.Head.Bytes
	for _, d := range d.Head.Damage {
		pl.note("The dump's raw head is damaged (%s): the server repairs it when it starts, and drops what comes after.", d)
	}
}

// planBlocks decides which blocks are added.
func (pl *planning) planBlocks() {
	slices.SortFunc(pl.Blocks, func(a, b PlannedBlock) int {
		return cmp.Or(a.MinTime.Compare(b.MinTime), cmp.Compare(a.ULID, b.ULID))
	})
	var origins []origin
	broken := map[string]bool{}
	for _, b := range pl.own {
		if broken[b.ulid] = b.broken; b.broken {
			pl.note("%s in the data dir has no meta.json that can be read; it keeps the server from compacting.", b.ulid)
			continue
		}
		origins = append(origins, b.origin)
	}
	for i := range pl.Blocks {
		b := &pl.Blocks[i]
		b.Action, b.Reason = Add, "new"
		_, there := broken[b.ULID]
		in := holders(b.origin, origins)
		switch {
		case broken[b.ULID]:
			pl.refuse(BrokenBlock, "block %s is in the data dir, but has no meta.json that can be read: "+
				"move %s away, it keeps the server from compacting",
				b.ULID, path.Join(pl.Target.Dir, b.ULID))
		case there:
			b.Action, b.Reason = Skip, "there already"
		case len(in) > 0:
			// The server has merged it, and deletes it again if that was just now.
			b.Action, b.Reason = Skip, "there already, compacted into "+some(in)
		}
		if b.Action == Add {
			pl.Bytes += b.Bytes
		}
	}
	if pl.p.Replace {
		pl.Replaced = pl.Target.Own
	}
}

func (pl *planning) count(a Action) (n int) {
	for _, b := range pl.Blocks {
		if b.Action == a {
			n++
		}
	}
	return n
}

// checkRetention finds what the server deletes as soon as it sees the blocks. It counts
// from the end of the newest block, not from the clock, so a restored block can also be
// what makes the target's own blocks old.
func (pl *planning) checkRetention() {
	r := pl.p.Retention
	if r.Size != "" {
		pl.note("The server keeps at most %s of blocks and head: "+
			"beyond it the oldest blocks are deleted, restored ones too.", r.Size)
	}
	if r.Time <= 0 {
		return
	}
	var ownNewest time.Time
	for _, b := range pl.own {
		if b.maxTime.After(ownNewest) {
			ownNewest = b.maxTime
		}
	}
	newest := ownNewest
	for _, b := range pl.Blocks {
		if newest.IsZero() || b.MaxTime.After(newest) {
			newest = b.MaxTime
		}
	}
	headTime := pl.p.HeadTime
	if t := pl.Target.HeadTime; headTime.IsZero() && t > 0 {
		headTime = ms(t)
	}
	old := func(end, from time.Time) bool { return from.Sub(end) >= r.Time }
	lost, soon, pushed := 0, 0, 0
	for _, b := range pl.Blocks {
		switch {
		case b.Action != Add:
		case old(b.MaxTime, newest):
			lost++
		case headTime.After(newest) && !pl.p.Replace && old(b.MaxTime, headTime):
			soon++
		}
	}
	for _, b := range pl.own {
		if !b.broken && old(b.maxTime, newest) && !old(b.maxTime, ownNewest) {
			pushed++
		}
	}
	kind := OutOfTime
	if r.Assumed {
		kind = OutOfDefault
	}
	refuse := func(what string) {
		if pl.p.IgnoreRetention {
			pl.note("The server will at once delete %s.", what)
			return
		}
		pl.refuse(kind, "a retention of %s (%s), counted from the newest block's end at %s, would at once delete %s",
			model.Duration(r.Time), r.From, term.Time(newest.UnixMilli()), what)
	}
	if lost > 0 {
		refuse(fmt.Sprintf("%d of the %d restored blocks", lost, pl.count(Add)))
	}
	if pushed > 0 {
		refuse(fmt.Sprintf("%d of the target's own blocks", pushed))
	}
	if soon > 0 {
		pl.note("%d of the restored blocks will be deleted when the server writes its next block from its head: "+
			"a retention of %s counts from there.",
			soon, model.Duration(r.Time))
	}
}

// checkVersion: before 2.39 a server knows neither blocks that overlap nor the hint that
// keeps its WAL.
func (pl *planning) checkVersion() {
	var major, minor int
	n, _ := fmt.Sscanf(strings.TrimPrefix(pl.p.Version, "v"), "%d.%d", &major, &minor)
	if n < 2 || pl.p.Replace || pl.count(Add) == 0 {
		return
	}
	if major < 2 || major == 2 && minor < 39 {
		pl.refuse(OldServer, "the server is Prometheus %s: "+
			"before 2.39 a server does not load blocks that overlap with its own, and forgets its WAL below their end", pl.p.Version)
	}
}

// checkUpload knows that a Thanos sidecar uploads every block of level 1 that it
// finds, and can be configured to upload the others too.
func (pl *planning) checkUpload() {
	if !pl.Target.Thanos {
		return
	}
	n := 0
	for _, b := range pl.Blocks {
		if b.Action == Add && b.Level <= 1 {
			n++
		}
	}
	switch {
	case pl.count(Add) == 0:
	case pl.p.AllowUpload:
		pl.note("A Thanos sidecar will upload %d blocks to its bucket.", n)
	case n > 0:
		pl.refuse(Uploads, "a Thanos sidecar ships this data dir and would upload %d of the restored blocks to its bucket", n)
	default:
		pl.note("A Thanos sidecar ships this data dir; " +
			"it leaves these blocks alone unless it is configured to upload compacted ones.")
	}
}

// checkOwner: a server can delete and compact its own blocks only.
func (pl *planning) checkOwner() {
	t := pl.Target
	switch {
	case !t.Writable:
		pl.refuse(NotWritable, "%s belongs to uid %d, and commands run as uid %d, which may not write there",
			t.Dir, t.UID, t.AgentUID)
	case !pl.p.Restarted && t.AgentUID > 0 && t.UID >= 0 && t.UID != t.AgentUID:
		pl.note("The data dir belongs to uid %d and the blocks will belong to uid %d: "+
			"the server may serve them but not delete or compact them.", t.UID, t.AgentUID)
	}
}

// reserve is what a restore leaves free for the server's own WAL.
func reserve(size int64) int64 { return min(256<<20, size/20) }

// checkSpace counts what is still to be written.
func (pl *planning) checkSpace(d Dump) {
	need := pl.Bytes
	if d.InPlace {
		need = 0
	}
	t := pl.Target
	if r := noRoom(t.Dir, t.Free, t.Size, need); r != nil && !pl.p.IgnoreSpace {
		pl.Refusals = append(pl.Refusals, *r)
	}
}

func noRoom(dir string, free, size, need int64) *Refusal {
	if free < 0 || free >= need+reserve(size) {
		return nil
	}
	reason := fmt.Sprintf("%s has %s free, which a server needs for itself", dir, term.Bytes(free))
	if need > 0 {
		reason = fmt.Sprintf("%s has %s free; the blocks need %s and a server %s for itself",
			dir, term.Bytes(free), term.Bytes(need), term.Bytes(reserve(size)))
	}
	return &Refusal{LittleSpace, reason}
}

func ms(t int64) time.Time { return time.UnixMilli(t).UTC() }

func some(names []string) string {
	if len(names) > 3 {
		return strings.Join(names[:3], ", ") + ", …"
	}
	return strings.Join(names, ", ")
}
