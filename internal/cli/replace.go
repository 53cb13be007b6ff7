package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/promdump/promdump/internal/restore"
	"github.com/promdump/promdump/internal/source/local"
	"github.com/promdump/promdump/internal/term"
	"github.com/promdump/promdump/internal/wire"
)

// Replacing puts a dump in the place of all that a There holds. It is for one
// replacement.
type Replacing interface {
	// MayReplace tells what speaks against it before anything is sent: an error with
	// the method Refuses. Others say that it is not known.
	MayReplace(ctx context.Context, restart bool) error

	// Send puts the blocks and a raw head below dir into it, all or nothing. What was
	// there is aside until Discard.
	Send(ctx context.Context, dir string, ulids []string, head bool, progress func(bytes int64)) (*wire.Restored, error)

	// Settle tells what became of a Send whose end was not heard; nil: all is as it
	// was.
	Settle(ctx context.Context) (*wire.Restored, error)

	// Restart restarts the server and waits until it is ready.
	Restart(ctx context.Context) error
	RestartCommand() string // for a person

	// Served waits until the server serves what was sent and nothing of the old. The
	// note is what a person should know when that cannot be seen.
	Served(ctx context.Context, is Replaced) (note string, err error)

	Discard(ctx context.Context) error
}

// Replaced is what a server should serve, and what not.
type Replaced struct {
	Blocks []string // ULIDs
	Added  []restore.PlannedBlock
	Gone   []string // ULIDs
	Series uint64   // at least so many are in the head
}

// refusal is an error that says no and not that something has failed.
type refusal interface {
	error
	Refuses()
}

// mayReplace refuses before a dump is read.
func mayReplace(ctx context.Context, there There, restart bool) error {
	if there.Replacing == nil {
		return usagef("", "what %s holds cannot be replaced", there.Name)
	}
	return there.Replacing.MayReplace(ctx, restart)
}

// asideNotes tell of what earlier replacements left.
func asideNotes(t *wire.Target) (notes []string) {
	for _, a := range t.Aside {
		if a.Done {
			notes = append(notes, fmt.Sprintf("An earlier restore --replace did not remove the data dir's old contents: they are in %s/%s.", t.Dir, a.Dir))
			continue
		}
		notes = append(notes, fmt.Sprintf("A restore --replace was killed half-way: the data dir's old contents are in %s/%s; move them back or remove them.", t.Dir, a.Dir))
	}
	return notes
}

// printRestart is the end of what --dry-run prints.
func printRestart(w io.Writer, c restoreConfig, there There) error {
	var text string
	switch {
	case c.restart:
		text = "\nThen the pod is deleted, and what was there is removed when the next one serves what was restored."
	case c.spec.Replace:
		text = "\nThen the server must be restarted: " + there.Replacing.RestartCommand()
	default:
		return nil
	}
	_, err := fmt.Fprintln(w, term.Printable(text))
	return err
}

// replacement is one under way: what was prepared in image goes there.
type replacement struct {
	c      restoreConfig
	there  There
	image  string
	report *restore.Report
	shown  string // names the dump
	begin  time.Time
}

func (a *app) replaceThere(ctx context.Context, r replacement) error {
	is, err := r.expected(ctx, a)
	if err != nil {
		return err
	}
	to := r.there.Replacing
	progress := a.progress("sending")
	defer progress.Done()
	done, err := to.Send(ctx, r.image, is.Blocks, r.report.Head == restore.HeadRaw, func(n int64) { progress.Set(n, r.report.Bytes, "") })
	progress.Done()
	if err != nil {
		return r.settle(ctx, err)
	}
	if !r.c.restart {
		if err := to.Discard(ctx); err != nil {
			return r.inPlace(done, fmt.Errorf("remove what was there: %w", err), true)
		}
		a.restored(r.report, r.image, r.shown, r.there.Name, a.Now().Sub(r.begin))
		still := "the server still has the old files open and opens no others"
		if done.Held == 0 {
			still = "the server still has the old files open, and may write among the new ones"
		}
		a.notes([]string{still + ": restart it now: " + to.RestartCommand()})
		return nil
	}
	if done.Held == 0 {
		a.notes([]string{"the server could not be kept from writing among the new files until it ends, which is a matter of seconds"})
	}
	if err := to.Restart(ctx); err != nil {
		return r.inPlace(done, err, true)
	}
	note, err := to.Served(ctx, is)
	if err != nil {
		return r.inPlace(done, err, false)
	}
	if r.report.Served = note == ""; !r.report.Served {
		a.notes([]string{note})
	}
	if err := to.Discard(ctx); err != nil {
		return r.inPlace(done, fmt.Errorf("remove what was there: %w", err), false)
	}
	a.restored(r.report, r.image, r.shown, r.there.Name, a.Now().Sub(r.begin))
	return nil
}

// expected is what the server should serve afterwards.
func (r replacement) expected(ctx context.Context, a *app) (is Replaced, err error) {
	is.Added = r.report.Added
	come := map[string]bool{}
	for _, b := range r.report.Added {
		is.Blocks = append(is.Blocks, b.ULID)
		come[b.ULID] = true
	}
	for _, b := range r.there.Target.Blocks {
		if !come[b.ULID] {
			is.Gone = append(is.Gone, b.ULID)
		}
	}
	if r.report.Head != restore.HeadRaw {
		return is, nil
	}
	inv, err := local.New(r.image, local.Options{Logger: a.logger()}).Inventory(ctx)
	if err != nil {
		return is, fmt.Errorf("look at what is sent: %w", err)
	}
	is.Series = inv.Head.Series
	return is, nil
}

// settleTime is how long is asked what became of a replacement, also after Ctrl-C.
const settleTime = 30 * time.Second

// settle says after an error of Send what the data dir holds now.
func (r replacement) settle(ctx context.Context, err error) error {
	if _, told := errors.AsType[*wire.Failure](err); told {
		return err // the agent has put back what was there, or says where it is
	}
	look, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTime)
	defer cancel()
	done, lerr := r.there.Replacing.Settle(look)
	switch {
	case lerr != nil:
		return hinted(&codedError{code: Failed, err: fmt.Errorf("%w (whether the dump took the place of what was there is not known)", err)},
			"look into %s: a directory promdump-replaced-… holds what was there; if its promdump.json says done, the dump is in place and the server must be restarted: %s; else run the restore again",
			r.there.Name, r.there.Replacing.RestartCommand())
	case done != nil:
		return r.inPlace(done, err, true)
	}
	return hinted(&codedError{code: codeOf(err), err: fmt.Errorf("%w (%s is as it was)", err, r.there.Name)}, "%s",
		"is the pod there, and does it have memory left? Then run the restore again")
}

// inPlace says after an error what is left to do.
func (r replacement) inPlace(done *wire.Restored, err error, restart bool) error {
	var todo []string
	if restart {
		todo = append(todo, "restart the server now: "+r.there.Replacing.RestartCommand())
	}
	code := codeOf(err)
	if code == Incomplete {
		code = Failed
	}
	aside := r.there.Target.Dir + "/" + done.Aside
	todo = append(todo, "remove "+aside+" when it serves what was restored; until then it can be put back")
	if hint := hintOf(err); hint != "" && codeOf(err) != Incomplete { // that one says that all is as it was
		todo = append(todo, hint)
	}
	return hinted(&codedError{code: code, err: fmt.Errorf("%w (the dump is in place, whole; what was there is in %s)", err, aside)}, "%s", strings.Join(todo, "; "))
}
