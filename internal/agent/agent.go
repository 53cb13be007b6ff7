// Package agent carries out one request on a data dir: it opens what the
// request needs, and tells the story that package wire describes. It is what
// runs in the container of a Prometheus, and it runs in the client itself where
// the data dir is on the same machine.
//
// It reads and nothing else, and its memory does not grow with the data dir
// (see package slice for what it holds). What it tells is not trimmed to the
// millisecond: chunks at the border go out whole, and the client cuts them.
package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/promdump/promdump/internal/datadir"
	"github.com/promdump/promdump/internal/slice"
	"github.com/promdump/promdump/internal/wire"
)

// Options control how a data dir is read.
type Options struct {
	Logger *slog.Logger

	// Sketch marks a directory that is a copy without the large files of its blocks. It
	// supports plans and inventories only.
	Sketch bool

	// Handles limits how many block files are held open; 0 means the limit of the
	// process.
	Handles int
}

// Read tells what the request asks of the data dir at path. After an error the
// sequence ends.
func Read(ctx context.Context, path string, req wire.Request, o Options) iter.Seq2[wire.Message, error] {
	return func(yield func(wire.Message, error) bool) {
		r := &reading{path: path, req: req, o: o, yield: yield}
		if err := r.read(ctx); err != nil && !r.left {
			yield(nil, err)
		}
	}
}

// reading is one request under way.
type reading struct {
	path  string
	req   wire.Request
	sel   *slice.Selection
	o     Options
	yield func(wire.Message, error) bool
	left  bool        // the consumer has stopped
	sent  resumePoint // the blocks that were sent, by earlier streams and by this one
	plan  *wire.Plan
	end   wire.End
}

func (r *reading) tell(m wire.Message) bool {
	r.left = r.left || !r.yield(m, nil)
	return !r.left
}

func (r *reading) read(ctx context.Context) (err error) {
	if r.req.Version != wire.Version {
		return fmt.Errorf("the request has version %d, this agent speaks version %d", r.req.Version, wire.Version)
	}
	if r.sel, err = slice.Compile(r.req.Selection); err != nil {
		return err
	}
	head := datadir.NoHead
	switch r.req.Head {
	case wire.HeadNone:
	case wire.HeadBlock:
		head = datadir.ReadHead
	case wire.HeadRaw:
		head = datadir.RawHead
	default:
		return fmt.Errorf("the request has the unknown head mode %q", r.req.Head)
	}
	r.sent = before(r.req.Resume)
	d, err := r.open(ctx, head)
	if err != nil {
		return err
	}
	defer d.Close()
	if !r.tell(r.plan) || r.req.PlanOnly {
		return nil
	}
	if err := r.blocks(ctx, d); err != nil || r.left {
		return err
	}
	switch r.req.Head {
	case wire.HeadBlock:
		err = slice.Head(ctx, &d.Head, r.sel, r.tell)
	case wire.HeadRaw:
		for _, files := range [][]*datadir.File{d.Head.WAL, d.Head.WBL, d.Head.Chunks} {
			if err == nil {
				err = r.files(ctx, files, wire.Position{})
			}
		}
	}
	if err != nil || r.left {
		return err
	}
	r.tell(&r.end)
	return nil
}

// open opens the data dir and plans what still has to be sent.
func (r *reading) open(ctx context.Context, head datadir.HeadFiles) (*datadir.Dir, error) {
	d, err := datadir.Open(ctx, r.path, datadir.Options{
		Head: head, CheckOnly: r.req.PlanOnly, Sketch: r.o.Sketch, Handles: r.o.Handles, Logger: r.o.Logger,
		Wanted: func(m datadir.Meta) bool { return r.sel.Overlaps(m) && !r.sent.has(m) },
	})
	if err != nil {
		return nil, err
	}
	r.sent.first(d.Blocks)
	r.newPlan(d)
	return d, nil
}

// maxVanished is how many times in a row the next block may turn out to be deleted.
const maxVanished = 10

// blocks sends the blocks. If the process may open few files, some blocks are opened
// only when their turn comes. A block that is gone by then was compacted, and the block
// that replaced it is sent instead.
func (r *reading) blocks(ctx context.Context, d *datadir.Dir) error {
	for vanished := 0; ; {
		n := len(r.sent.blocks)
		err := r.blocksOf(ctx, d)
		if err == nil || r.left || !errors.Is(err, datadir.ErrChanged) {
			return err
		}
		if len(r.sent.blocks) > n {
			vanished = 0
		}
		if vanished++; vanished == maxVanished {
			return fmt.Errorf("%w (%d times in a row)", err, maxVanished)
		}
		r.o.Logger.Debug("a block has gone before its turn, again", "reason", err)
		again, err := r.open(ctx, datadir.NoHead)
		if err != nil {
			return err
		}
		defer again.Close()
		d = again
		if !r.tell(r.plan) {
			return nil
		}
	}
}

