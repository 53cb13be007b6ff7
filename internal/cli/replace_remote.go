package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/promdump/promdump/internal/restore"
	"github.com/promdump/promdump/internal/term"
	"github.com/promdump/promdump/internal/wire"
)

// settledNotes are of earlier replacements that were killed, and are whole now.
func settledNotes(dir string, settled []wire.Aside) (notes []string) {
	for _, a := range settled {
		if a.Done {
			notes = append(notes, fmt.Sprintf("An earlier restore --replace was killed when its dump was in place: "+
				"%s holds that dump, whole; what was there before is removed now.", dir))
			continue
		}
		notes = append(notes, fmt.Sprintf(
			"An earlier restore --replace was killed half-way: %s holds again what it held before, whole.", dir))
	}
	return notes
}

// asideNotes are of what earlier replacements left.
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
func printRestart(w io.Writer, c restoreConfig, found FoundTarget) error {
	var text string
	switch {
	case c.restart:
		text = "\nThen the pod is deleted, and what was there is removed when the next one serves what was restored."
	case c.spec.Replace:
		text = "\nThen the server must be restarted: " + found.RestartCommand()
	default:
		return nil
	}
	_, err := fmt.Fprintln(w, term.Printable(text))
	return err
}

// replacement is one that was prepared.
type replacement struct {
	c     restoreConfig
	to    FoundTarget
	p     *restore.Prepared
	shown string // names the dump
	begin time.Time
}

func (a *app) replaceRemote(ctx context.Context, r replacement) error {
	is, err := r.expected(ctx)
	if err != nil {
		return err
	}
	report, err := r.p.Run(ctx)
	if _, refused := errors.AsType[*restore.RefusedError](err); refused {
		return err
	}
	if err != nil {
		return r.settle(ctx, err)
	}
	is.Added = report.Added
	done := report.Result
	if !r.c.restart {
		if err := r.to.Discard(ctx); err != nil {
			return r.inPlace(done, fmt.Errorf("remove what was there: %w", err), true)
		}
		a.restored(report, r.shown, r.to.Name, a.Now().Sub(r.begin))
		still := "the server still has the old files open and opens no others"
		if done.Held == 0 {
			still = "the server still has the old files open, and may write among the new ones"
		}
		a.notes([]string{still + ": restart it now: " + r.to.RestartCommand()})
		return nil
	}
	if done.Held == 0 {
		a.notes([]string{"the server could not be kept from writing among the new files until it ends, which is a matter of seconds"})
	}
	if err := r.to.Restart(ctx); err != nil {
		return r.inPlace(done, err, true)
	}
	note, err := r.to.Served(ctx, is)
	if err != nil {
		return r.inPlace(done, err, false)
	}
	if report.Served = note == ""; !report.Served {
		a.notes([]string{note})
	}
	if err := r.to.Discard(ctx); err != nil {
		return r.inPlace(done, fmt.Errorf("remove what was there: %w", err), false)
	}
	a.restored(report, r.shown, r.to.Name, a.Now().Sub(r.begin))
	return nil
}

// expected is what the server should serve afterwards, but for the blocks.
func (r replacement) expected(ctx context.Context) (is Expected, err error) {
	is.Restarted = true
	come := map[string]bool{}
	for _, b := range r.p.Blocks {
		come[b.ULID] = true
	}
	for _, b := range r.p.Target.Blocks {
		if !come[b.ULID] {
			is.Gone = append(is.Gone, b.ULID)
		}
	}
	if r.p.Head == restore.HeadRaw {
		is.Series, err = r.p.HeadSeries(ctx)
	}
	return is, err
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
	done, lerr := r.to.Settle(look)
	switch {
	case lerr != nil:
		return hinted(&codedError{code: Failed, err: fmt.Errorf("%w (whether the dump took the place of what was there is not known)", err)},
			"look into %s: a directory promdump-replaced-… holds what was there; if its promdump.json says done, the dump is in place and the server must be restarted: %s; else run the restore again",
			r.to.Name, r.to.RestartCommand())
	case done != nil:
		return r.inPlace(done, err, true)
	}
	return hinted(&codedError{code: codeOf(err), err: fmt.Errorf("%w (%s is as it was)", err, r.to.Name)}, "%s",
		"is the pod there, and does it have memory left? Then run the restore again")
}

// inPlace says after an error what is left to do.
func (r replacement) inPlace(done *wire.Restored, err error, restart bool) error {
	var todo []string
	if restart {
		todo = append(todo, "restart the server now: "+r.to.RestartCommand())
	}
	code := codeOf(err)
	if code == Incomplete {
		code = Failed
	}
	aside := r.p.Target.Dir + "/" + done.Aside
	todo = append(todo, "remove "+aside+" when it serves what was restored; until then it can be put back")
	if hint := hintOf(err); hint != "" && codeOf(err) != Incomplete { // that one says that all is as it was
		todo = append(todo, hint)
	}
	return hinted(&codedError{code: code, err: fmt.Errorf("%w (the dump is in place, whole; what was there is in %s)", err, aside)}, "%s", strings.Join(todo, "; "))
}
