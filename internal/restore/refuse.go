package restore

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/common/model"

	"github.com/promdump/promdump/internal/datadir"
	"github.com/promdump/promdump/internal/term"
)

// Retention is what a server deletes.
type Retention struct {
	Time time.Duration // older blocks are deleted; 0: none is by its age
	Size string        // the limit for all blocks as the server says it; empty: none or not known
	From string        // who says so
}

const defaultRetention = 15 * 24 * time.Hour

func retentionOf(spec Spec) Retention {
	switch {
	case spec.Retention < 0:
		return Retention{From: "given"}
	case spec.Retention > 0:
		return Retention{Time: spec.Retention, From: "given"}
	}
	return Retention{Time: defaultRetention, From: "Prometheus' default"}
}

// weigh finds what speaks against the plan.
func (p *Plan) weigh() error {
	if p.spec.Replace && p.Target.Live {
		p.Refusals = append(p.Refusals, Refusal{
			Reason: fmt.Sprintf("a running server holds the lock of %s", p.Target.Dir),
			Hint:   "stop the server first",
		})
	}
	p.weighRetention()
	p.weighUpload()
	if os.Geteuid() != 0 && p.Target.UID >= 0 && p.Target.UID != os.Geteuid() {
		p.Notes = append(p.Notes, fmt.Sprintf("The data dir belongs to uid %d and the blocks will belong to uid %d: the server may serve them but not delete or compact them.", p.Target.UID, os.Geteuid()))
	}
	left, err := filepath.Glob(filepath.Join(p.Target.Dir, datadir.AsidePrefix+"*"))
	if err != nil {
		return err
	}
	for _, name := range left {
		p.Notes = append(p.Notes, fmt.Sprintf("A restore --replace was killed half-way: the data dir's old contents are in %s; move them back or remove them.", name))
	}
	return p.weighSpace()
}

// weighRetention finds what the server deletes as soon as it sees the blocks. It
// counts from the end of the newest block, not from the clock, so a restored
// block can also be what makes the target's own blocks old.
func (p *Plan) weighRetention() {
	r := p.Target.Retention
	if r.Size != "" {
		p.Notes = append(p.Notes, fmt.Sprintf("The server keeps at most %s of blocks and head: beyond it the oldest blocks are deleted, restored ones too.", r.Size))
	}
	if r.Time <= 0 {
		return
	}
	var ownNewest, newest time.Time
	var own []TargetBlock
	if !p.spec.Replace {
		own = p.Target.Blocks
	}
	for _, b := range own {
		if !b.Broken && (ownNewest.IsZero() || b.MaxTime.After(ownNewest)) {
			ownNewest = b.MaxTime
		}
	}
	newest = ownNewest
	for _, b := range p.Blocks {
		if newest.IsZero() || b.MaxTime.After(newest) {
			newest = b.MaxTime
		}
	}
	old := func(end, from time.Time) bool { return from.Sub(end) >= r.Time }

	lost, soon, pushed := 0, 0, 0
	for _, b := range p.Blocks {
		switch {
		case b.Action != Add:
		case old(b.MaxTime, newest):
			lost++
		case p.Target.HeadTime.After(newest) && !p.spec.Replace && old(b.MaxTime, p.Target.HeadTime):
			soon++
		}
	}
	for _, b := range own {
		if !b.Broken && old(b.MaxTime, newest) && !old(b.MaxTime, ownNewest) {
			pushed++
		}
	}
	hint := "tell the retention with --retention, or --wait URL to ask the server"
	if r.From != retentionOf(Spec{}).From {
		hint = "raise the server's retention first (storage.tsdb.retention.time)"
	}
	refuse := func(what string) {
		if p.spec.IgnoreRetention {
			p.Notes = append(p.Notes, "The server will at once delete "+what+".")
			return
		}
		p.Refusals = append(p.Refusals, Refusal{
			Reason: fmt.Sprintf("a retention of %s (%s), counted from the newest block's end at %s, would at once delete %s",
				model.Duration(r.Time), r.From, term.Time(newest.UnixMilli()), what),
			Flag: "--ignore-retention",
			Hint: hint,
		})
	}
	if lost > 0 {
		refuse(fmt.Sprintf("%d of the %d restored blocks", lost, p.count(Add)))
	}
	if pushed > 0 {
		refuse(fmt.Sprintf("%d of the target's own blocks", pushed))
	}
	if soon > 0 {
		p.Notes = append(p.Notes, fmt.Sprintf("%d of the restored blocks will be deleted when the server writes its next block from its head: a retention of %s counts from there.", soon, model.Duration(r.Time)))
	}
}

func (p *Plan) count(a Action) int {
	n := 0
	for _, b := range p.Blocks {
		if b.Action == a {
			n++
		}
	}
	return n
}

// weighUpload knows that a Thanos sidecar uploads every block of level 1 that it
// finds, and can be told to upload the others too.
func (p *Plan) weighUpload() {
	if !p.Target.Thanos {
		return
	}
	n := 0
	for _, b := range p.Blocks {
		if b.Action == Add && b.Level <= 1 {
			n++
		}
	}
	switch {
	case p.count(Add) == 0:
	case p.spec.AllowUpload:
		p.Notes = append(p.Notes, fmt.Sprintf("A Thanos sidecar will upload %d blocks to its bucket.", n))
	case n > 0:
		p.Refusals = append(p.Refusals, Refusal{
			Reason: fmt.Sprintf("a Thanos sidecar ships this data dir (%s) and would upload %d of the restored blocks to its bucket", thanosName, n),
			Flag:   "--allow-upload",
			Hint:   "restore into a data dir without a sidecar",
		})
	default:
		p.Notes = append(p.Notes, "A Thanos sidecar ships this data dir; it leaves these blocks alone unless it was told to upload compacted ones.")
	}
}

// weighSpace counts what is still to be written: nothing where staging is on the
// data dir's filesystem, for a rename needs no room.
func (p *Plan) weighSpace() error {
	if p.spec.IgnoreSpace {
		return nil
	}
	dir := p.Target.Dir
	if !p.Target.Exists && p.staging.madeDir == "" {
		dir = filepath.Dir(dir)
	}
	free, size, err := freeSpace(dir)
	if err != nil {
		return fmt.Errorf("free space of %s: %w", dir, err)
	}
	need := int64(0)
	if same, err := sameFilesystem(dir, p.staging.root); err != nil {
		return err
	} else if !same {
		need = p.Bytes()
	}
	if err, ok := errors.AsType[*RefusedError](noRoom(dir, free, size, need)); ok {
		p.Refusals = append(p.Refusals, err.Refusals...)
	}
	return nil
}
