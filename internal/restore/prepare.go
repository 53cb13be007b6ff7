package restore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/promdump/promdump/internal/archive"
	"github.com/promdump/promdump/internal/block"
	"github.com/promdump/promdump/internal/datadir"
)

// unpack writes the dump's files into staging. What a dump needs there is known
// only as it is read, so the free space is watched on the way.
func (p *Plan) unpack(ctx context.Context) error {
	in := &watched{ctx: ctx, r: p.spec.Dump, p: p}
	if f, ok := p.spec.Dump.(*os.File); ok {
		if fi, err := f.Stat(); err == nil && fi.Mode().IsRegular() {
			in.total = fi.Size()
		}
	}
	if err := in.checkSpace(in.total); err != nil { // it will not get smaller than it is now
		return err
	}
	if err := os.Mkdir(p.staging.dump(), 0o755); err != nil {
		return err
	}
	m, entries, err := archive.Extract(ctx, in, p.staging.dump(), nil)
	if err != nil {
		if r, ok := errors.AsType[*RefusedError](in.err); ok {
			return r
		}
		return p.explain(fmt.Errorf("unpack dump: %w", err))
	}
	p.Manifest = m
	p.log.Debug("unpacked the dump", "files", len(entries), "bytes read", in.done, "dir", p.staging.dump())
	return nil
}

// explain makes one clear refusal of a full disk.
func (p *Plan) explain(err error) error {
	if !isNoSpace(err) {
		return err
	}
	return refused(Refusal{
		Reason: fmt.Sprintf("the disk of %s is full (%v); everything that was written is removed again", p.stagingParent(), err),
		Hint:   "make room, or dump a smaller selection",
	})
}

func (p *Plan) stagingParent() string { return cmp.Or(p.spec.Staging, p.Target.Dir) }

// watched is the dump on its way into staging.
type watched struct {
	ctx         context.Context
	r           io.Reader
	p           *Plan
	done, total int64
	checked     int64
	err         error
}

// Between two looks at the free space so much of the dump is read. Unpacked it is
// a few times as much; the reserve is larger than that.
const spaceCheckEvery = 1 << 20

func (w *watched) Read(b []byte) (int, error) {
	if err := context.Cause(w.ctx); err != nil {
		return 0, err
	}
	if w.done-w.checked >= spaceCheckEvery {
		w.checked = w.done
		if err := w.checkSpace(0); err != nil {
			w.err = err
			return 0, err
		}
	}
	n, err := w.r.Read(b)
	w.done += int64(n)
	w.p.progress(Progress{Step: Unpack, Done: w.done, Total: w.total})
	return n, err
}

// reserve is what a restore leaves free for the server's own WAL.
func reserve(size int64) int64 { return min(256<<20, size/20) }

func (w *watched) checkSpace(need int64) error {
	if w.p.spec.IgnoreSpace {
		return nil
	}
	free, size, err := freeSpace(w.p.stagingParent())
	if err != nil {
		return err
	}
	return noRoom(w.p.stagingParent(), free, size, need)
}

func noRoom(dir string, free, size, need int64) error {
	if free < 0 || free >= need+reserve(size) {
		return nil
	}
	reason := fmt.Sprintf("%s has %d bytes free, which a server needs for itself", dir, free)
	if need > 0 {
		reason = fmt.Sprintf("%s has %d bytes free; the dump needs %d and a server %d for itself", dir, free, need, reserve(size))
	}
	return refused(Refusal{Reason: reason, Flag: "--ignore-space", Hint: "make room, or dump a smaller selection"})
}

// verify reads every block of the dump as a server would. One that a server
// could not open would keep it from loading all the others.
func (p *Plan) verify(ctx context.Context) error {
	ids, err := p.stagedBlocks(p.staging.dump())
	if err != nil {
		return err
	}
	var notable []block.Finding
	for i, id := range ids {
		p.progress(Progress{Step: Verify, Block: id, Done: int64(i), Total: int64(len(ids))})
		dir := filepath.Join(p.staging.dump(), id)
		findings, err := verifyBlock(ctx, dir)
		if err != nil {
			return err
		}
		notable = append(notable, findings...)
		if err := p.addBlock(dir, findings, false); err != nil {
			return err
		}
		p.log.Debug("verified", "block", id)
	}
	p.Notes = append(p.Notes, block.Notes(notable)...)
	return nil
}

// verifyBlock refuses a block that a server could not load. Any other finding affects
// that block alone, so it is only reported.
func verifyBlock(ctx context.Context, dir string) ([]block.Finding, error) {
	var findings []block.Finding
	_, err := block.Verify(ctx, dir, func(f block.Finding) { findings = append(findings, f) })
	if bad := block.Of(findings, block.Unloadable); len(bad) > 0 {
		return nil, &VerifyError{Findings: bad}
	}
	if err != nil {
		return nil, fmt.Errorf("verify block %s: %w", filepath.Base(dir), err)
	}
	return findings, nil
}

