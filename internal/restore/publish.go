package restore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/oklog/ulid/v2"

	"github.com/promdump/promdump/internal/block"
	"github.com/promdump/promdump/internal/datadir"
)

// Report is what a restore did.
type Report struct {
	Added    []PlannedBlock // published
	Skipped  []PlannedBlock // there already
	Head     Head           // HeadRaw: its files are in place
	Replaced []string       // names of the data dir that were taken away
	Bytes    int64          // published
	Served   bool           // the server at WaitURL serves every block
}

// Run publishes what the plan says. With an error the report says what was
// published nevertheless: every block of it is whole, the others are not there,
// and running the restore again goes on. With Replace it is all or nothing.
func (p *Plan) Run(ctx context.Context) (_ *Report, err error) {
	if len(p.Refusals) > 0 {
		return nil, &RefusedError{Refusals: p.Refusals}
	}
	if p.ran || p.staging == nil {
		return nil, errors.New("a restore plan runs once, before it is closed")
	}
	p.ran = true

	home, err := p.home()
	if err != nil {
		return nil, err
	}
	if home != p.staging {
		defer func() { err = errors.Join(err, home.close()) }()
	}
	var old []string
	if p.alone() {
		lock, err := p.lock()
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, lock.release()) }()
		if old, err = p.oldNames(home); err != nil {
			return nil, err
		}
	}
	parts, err := p.prepare(ctx, home)
	if err != nil {
		return nil, p.explain(fmt.Errorf("prepare blocks in %s: %w", home.root, err))
	}
	rep := &Report{}
	for i, b := range p.Blocks {
		if b.Action == Skip {
			if p.server != nil {
				p.probe(ctx, &p.Blocks[i], b.parts)
			}
			rep.Skipped = append(rep.Skipped, b)
		}
	}
	if p.alone() {
		err = p.swap(ctx, parts, old, rep)
	} else {
		err = p.publish(ctx, parts, rep)
	}
	if err != nil {
		return rep, p.explain(err)
	}
	if p.server != nil {
		if err := p.wait(ctx); err != nil {
			return rep, err
		}
		rep.Served = true
	}
	return rep, nil
}

// alone tells whether the dump will be all that the data dir holds, so that no
// server may be at work in it.
func (p *Plan) alone() bool { return p.spec.Replace || p.Head == HeadRaw }

// home is a staging directory on the data dir's filesystem: a rename is atomic
// only there.
func (p *Plan) home() (*staging, error) {
	if filepath.Dir(p.staging.root) == p.Target.Dir {
		return p.staging, nil
	}
	return newStaging(&p.Target, "", p.log)
}

// part is a directory that becomes visible by one rename.
type part struct {
	ready string // where it lies, complete and synced
	name  string // in the data dir
	size  int64
	block *PlannedBlock // nil for a directory of the head
}

// prepare makes everything ready to be renamed: on the data dir's filesystem,
// with the meta.json, modes and owner that it will have, and on disk.
func (p *Plan) prepare(ctx context.Context, home *staging) ([]part, error) {
	var parts []part
	ready := filepath.Join(home.root, "ready")
	if err := os.Mkdir(ready, 0o755); err != nil {
		return nil, err
	}
	take := func(from string, b *PlannedBlock) error {
		pt := part{name: filepath.Base(from), block: b}
		pt.ready = filepath.Join(ready, pt.name)
		if err := p.at(ctx, "prepare "+pt.name); err != nil {
			return err
		}
		copied, err := move(ctx, from, pt.ready)
		if err != nil {
			return err
		}
		if b != nil && copied {
			findings, err := verifyBlock(ctx, pt.ready)
			if err != nil {
				return err
			}
			// The copy is as good as what was copied.
			if bad := block.Of(findings, block.Unreadable); block.Count(bad) != b.damage {
				return &VerifyError{Findings: bad}
			}
		}
		// What is put in place as a whole stays as it is: its head counts from the
		// end of its blocks, and the hint would hide them from it.
		if b != nil && p.Head != HeadRaw {
			if err := adopt(pt.ready); err != nil {
				return err
			}
		}
		if err := settle(ctx, &p.Target, pt.ready); err != nil {
			return err
		}
		if pt.size, err = dirSize(pt.ready); err != nil {
			return err
		}
		if b != nil {
			p.probe(ctx, b, pt.ready)
		}
		parts = append(parts, pt)
		return nil
	}
	for i := range p.Blocks {
		if b := &p.Blocks[i]; b.Action == Add {
			if err := take(b.parts, b); err != nil {
				return nil, err
			}
		}
	}
	if p.Head == HeadRaw {
		for _, name := range datadir.HeadNames() {
			err := take(filepath.Join(p.staging.dump(), name), nil)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, err
			}
		}
	}
	return parts, nil
}

// publish makes the parts visible, one after the other.
func (p *Plan) publish(ctx context.Context, parts []part, rep *Report) error {
	for i, pt := range parts {
		p.progress(Progress{Step: Publish, Block: pt.name, Done: int64(i), Total: int64(len(parts))})
		if err := p.at(ctx, "publish "+pt.name); err != nil {
			return err
		}
		if err := p.show(ctx, pt); err != nil {
			return fmt.Errorf("publish %s: %w", pt.name, err)
		}
		rep.Bytes += pt.size
		if pt.block != nil {
			rep.Added = append(rep.Added, *pt.block)
		} else {
			rep.Head = HeadRaw
		}
		p.log.Debug("published", "name", pt.name, "bytes", pt.size)
	}
	return p.at(ctx, "published")
}

