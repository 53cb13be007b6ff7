package restore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/promdump/promdump/internal/archive"
	"github.com/promdump/promdump/internal/block"
	"github.com/promdump/promdump/internal/restore/apply"
	"github.com/promdump/promdump/internal/source/local"
	"github.com/promdump/promdump/internal/wire"
)

// Spec says what is restored where.
type Spec struct {
	// Dir is the target's data dir, if it is on this machine. Its parent must exist.
	Dir string

	// Target is a target that is not on this machine; nil: Dir is.
	Target Target

	// Dump gives the bytes of the dump file.
	Dump io.Reader

	// Staging is a directory in which the dump is unpacked; it must exist. Empty:
	// inside Dir, so that publishing moves no bytes.
	Staging string

	Replace                                   bool // see [Policy]
	IgnoreRetention, IgnoreSpace, AllowUpload bool

	// Retention of the target. 0: as the server at WaitURL says, or Prometheus'
	// default of 15 days. Negative: nothing is deleted by its age.
	Retention time.Duration
	Version   string // of the server; empty: as the one at WaitURL says

	// WaitURL is the server on Dir. It is asked for its retention, and Run waits until
	// it serves what was restored, at most WaitTimeout (0: three minutes; a server looks
	// for new blocks once a minute).
	WaitURL     string
	WaitTimeout time.Duration
	Client      *http.Client // of the requests to that server; nil: one without credentials

	Logger   *slog.Logger   // nil: silent
	Progress func(Progress) // nil: not shown
}

// Target is a data dir that a dump is restored into.
type Target interface {
	// Inspect returns the inventory, and changes nothing.
	Inspect(context.Context) (*wire.Target, error)

	// Apply does a job, all of it or nothing.
	Apply(ctx context.Context, job Job, sent func(bytes int64)) (*wire.Restored, error)
}

// Job is what is put into a target.
type Job struct {
	// Dirs are complete directories on this machine: of blocks, each named by its ULID,
	// and of a head.
	Dirs []string

	// Replace says that they take the place of what the target holds.
	Replace bool
}

// Progress is where a restore stands.
type Progress struct {
	Step  Step
	Done  int64 // bytes of the dump read (Unpack), bytes sent (Send), blocks (Wait)
	Total int64 // in the unit of Done; 0: not known
}

// Step is one stage of a restore, in the order of their constants.
type Step string

const (
	Unpack Step = "unpack"
	Send   Step = "send"
	Wait   Step = "wait"
)

// Report is what a restore did.
type Report struct {
	Added    []PlannedBlock // in place
	Skipped  []PlannedBlock // there already
	Head     Head           // HeadRaw: its files are in place
	Replaced []string       // names of the data dir that were taken away
	Bytes    int64          // published
	Served   bool           // the server at WaitURL serves every block

	Result *wire.Restored // of the target; nil: there was nothing to do
}

// VerifyError lists why a server could not load the dump's blocks. Nothing was
// published.
type VerifyError struct{ Findings []block.Finding }

func (e *VerifyError) Error() string {
	s := "a server cannot load the dump: " + e.Findings[0].String()
	if n := block.Count(e.Findings) - 1; n > 0 {
		s += fmt.Sprintf(" (and %d more)", n)
	}
	return s
}

// Prepared is a restore whose dump is unpacked and verified. Nothing is published yet. It
// must be closed.
type Prepared struct {
	*Decision
	Manifest archive.Manifest // of the dump

	// Settled are earlier replacements that were killed and are whole now: what they put
	// in place is there (Done), or again what was there before.
	Settled []wire.Aside

	spec   Spec
	log    *slog.Logger
	target Target
	here   *localTarget // nil: the target is not on this machine
	server *server
	policy Policy
	work   staging
	dump   Dump
	notes  []string
	ran    bool

	// step is called before each change of a name; tests kill the restore there.
	step func(name string) error
}