func (r *reading) blocksOf(ctx context.Context, d *datadir.Dir) error {
	defer func() {
		for _, b := range d.Blocks {
			_ = b.Close() // they were only read
		}
	}()
	action := map[string]wire.Action{}
	for _, b := range r.plan.Blocks {
		action[b.ULID] = b.Action
	}
	for _, b := range d.Blocks {
		ulid := b.Meta.ULID
		if action[ulid] == wire.Skip || r.sent.has(b.Meta) {
			continue
		}
		if err := b.Open(); err != nil {
			return err
		}
		at := r.sent.at(ulid)
		var err error
		switch {
		case action[ulid] == wire.Whole:
			err = r.files(ctx, b.Files, at)
		case r.req.WholeBlocks: // the segments that remain
			err = r.cut(ctx, b, slice.Everything(), at.Parts)
		default:
			err = r.cut(ctx, b, r.sel, at.Parts)
		}
		if err != nil || r.left {
			return err
		}
		r.end.Blocks++
		r.sent.add(wire.Block{ULID: ulid, Sources: b.Meta.Compaction.Sources})
		if err := b.Close(); err != nil {
			return fmt.Errorf("close block %s: %w", ulid, err)
		}
	}
	return nil
}

// files tells the files from a position on.
func (r *reading) files(ctx context.Context, files []*datadir.File, at wire.Position) error {
	from := slices.IndexFunc(files, func(f *datadir.File) bool { return f.Name == at.File })
	if at.File != "" && (from < 0 || files[from].Size < at.Offset) {
		return fmt.Errorf("go on with %s at byte %d: there is no such place any more", at.File, at.Offset)
	}
	for _, f := range files[max(from, 0):] {
		if err := ctx.Err(); err != nil {
			return err
		}
		body := f.Body()
		m := &wire.File{Name: f.Name, Size: f.Size, Body: body}
		if f.Name == at.File {
			m.Offset = at.Offset
			if _, err := body.Seek(at.Offset, io.SeekStart); err != nil {
				return err
			}
		}
		if !r.tell(m) {
			return nil
		}
		r.end.Files++
		r.end.Bytes += uint64(m.Size - m.Offset)
	}
	return nil
}

func (r *reading) cut(ctx context.Context, b *datadir.Block, sel *slice.Selection, skip uint64) error {
	return slice.Block(ctx, b, sel, skip, func(m wire.Message) bool {
		if end, ok := m.(*wire.BlockEnd); ok {
			r.end.Series += end.Series
		}
		return r.tell(m)
	})
}

// newPlan makes the plan of the data dir. It keeps the blocks of an earlier plan that
// were sent.
func (r *reading) newPlan(d *datadir.Dir) {
	p := &wire.Plan{Head: wire.PlannedHead{Mode: r.req.Head, Bytes: d.Head.Bytes(), MinValidTime: d.Head.MinValidTime}}
	p.Bytes = p.Head.Bytes
	for _, d := range d.Head.Damage() {
		p.Head.Damage = append(p.Head.Damage, slice.HeadDamage(d))
	}
	kept := map[string]bool{}
	if r.plan != nil {
		p.Head = r.plan.Head
		p.Bytes = p.Head.Bytes
		for _, b := range r.plan.Blocks {
			if b.Action != wire.Skip && r.sent.blocks[b.ULID] {
				p.Blocks = append(p.Blocks, b)
				p.Bytes += b.Bytes
				kept[b.ULID] = true
			}
		}
	}
	for _, b := range d.Blocks {
		if kept[b.Meta.ULID] {
			continue
		}
		pb := describe(b)
		pb.Action, pb.Reason = r.decide(b)
		pb.Dropped = b.Dropped != ""
		r.o.Logger.Debug("block", "ulid", pb.ULID, "action", pb.Action, "reason", pb.Reason,
			"minTime", time.UnixMilli(pb.MinTime).UTC(), "maxTime", time.UnixMilli(pb.MaxTime).UTC(), "bytes", pb.Bytes)
		p.Blocks = append(p.Blocks, pb)
		if pb.Action != wire.Skip {
			p.Bytes += pb.Bytes
		}
	}
	r.o.Logger.Debug("head", "mode", p.Head.Mode, "bytes", p.Head.Bytes, "minValidTime", p.Head.MinValidTime)
	p.LeftOut = leftOut(d, r.sel.Overlaps)
	if r.plan != nil {
		p.LeftOut = wire.MergeLeftOut(r.plan.LeftOut, append(p.LeftOut, r.deleted(d)...))
	}
	r.plan = p
}

