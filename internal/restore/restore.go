package restore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/promdump/promdump/internal/archive"
	"github.com/promdump/promdump/internal/block"
)

// Spec says what is restored where.
type Spec struct {
	// Dir is the target's data dir. Its parent must exist.
	Dir string

	// Dump gives the bytes of the dump file.
	Dump io.Reader

	// Staging is a directory in which the dump is unpacked; it must exist. Empty:
	// inside Dir, so that publishing moves no bytes.
	Staging string

	// Replace puts the dump in the place of what the data dir holds.
	Replace bool

	// One for each refusal that a person may overrule.
	IgnoreRetention bool // publish what retention deletes at the next reload
	IgnoreSpace     bool // use the last of the disk
	AllowUpload     bool // a Thanos sidecar may upload the blocks

	// Retention of the target. 0: as the server at WaitURL tells, or Prometheus'
	// default of 15 days. Negative: nothing is deleted by its age.
	Retention time.Duration

	// WaitURL is the server on the data dir. It is asked for its retention, and
	// Run waits until it serves what was restored, at most WaitTimeout (0: three
	// minutes; a server looks for new blocks once a minute).
	WaitURL     string
	WaitTimeout time.Duration
	Client      *http.Client // asks that server; nil: as anybody does

	Logger   *slog.Logger   // nil: silent
	Progress func(Progress) // nil: nobody looks
}

// Progress is where a restore stands.
type Progress struct {
	Step  Step
	Block string // ULID, when the step is about one
	Done  int64  // bytes of the dump read (Unpack), blocks (Verify, Publish)
	Total int64  // in the unit of Done; 0: not known
}

// Step is one stage of a restore, in the order of their constants.
type Step string

const (
	Unpack  Step = "unpack"
	Verify  Step = "verify"
	Publish Step = "publish"
	Wait    Step = "wait"
)

// Plan is what a restore will do, and what speaks against it. Everything that it
// will publish is unpacked and verified already; nothing is published yet.
type Plan struct {
	Target   Target
	Manifest archive.Manifest // of the dump
	Blocks   []PlannedBlock
	Head     Head
	Replaced []string  // names in the data dir that Replace takes away
	Refusals []Refusal // Run does nothing while there is one
	Notes    []string  // what a person should know, a sentence each

	spec    Spec
	log     *slog.Logger
	server  *server
	staging *staging
	rawSize int64
	ran     bool

	// step is called at every border between two things that Run does; tests kill
	// the restore there.
	step func(name string) error
}

// Action is what happens to a block of the dump.
type Action string

const (
	Add  Action = "add"
	Skip Action = "skip" // the target has it
)

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

	parts  string // its directory in staging
	damage int    // number of places that a server cannot read
	origin origin
	probes []block.Sample // samples to query from a server
}

// Head is what happens to the dump's raw head.
type Head string

const (
	NoHead     Head = ""       // the dump has none
	HeadRaw    Head = "raw"    // its files are put in place as they are
	HeadBlocks Head = "blocks" // it became blocks
)

// Refusal is a reason not to restore.
type Refusal struct {
	Reason string
	Flag   string // of the command line, to go on in spite of it; empty: there is none
	Hint   string // what else can be done
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

// Hint tells what can be done about it; empty when nothing is known.
func (e *RefusedError) Hint() string {
	var hints []string
	for _, r := range e.Refusals {
		if r.Hint != "" {
			hints = append(hints, r.Hint)
		}
		if r.Flag != "" {
			hints = append(hints, "to go on all the same: "+r.Flag)
		}
	}
	return strings.Join(hints, "; ")
}

func refused(r Refusal) error { return &RefusedError{Refusals: []Refusal{r}} }

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

// NewPlan looks at the target, unpacks the dump into staging and verifies every
// block there. The data dir gets no block. A dump without its end gives
// archive.ErrIncomplete, a damaged one archive.ErrDamaged or a *VerifyError, a
// hopeless target a *RefusedError. The plan must be closed.
func NewPlan(ctx context.Context, spec Spec) (_ *Plan, err error) {
	p := &Plan{spec: spec, log: spec.Logger}
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	if spec.Replace && spec.WaitURL != "" {
		return nil, errors.New("replacing needs a stopped server, so there is none to wait for")
	}
	if p.Target, err = inspect(spec.Dir); err != nil {
		return nil, err
	}
	p.Target.Retention = retentionOf(spec)
	if spec.WaitURL != "" {
		if err := p.askServer(ctx); err != nil {
			return nil, err
		}
	}
	if p.staging, err = newStaging(&p.Target, spec.Staging, p.log); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.Close())
		}
	}()
	if err := p.unpack(ctx); err != nil {
		return nil, err
	}
	if err := p.verify(ctx); err != nil {
		return nil, err
	}
	if err := p.decideHead(ctx); err != nil {
		return nil, err
	}
	if err := p.decideBlocks(); err != nil {
		return nil, err
	}
	if err := p.weigh(); err != nil {
		return nil, err
	}
	return p, nil
}

// Close removes the staging, and the data dir if it was made for this plan and
// nothing came into it. What Run published stays.
func (p *Plan) Close() error {
	if p.staging == nil {
		return nil
	}
	st := p.staging
	p.staging = nil
	return st.close()
}

// Bytes is the size of all that Run will publish.
func (p *Plan) Bytes() int64 {
	n := p.rawSize
	for _, b := range p.Blocks {
		if b.Action == Add {
			n += b.Bytes
		}
	}
	return n
}

func (p *Plan) progress(pr Progress) {
	if p.spec.Progress != nil {
		p.spec.Progress(pr)
	}
}

// at marks a border between two steps, where a restore can be stopped.
func (p *Plan) at(ctx context.Context, name string) error {
	if p.step != nil {
		if err := p.step(name); err != nil {
			return err
		}
	}
	return context.Cause(ctx)
}

func ms(t int64) time.Time { return time.UnixMilli(t).UTC() }

func dirSize(dir string) (int64, error) {
	var n int64
	err := walk(dir, func(_ string, fi os.FileInfo) error {
		if fi.Mode().IsRegular() {
			n += fi.Size()
		}
		return nil
	})
	return n, err
}