// Prepare looks at the target, unpacks the dump into staging, verifies every block there
// and decides what is done. The data dir gets no block. A dump without its end gives
// archive.ErrIncomplete, a damaged one archive.ErrDamaged or a *VerifyError, a hopeless
// target a *RefusedError.
func Prepare(ctx context.Context, spec Spec) (_ *Prepared, err error) {
	p := &Prepared{spec: spec, log: spec.Logger, target: spec.Target}
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	if spec.Replace && spec.WaitURL != "" {
		return nil, errors.New("replacing needs a stopped server, so there is none to wait for")
	}
	p.policy = Policy{
		Replace: spec.Replace, Restarted: spec.Target != nil, IgnoreRetention: spec.IgnoreRetention,
		IgnoreSpace: spec.IgnoreSpace, AllowUpload: spec.AllowUpload, Retention: retentionOf(spec), Version: spec.Version,
	}
	if p.target == nil {
		dir, err := filepath.Abs(spec.Dir)
		if err != nil {
			return nil, err
		}
		p.here = &localTarget{dir: dir, step: func(name string) error {
			if p.step == nil {
				return nil
			}
			return p.step(name)
		}}
		p.target = p.here
	}
	t, err := p.target.Inspect(ctx)
	if err != nil {
		return nil, err
	}
	if r := checkTarget(t, p.policy); r != nil && r.Kind == NotDataDir {
		return nil, &RefusedError{[]Refusal{*r}}
	}
	if spec.WaitURL != "" {
		if err := p.askServer(ctx, t); err != nil {
			return nil, err
		}
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.Close())
		}
	}()
	if err := p.stage(ctx); err != nil {
		return nil, explain(err, p.work.parent)
	}
	if p.here != nil { // it was settled since, and has less space now
		if t, err = p.here.Inspect(ctx); err != nil {
			return nil, err
		}
	}
	return p, p.decide(ctx, t)
}

func retentionOf(spec Spec) Retention {
	switch {
	case spec.Retention < 0:
		return Retention{From: "given"}
	case spec.Retention > 0:
		return Retention{Time: spec.Retention, From: "given"}
	}
	return Retention{Time: defaultRetention, From: "Prometheus' default", Assumed: true}
}

// decide plans, and makes blocks of a raw head first where it cannot stay as it is.
func (p *Prepared) decide(ctx context.Context, t *wire.Target) error {
	if head := p.dump.Head; head != nil {
		if why := head.keepsRaw(t, p.policy); why != "" {
			p.notes = append(p.notes, fmt.Sprintf("The dump's raw head becomes blocks, since %s.", why))
			if err := p.headToBlocks(ctx); err != nil {
				return explain(fmt.Errorf("make blocks of the dump's head: %w", err), p.work.parent)
			}
			p.dump.Head = nil
		}
	}
	p.Decision = Plan(t, p.dump, p.policy)
	if p.Head == NoHead && p.work.madeHead {
		p.Head = HeadBlocks // also where it had no samples
	}
	p.Notes = append(p.notes, p.Notes...)
	for _, b := range p.Blocks {
		p.log.Debug("planned", "block", b.ULID, "action", b.Action, "reason", b.Reason)
	}
	return nil
}

// Close removes the staging, and the data dir if it was made for this restore and
// nothing came into it. What Run published stays.
func (p *Prepared) Close() error {
	err := p.work.close()
	if p.here != nil && p.here.session != nil {
		_, serr := p.here.session.Close()
		err = errors.Join(err, serr)
	}
	return err
}

// HeadSeries counts the series of the dump's raw head.
func (p *Prepared) HeadSeries(ctx context.Context) (uint64, error) {
	inv, err := local.New(p.work.dump(), local.Options{Logger: p.log}).Inventory(ctx)
	if err != nil {
		return 0, fmt.Errorf("read what is sent: %w", err)
	}
	return inv.Head.Series, nil
}

func (p *Prepared) progress(pr Progress) {
	if p.spec.Progress != nil {
		p.spec.Progress(pr)
	}
}

// Run does what was decided. With an error the report says what was published
// nevertheless: every block of it is whole, the others are not there, and running the
// restore again goes on. With Replace it is all or nothing.
func (p *Prepared) Run(ctx context.Context) (*Report, error) {
	if len(p.Refusals) > 0 {
		return nil, &RefusedError{Refusals: p.Refusals}
	}
	if p.ran {
		return nil, errors.New("a restore runs once")
	}
	p.ran = true
	rep := &Report{}
	job := Job{Replace: p.policy.Replace || p.Head == HeadRaw}
	for i := range p.Blocks {
		b := &p.Blocks[i]
		if err := context.Cause(ctx); err != nil {
			return nil, err
		}
		if b.Action == Skip {
			if p.server != nil {
				p.probe(ctx, b)
			}
			rep.Skipped = append(rep.Skipped, *b)
			continue
		}
		// What is put in place as a whole stays as it is: its head counts from the
		// end of its blocks, and the hint would hide them from it.
		if p.Head != HeadRaw {
			if err := adopt(b.Dir); err != nil {
				return nil, fmt.Errorf("prepare block %s: %w", b.ULID, err)
			}
		}
		p.probe(ctx, b)
		job.Dirs = append(job.Dirs, b.Dir)
	}
	if p.Head == HeadRaw {
		job.Dirs = append(job.Dirs, p.work.headDirs()...)
	}
	if len(job.Dirs) > 0 || job.Replace {
		if p.here != nil {
			p.here.prepare(p)
		}
		done, err := p.target.Apply(ctx, job, func(n int64) { p.progress(Progress{Step: Send, Done: n, Total: p.Bytes}) })
		p.report(rep, done)
		if err != nil {
			return rep, explain(err, p.Target.Dir)
		}
	}
	if p.server == nil {
		return rep, nil
	}
	if err := p.wait(ctx); err != nil {
		return rep, err
	}
	rep.Served = true
	return rep, nil
}

