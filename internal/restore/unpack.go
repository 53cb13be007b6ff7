package restore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/oklog/ulid/v2"

	"github.com/promdump/promdump/internal/archive"
	"github.com/promdump/promdump/internal/block"
	"github.com/promdump/promdump/internal/datadir"
	"github.com/promdump/promdump/internal/restore/apply"
)

// staging is where the dump lies until it is published: a directory that Prometheus
// ignores, and removes when it starts.
type staging struct {
	parent   string
	root     string
	mark     *os.File // nil: the root is a session's
	madeHead bool     // blocks were made of the head
}

func (st *staging) dump() string { return filepath.Join(st.root, "dump") }
func (st *staging) head() string { return filepath.Join(st.root, "head") }

// headDirs are the directories of the dump's raw head.
func (st *staging) headDirs() (dirs []string) {
	for _, name := range datadir.HeadNames() {
		if fi, err := os.Stat(filepath.Join(st.dump(), name)); err == nil && fi.IsDir() {
			dirs = append(dirs, filepath.Join(st.dump(), name))
		}
	}
	return dirs
}

func (st *staging) close() error {
	if st.mark == nil {
		return nil
	}
	err := errors.Join(st.mark.Close(), os.RemoveAll(st.root))
	st.mark = nil
	if err != nil {
		return fmt.Errorf("remove staging: %w", err)
	}
	return nil
}

// stage unpacks and verifies the dump.
func (p *Prepared) stage(ctx context.Context) error {
	p.work.parent = p.spec.Staging
	if p.here != nil {
		s, err := apply.Open(ctx, p.here.dir, apply.Options{Offline: true, Logger: p.log, Step: p.here.step})
		if err != nil {
			return err
		}
		p.here.session, p.Settled = s, s.Settled
		if p.work.parent == "" {
			p.work.parent, p.work.root = p.here.dir, s.Root()
		}
	}
	if p.work.root == "" {
		if err := apply.Sweep(p.work.parent, p.log); err != nil {
			return err
		}
		p.work.root = filepath.Join(p.work.parent, ulid.Make().String()+datadir.Creating)
		var err error
		if p.work.mark, err = apply.MakeStaging(p.work.root); err != nil {
			return err
		}
	}
	if err := p.unpack(ctx); err != nil {
		return err
	}
	if err := p.verify(ctx); err != nil {
		return err
	}
	var err error
	if p.here != nil {
		p.dump.InPlace, err = apply.SameDisk(p.here.dir, p.work.root)
	}
	return errors.Join(err, p.findHead(ctx))
}

// unpack writes the dump's files into staging. What a dump needs there is known
// only as it is read, so the free space is watched on the way.
func (p *Prepared) unpack(ctx context.Context) error {
	in := &watched{ctx: ctx, r: p.spec.Dump, p: p}
	if f, ok := p.spec.Dump.(*os.File); ok {
		if fi, err := f.Stat(); err == nil && fi.Mode().IsRegular() {
			in.total = fi.Size()
		}
	}
	if err := in.checkSpace(in.total); err != nil { // it will not get smaller than it is now
		return err
	}
	if err := os.Mkdir(p.work.dump(), 0o755); err != nil {
		return err
	}
	m, entries, err := archive.Extract(ctx, in, p.work.dump(), nil)
	if err != nil {
		if r, ok := errors.AsType[*RefusedError](in.err); ok {
			return r
		}
		return fmt.Errorf("unpack dump: %w", err)
	}
	p.Manifest = m
	p.log.Debug("unpacked the dump", "files", len(entries), "bytes read", in.done, "dir", p.work.dump())
	return nil
}

// watched is the dump on its way into staging.
type watched struct {
	ctx         context.Context
	r           io.Reader
	p           *Prepared
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

// checkSpace looks at a disk that a server may be on, too.
func (w *watched) checkSpace(need int64) error {
	if w.p.spec.IgnoreSpace || w.p.here == nil {
		return nil
	}
	free, size, err := apply.Disk(w.p.work.parent)
	if err != nil {
		return err
	}
	if r := noRoom(w.p.work.parent, free, size, need); r != nil {
		return &RefusedError{[]Refusal{*r}}
	}
	return nil
}

// verify reads every block of the dump as a server would. One that a server
// could not open would keep it from loading all the others.
func (p *Prepared) verify(ctx context.Context) error {
	entries, err := os.ReadDir(p.work.dump())
	if err != nil {
		return fmt.Errorf("list staging: %w", err)
	}
	var notable []block.Finding
	for _, e := range entries {
		if !e.IsDir() || !isBlockName(e.Name()) {
			continue
		}
		dir := filepath.Join(p.work.dump(), e.Name())
		findings, err := verifyBlock(ctx, dir)
		if err != nil {
			return err
		}
		notable = append(notable, findings...)
		if err := p.addBlock(dir, findings, false); err != nil {
			return err
		}
		p.log.Debug("verified", "block", e.Name())
	}
	p.notes = append(p.notes, block.Notes(notable)...)
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

// addBlock takes a verified block of staging into the dump.
func (p *Prepared) addBlock(dir string, findings []block.Finding, fromHead bool) error {
	m, err := readMeta(dir)
	if err != nil {
		return err
	}
	size, err := dirSize(dir)
	if err != nil {
		return err
	}
	p.dump.Blocks = append(p.dump.Blocks, PlannedBlock{
		ULID: m.ULID, MinTime: ms(m.MinTime), MaxTime: ms(m.MaxTime),
		Series: m.Stats.Series, Samples: m.Stats.Samples, Bytes: size, Level: m.Compaction.Level,
		FromHead: fromHead, Dir: dir, origin: m.origin(), damage: block.Count(block.Of(findings, block.Unreadable)),
	})
	return nil
}

// findHead looks for a raw head in the dump.
func (p *Prepared) findHead(ctx context.Context) error {
	for _, dir := range p.work.headDirs() {
		size, err := dirSize(dir)
		if err != nil {
			return err
		}
		if p.dump.Head == nil {
			p.dump.Head = &RawHead{}
		}
		p.dump.Head.Bytes += size
	}
	if p.dump.Head == nil {
		return nil
	}
	// A server makes it too; a data dir is known by it.
	if err := os.Mkdir(filepath.Join(p.work.dump(), "wal"), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	d, err := datadir.Open(ctx, p.work.dump(), datadir.Options{
		Head: datadir.RawHead, Wanted: func(datadir.Meta) bool { return false }, Logger: p.log,
	})
	if err != nil {
		return fmt.Errorf("read the dump's head: %w", err)
	}
	p.dump.Head.Damage = d.Head.Damage()
	return d.Close()
}

func isBlockName(name string) bool {
	_, err := ulid.ParseStrict(name)
	return err == nil
}

func dirSize(dir string) (n int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		fi, err := e.Info()
		if err == nil {
			n += fi.Size()
		}
		return err
	})
	return n, err
}
