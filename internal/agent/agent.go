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
	"fmt"
	"io"
	"iter"
	"log/slog"
	"slices"
	"time"

	"github.com/promdump/promdump/internal/datadir"
	"github.com/promdump/promdump/internal/slice"
	"github.com/promdump/promdump/internal/wire"
)

// Read tells what the request asks of the data dir at path. After an error the
// sequence ends.
func Read(ctx context.Context, path string, req wire.Request, log *slog.Logger) iter.Seq2[wire.Message, error] {
	return func(yield func(wire.Message, error) bool) {
		r := &reading{yield: yield}
		if err := r.read(ctx, path, req, log); err != nil && !r.left {
			yield(nil, err)
		}
	}
}

// reading is one request under way.
type reading struct {
	yield func(wire.Message, error) bool
	left  bool // the listener has had enough
	end   wire.End
}

func (r *reading) tell(m wire.Message) bool {
	r.left = r.left || !r.yield(m, nil)
	return !r.left
}

func (r *reading) read(ctx context.Context, path string, req wire.Request, log *slog.Logger) error {
	if req.Version != wire.Version {
		return fmt.Errorf("the request has version %d, this agent speaks version %d", req.Version, wire.Version)
	}
	sel, err := slice.Compile(req.Selection)
	if err != nil {
		return err
	}
	head := datadir.NoHead
	switch req.Head {
	case wire.HeadNone:
	case wire.HeadBlock:
		head = datadir.ReadHead
	case wire.HeadRaw:
		head = datadir.RawHead
	default:
		return fmt.Errorf("the request has the unknown head mode %q", req.Head)
	}
	d, err := datadir.Open(ctx, path, datadir.Options{Head: head, Wanted: sel.Overlaps, Logger: log})
	if err != nil {
		return err
	}
	defer d.Close()

	told := before(req.Resume)
	told.first(d.Blocks)
	plan := newPlan(d, sel, req, told, log)
	if !r.tell(plan) || req.PlanOnly {
		return nil
	}
	for i, b := range d.Blocks {
		at := told.at(plan.Blocks[i].ULID)
		switch plan.Blocks[i].Action {
		case wire.Whole:
			err = r.files(ctx, b.Files, at)
		case wire.Cut:
			err = r.cut(ctx, b, sel, at.Parts)
		default:
			continue
		}
		if err != nil || r.left {
			return err
		}
		r.end.Blocks++
		if err := b.Close(); err != nil {
			return fmt.Errorf("close block %s: %w", plan.Blocks[i].ULID, err)
		}
	}
	switch req.Head {
	case wire.HeadBlock:
		err = slice.Head(ctx, &d.Head, sel, r.tell)
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

// newPlan says what is told of the data dir; its blocks are in the order of d's.
func newPlan(d *datadir.Dir, sel *slice.Selection, req wire.Request, told told, log *slog.Logger) *wire.Plan {
	p := &wire.Plan{Head: wire.PlannedHead{Mode: req.Head, Bytes: d.Head.Bytes(), MinValidTime: d.Head.MinValidTime}}
	p.Bytes = p.Head.Bytes
	for _, b := range d.Blocks {
		pb := describe(b)
		pb.Action, pb.Reason = sel.Decide(b.Meta, req.WholeBlocks)
		if told.has(b.Meta) {
			pb.Action, pb.Reason = wire.Skip, "told before"
		}
		log.Debug("block", "ulid", pb.ULID, "action", pb.Action, "reason", pb.Reason, "minTime", time.UnixMilli(pb.MinTime).UTC(), "maxTime", time.UnixMilli(pb.MaxTime).UTC(), "bytes", pb.Bytes)
		p.Blocks = append(p.Blocks, pb)
		if pb.Action != wire.Skip {
			p.Bytes += pb.Bytes
		}
	}
	for _, d := range d.Head.Damage() {
		p.Head.Damage = append(p.Head.Damage, slice.HeadDamage(d))
	}
	log.Debug("head", "mode", p.Head.Mode, "bytes", p.Head.Bytes, "minValidTime", p.Head.MinValidTime)
	p.Notes = notes(d)
	return p
}

func notes(d *datadir.Dir) []string {
	var out []string
	for _, b := range d.Broken {
		out = append(out, fmt.Sprintf("block %s is left out, Prometheus cannot load it either: %v", b.ULID, b.Err))
	}
	return out
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
func Inventory(ctx context.Context, path string, log *slog.Logger) (*wire.Inventory, error) {
	d, err := datadir.Open(ctx, path, datadir.Options{
		Head: datadir.ReadHead, Wanted: func(datadir.Meta) bool { return false }, Logger: log,
	})
	if err != nil {
		return nil, err
	}
	defer d.Close()
	inv := &wire.Inventory{Notes: notes(d)}
	for _, b := range d.Blocks {
		inv.Blocks = append(inv.Blocks, describe(b))
	}
	if inv.Head, err = slice.HeadInventory(ctx, &d.Head); err != nil {
		return nil, err
	}
	return inv, nil
}