// report adds what a target has done.
func (p *Prepared) report(rep *Report, done *wire.Restored) {
	if done == nil {
		return
	}
	rep.Result, rep.Replaced = done, done.Replaced
	there := map[string]bool{}
	for _, id := range append(done.Added, done.Skipped...) {
		there[id] = true
	}
	for i := range p.Blocks {
		b := &p.Blocks[i]
		if b.Action != Add || !there[b.ULID] {
			continue
		}
		if p.here != nil {
			b.Dir = filepath.Join(p.here.dir, b.ULID)
		}
		rep.Added = append(rep.Added, *b)
		rep.Bytes += b.Bytes
	}
	if p.Head == HeadRaw && (p.here == nil || p.here.replaced) {
		rep.Head = HeadRaw
		rep.Bytes += p.dump.Head.Bytes
	}
}

// explain makes one clear refusal of what is one, among others of a full disk.
func explain(err error, dir string) error {
	busy, ok := errors.AsType[*apply.BusyError](err)
	if ok {
		return refused(Busy, "%v", busy)
	}
	if live, ok := errors.AsType[*apply.LiveError](err); ok {
		return refused(ServerRuns, "%v", live)
	}
	if _, ok := errors.AsType[*RefusedError](err); !ok && apply.IsNoSpace(err) {
		return refused(FullDisk, "the disk of %s is full (%v); everything that was written is removed again", dir, err)
	}
	return err
}

// localTarget is a data dir on this machine.
type localTarget struct {
	dir      string
	session  *apply.Session
	verify   func(ctx context.Context, path string) error // a block that was copied
	empty    bool                                         // it must be, to be replaced
	replaced bool
	step     func(name string) error
}

func (l *localTarget) Inspect(context.Context) (*wire.Target, error) {
	t, err := apply.Inspect(l.dir)
	if err == nil && l.session != nil {
		t.Own = slices.DeleteFunc(t.Own, func(name string) bool { return name == filepath.Base(l.session.Root()) })
	}
	return t, err
}

// prepare is called before Apply.
func (l *localTarget) prepare(p *Prepared) {
	damage := map[string]int{}
	for _, b := range p.Blocks {
		damage[b.ULID] = b.damage
	}
	l.empty = !p.policy.Replace
	l.verify = func(ctx context.Context, path string) error {
		findings, err := verifyBlock(ctx, path)
		if err != nil {
			return err
		}
		// The copy must be as good as what was copied.
		if bad := block.Of(findings, block.Unreadable); block.Count(bad) != damage[filepath.Base(path)] {
			return &VerifyError{Findings: bad}
		}
		return nil
	}
}

func (l *localTarget) Apply(ctx context.Context, job Job, _ func(int64)) (*wire.Restored, error) {
	if job.Replace {
		if now, err := apply.Inspect(l.dir); err != nil {
			return nil, err
		} else if l.empty && !now.Empty() {
			return nil, errors.New("something was written into the data dir meanwhile; run the restore again")
		}
		l.session.Replace()
	}
	for _, dir := range job.Dirs {
		path, copied, err := l.session.Take(ctx, dir)
		if err == nil && copied && isBlockName(filepath.Base(dir)) {
			err = l.verify(ctx, path)
		}
		if err != nil {
			return nil, fmt.Errorf("stage %s: %w", filepath.Base(dir), err)
		}
	}
	done, err := l.session.Publish(ctx)
	l.replaced = job.Replace && len(done.Added)+len(done.Replaced) > 0 || err == nil
	return done, err
}

// Unfinished returns the directory with the old contents of a data dir that a restore,
// which was killed, has taken apart; empty: the data dir is whole.
func Unfinished(dir string) (string, error) { return apply.Unfinished(dir) }

// joinPath keeps the path below which a server may live behind a proxy.
func joinPath(base, path string) string { return strings.TrimSuffix(base, "/") + path }