// deleted lists the blocks of the plan that were gone before they were sent and that no
// other block replaces: retention has deleted them.
func (r *reading) deleted(d *datadir.Dir) (all []wire.LeftOut) {
	there, sources := map[string]bool{}, maps.Clone(r.sent.sources)
	for _, b := range d.LeftOut {
		there[b.ULID] = true
	}
	for _, b := range d.Blocks {
		there[b.Meta.ULID] = true
		for _, s := range b.Meta.Compaction.Sources {
			sources[s] = true
		}
	}
	for _, b := range r.plan.Blocks {
		if b.Action == wire.Skip || there[b.ULID] || r.sent.blocks[b.ULID] {
			continue
		}
		replaced := len(b.Sources) > 0 && !slices.ContainsFunc(b.Sources, func(s string) bool { return !sources[s] })
		if !replaced {
			all = append(all, wire.LeftOut{
				ULID: b.ULID, MinTime: &b.MinTime, MaxTime: &b.MaxTime, Reason: "it was deleted before it was read",
			})
		}
	}
	return all
}

// decide returns what happens to a block, and the reason.
func (r *reading) decide(b *datadir.Block) (wire.Action, string) {
	action, reason := r.sel.Decide(b.Meta, r.req.WholeBlocks)
	switch {
	case r.sent.has(b.Meta):
		return wire.Skip, "sent before"
	case action != wire.Skip && b.Dropped != "":
		return wire.Skip, b.Dropped
	case action == wire.Whole && len(b.Lost) > 0:
		return wire.Cut, "lacks chunk segments"
	}
	return action, reason
}

// leftOut lists the blocks of the data dir that cannot be read completely. A block
// whose range is unknown is always listed: it may overlap the selection.
func leftOut(d *datadir.Dir, wanted func(datadir.Meta) bool) []wire.LeftOut {
	var all []wire.LeftOut
	for _, b := range d.LeftOut {
		l := wire.LeftOut{ULID: b.ULID, Reason: b.Err.Error()}
		if b.Meta != nil {
			if !wanted(*b.Meta) {
				continue
			}
			l.MinTime, l.MaxTime = &b.Meta.MinTime, &b.Meta.MaxTime
		}
		all = append(all, l)
	}
	for _, b := range d.Blocks {
		if len(b.Lost) > 0 && b.Dropped == "" && wanted(b.Meta) {
			all = append(all, wire.LeftOut{
				ULID: b.Meta.ULID, MinTime: &b.Meta.MinTime, MaxTime: &b.Meta.MaxTime, Partly: true,
				Reason: fmt.Sprintf("it lacks %d of its %d chunk segments (%s)", len(b.Lost), b.Segments, segments(b.Lost)),
			})
		}
	}
	return all
}

// segments lists the numbers of the first few chunk segments.
func segments(numbers []int) string {
	const few = 5
	var names []string
	for _, n := range numbers[:min(few, len(numbers))] {
		names = append(names, fmt.Sprintf("%06d", n))
	}
	if len(numbers) > few {
		names = append(names, "…")
	}
	return strings.Join(names, ", ")
}

func describe(b *datadir.Block) wire.PlannedBlock {
	m := b.Meta
	return wire.PlannedBlock{
		ULID: m.ULID, MinTime: m.MinTime, MaxTime: m.MaxTime,
		Samples: m.Stats.Samples, Series: m.Stats.Series, Chunks: m.Stats.Chunks, Tombstones: m.Stats.Tombstones,
		Level: m.Compaction.Level, Sources: m.Compaction.Sources, Hints: m.Compaction.Hints,
		Bytes: b.Bytes,
	}
}

// Inventory tells what the data dir at path holds.
func Inventory(ctx context.Context, path string, o Options) (*wire.Inventory, error) {
	d, err := datadir.Open(ctx, path, datadir.Options{
		Head: datadir.ReadHead, CheckOnly: true, Sketch: o.Sketch, Logger: o.Logger,
	})
	if err != nil {
		return nil, err
	}
	defer d.Close()
	inv := &wire.Inventory{LeftOut: leftOut(d, func(datadir.Meta) bool { return true })}
	for _, b := range d.Blocks {
		if b.Dropped == "" {
			inv.Blocks = append(inv.Blocks, describe(b))
		} else {
			inv.Notes = append(inv.Notes, fmt.Sprintf("block %s is not counted: %s", b.Meta.ULID, b.Dropped))
		}
	}
	if inv.Head, err = slice.HeadInventory(ctx, &d.Head); err != nil {
		return nil, err
	}
	return inv, nil
}