func (p *Plan) stagedBlocks(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list staging: %w", err)
	}
	var ids []string
	for _, e := range entries {
		if e.IsDir() && isBlockName(e.Name()) {
			ids = append(ids, e.Name())
		}
	}
	return ids, nil
}

// addBlock takes a verified block of staging into the plan.
func (p *Plan) addBlock(dir string, findings []block.Finding, fromHead bool) error {
	m, err := readMeta(dir)
	if err != nil {
		return err
	}
	size, err := dirSize(dir)
	if err != nil {
		return err
	}
	p.Blocks = append(p.Blocks, PlannedBlock{
		ULID: m.ULID, MinTime: ms(m.MinTime), MaxTime: ms(m.MaxTime),
		Series: m.Stats.Series, Samples: m.Stats.Samples, Bytes: size, Level: m.Compaction.Level,
		FromHead: fromHead, parts: dir, origin: m.origin(), damage: block.Count(block.Of(findings, block.Unreadable)),
	})
	return nil
}

// decideHead keeps a raw head as it is if the data dir is empty and a server starts on
// that head. Otherwise it converts the head to blocks.
func (p *Plan) decideHead(ctx context.Context) error {
	for _, name := range datadir.HeadNames() {
		size, err := dirSize(filepath.Join(p.staging.dump(), name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		p.Head = HeadRaw
		p.rawSize += size
	}
	if p.Head == NoHead {
		return nil
	}
	// A server makes it too; a data dir is known by it.
	if err := os.Mkdir(filepath.Join(p.staging.dump(), "wal"), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	damage, err := p.headDamage(ctx)
	if err != nil {
		return err
	}
	reason := "the data dir is not empty"
	if p.spec.Replace || p.Target.Empty && !p.Target.Live {
		i := slices.IndexFunc(damage, func(d datadir.Damage) bool { return d.Fatal })
		if i < 0 {
			for _, d := range damage {
				p.Notes = append(p.Notes, fmt.Sprintf(
					"The dump's raw head is damaged (%s): the server repairs it when it starts, and drops what comes after.", d))
			}
			return nil
		}
		reason = fmt.Sprintf("no server starts on it (%s)", damage[i])
	}
	p.Head, p.rawSize = HeadBlocks, 0
	p.Notes = append(p.Notes, fmt.Sprintf("The dump's raw head becomes blocks, since %s.", reason))
	if err := p.headToBlocks(ctx); err != nil {
		return p.explain(fmt.Errorf("make blocks of the dump's head: %w", err))
	}
	return nil
}

// headDamage returns the damage of the unpacked dump's head.
func (p *Plan) headDamage(ctx context.Context) ([]datadir.Damage, error) {
	d, err := datadir.Open(ctx, p.staging.dump(), datadir.Options{
		Head: datadir.RawHead, Wanted: func(datadir.Meta) bool { return false }, Logger: p.log,
	})
	if err != nil {
		return nil, fmt.Errorf("read the dump's head: %w", err)
	}
	return d.Head.Damage(), d.Close()
}

// decideBlocks says which blocks are added.
func (p *Plan) decideBlocks() error {
	slices.SortFunc(p.Blocks, func(a, b PlannedBlock) int {
		return cmp.Or(a.MinTime.Compare(b.MinTime), cmp.Compare(a.ULID, b.ULID))
	})
	for i := range p.Blocks {
		b := &p.Blocks[i]
		b.Action, b.Reason = Add, "new"
		if p.spec.Replace {
			continue
		}
		there, in := p.Target.block(b.ULID), holders(b.origin, p.Target.origins())
		switch {
		case there != nil && there.Broken:
			p.Refusals = append(p.Refusals, Refusal{
				Reason: fmt.Sprintf("block %s is in the data dir, but has no meta.json that can be read", b.ULID),
				Hint:   fmt.Sprintf("move %s away, it keeps the server from compacting", filepath.Join(p.Target.Dir, b.ULID)),
			})
		case there != nil:
			b.Action, b.Reason = Skip, "there already"
		case len(in) > 0:
			// The server has merged it, and deletes it again if that was just now.
			b.Action, b.Reason = Skip, "there already, compacted into "+some(in)
		}
		p.log.Debug("planned", "block", b.ULID, "action", b.Action, "reason", b.Reason)
	}
	for _, b := range p.Target.Blocks {
		if b.Broken && !p.spec.Replace {
			p.Notes = append(p.Notes, fmt.Sprintf("%s in the data dir has no meta.json that can be read; it keeps the server from compacting.", b.ULID))
		}
	}
	if !p.spec.Replace || !p.Target.Exists {
		return nil
	}
	var err error
	p.Replaced, err = p.oldNames()
	return err
}