func (p *Plan) show(ctx context.Context, pt part) error {
	final := filepath.Join(p.Target.Dir, pt.name)
	if pt.block != nil {
		// A block must never appear under its own name with a part missing, also not
		// where a rename between directories is no single step.
		tmp := final + tmpSuffix
		if err := os.RemoveAll(tmp); err != nil {
			return err
		}
		if err := p.rename(pt.ready, tmp); err != nil {
			return err
		}
		if err := p.at(ctx, "staged "+pt.name); err != nil {
			return errors.Join(err, os.RemoveAll(tmp))
		}
		pt.ready = tmp
	}
	if err := p.rename(pt.ready, final); err != nil {
		return errors.Join(err, os.RemoveAll(pt.ready))
	}
	return syncDir(p.Target.Dir)
}

func (p *Plan) rename(from, to string) error {
	err := os.Rename(from, to)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("staging is gone, a server that starts removes it; run the restore again: %w", err)
	}
	return err
}

// oldNames lists what of the data dir is taken away before the dump takes its
// place. Foreign files stay, and so does the lock.
func (p *Plan) oldNames(ours ...*staging) ([]string, error) {
	entries, err := os.ReadDir(p.Target.Dir)
	if err != nil {
		return nil, fmt.Errorf("list data dir: %w", err)
	}
	var names []string
next:
	for _, e := range entries {
		path := filepath.Join(p.Target.Dir, e.Name())
		for _, st := range append(ours, p.staging) {
			if st.root == path {
				continue next
			}
		}
		if datadir.IsTSDBName(e.Name()) {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// swap moves the old contents aside, publishes the parts, and only then removes
// the old; when something fails before, the old contents come back.
func (p *Plan) swap(ctx context.Context, parts []part, old []string, rep *Report) (err error) {
	if p.Head == HeadRaw && !p.spec.Replace {
		now, err := inspect(p.Target.Dir)
		if err != nil {
			return err
		}
		if !now.Empty {
			return errors.New("something was written into the data dir meanwhile; run the restore again")
		}
	}
	id := ulid.Make().String()
	aside := filepath.Join(p.Target.Dir, datadir.AsidePrefix+id)
	if len(old) == 0 {
		aside = ""
	} else if err := os.Mkdir(aside, 0o755); err != nil {
		return err
	}
	var moved []string
	fail := func(err error) error {
		if back := p.putBack(aside, moved, rep); back != nil {
			return errors.Join(err, fmt.Errorf("the old contents are in %s, moving them back failed: %w", aside, back))
		}
		*rep = Report{Skipped: rep.Skipped}
		return err
	}
	for _, name := range old {
		if err := p.at(ctx, "aside "+name); err != nil {
			return fail(err)
		}
		if err := os.Rename(filepath.Join(p.Target.Dir, name), filepath.Join(aside, name)); err != nil {
			return fail(err)
		}
		moved = append(moved, name)
	}
	if aside != "" {
		if err := errors.Join(syncDir(aside), syncDir(p.Target.Dir)); err != nil {
			return fail(err)
		}
	}
	if err := p.publish(ctx, parts, rep); err != nil {
		return fail(err)
	}

	// From here on nothing goes back. Under this name a server removes what we
	// cannot.
	rep.Replaced = old
	if aside == "" {
		return nil
	}
	gone := filepath.Join(p.Target.Dir, id+delSuffix)
	if err := os.Rename(aside, gone); err != nil {
		return fmt.Errorf("the dump is in place, but the old contents could not be removed: %w", err)
	}
	if err := errors.Join(syncDir(p.Target.Dir), os.RemoveAll(gone)); err != nil {
		return fmt.Errorf("the dump is in place, but the old contents could not be removed: %w", err)
	}
	return nil
}

func (p *Plan) putBack(aside string, moved []string, rep *Report) error {
	var errs []error
	var names []string
	for _, b := range rep.Added {
		names = append(names, b.ULID)
	}
	if rep.Head == HeadRaw {
		names = append(names, datadir.HeadNames()...)
	}
	for _, name := range names {
		// Not under its own name while it is removed: half a block is worse than none.
		gone := filepath.Join(p.Target.Dir, ulid.Make().String()+delSuffix)
		if err := os.Rename(filepath.Join(p.Target.Dir, name), gone); err != nil {
			if !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, err)
			}
			continue
		}
		errs = append(errs, os.RemoveAll(gone))
	}
	for _, name := range moved {
		errs = append(errs, os.Rename(filepath.Join(aside, name), filepath.Join(p.Target.Dir, name)))
	}
	errs = append(errs, syncDir(p.Target.Dir))
	if err := errors.Join(errs...); err != nil || aside == "" {
		return err
	}
	return os.Remove(aside)
}

// dirLock is the data dir's lock, held by us so that no server starts meanwhile.
type dirLock struct {
	f    *os.File
	made bool
}

func (p *Plan) lock() (*dirLock, error) {
	name := filepath.Join(p.Target.Dir, lockName)
	l := &dirLock{}
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		l.made = true
		f, err = os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	}
	if err != nil {
		return nil, fmt.Errorf("lock data dir: %w", err)
	}
	l.f = f
	ok, err := lockExclusive(f)
	if err == nil && ok {
		// Were we killed now, a server of another user could not take the lock.
		err = giveTo(&p.Target, name)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock data dir: %w", err), l.release())
	}
	if !ok {
		l.made = false
		return nil, errors.Join(refused(Refusal{
			Reason: fmt.Sprintf("a running server holds the lock of %s", p.Target.Dir),
			Hint:   "stop the server first",
		}), l.release())
	}
	return l, nil
}

func (l *dirLock) release() error {
	var err error
	if l.made {
		err = os.Remove(l.f.Name())
	}
	return errors.Join(err, l.f.Close())
}

// joinPath keeps the path below which a server may live behind a proxy.
func joinPath(base, path string) string { return strings.TrimSuffix(base, "/") + path }
