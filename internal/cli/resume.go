package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"

	"github.com/promdump/promdump/internal/archive"
	"github.com/promdump/promdump/internal/dump"
	"github.com/promdump/promdump/internal/fsutil"
	"github.com/promdump/promdump/internal/term"
	"github.com/promdump/promdump/internal/wire"
)

// unfinished returns err with a hint how to resume the dump. missing is the estimated number
// of bytes that the rest of the dump takes, or 0.
func unfinished(err error, out *output, missing int64) error {
	code := codeOf(err)
	full := fsutil.IsNoSpace(err)
	if full || code == Failed {
		code = Incomplete
	}
	hint := fmt.Sprintf("the same command with --resume -t %s, and without times and --match, continues from there", out.name)
	switch {
	case full && hintOf(err) == hintTempDir:
		hint = hintTempDir + "; " + hint
	case full && missing > 0:
		hint = fmt.Sprintf("make room, about %s more are needed; then %s", term.Bytes(missing), hint)
	case full:
		hint = "make room; then " + hint
	case hintOf(err) != "" && (code != Incomplete || stops(err)):
		hint = hintOf(err) + "; then " + hint
	}
	if lost, ok := errors.AsType[interface {
		error
		CauseHint() string
	}](err); ok && lost.CauseHint() != "" { // may be long: it can hold a Role
		hint += "; before that: " + lost.CauseHint()
	}
	return &codedError{code, hinted(fmt.Errorf("%w; what is here stays in %s", err, partial(out.name)), "%s", hint)}
}

// stops reports whether the same command alone does not help.
func stops(err error) bool {
	e, ok := errors.AsType[interface {
		error
		Stops() bool
	}](err)
	return ok && e.Stops()
}

// missing estimates how many bytes of a dump are still to be written.
func missing(r dump.Report) int64 {
	if r.Plan == nil || r.BytesRead <= 0 || r.Plan.Bytes <= r.BytesRead {
		return 0
	}
	written := r.BytesWritten - r.Reused
	return int64(float64(written) / float64(r.BytesRead) * float64(r.Plan.Bytes-r.BytesRead))
}

// checkPartial refuses to start over if an earlier command left a partial file that can
// be resumed, or one that is not known.
func (a *app) checkPartial(name string, force bool) error {
	if err := a.checkDumpLeft(name, force); !errors.Is(err, archive.ErrNotDump) {
		return err
	}
	return usagef("remove it if it is not needed, or replace it with --force", "%s exists already and is not overwritten", partial(name))
}

// checkDumpLeft refuses to write over a dump that can be resumed. It returns
// [archive.ErrNotDump] if something else is there.
func (a *app) checkDumpLeft(name string, force bool) error {
	if force || name == "-" {
		return nil
	}
	file := partial(destination(name))
	if fi, err := os.Stat(file); err != nil || !fi.Mode().IsRegular() {
		return nil // there is nothing to resume
	}
	f, err := openPartial(file, os.O_RDONLY)
	if busy, ok := errors.AsType[*busyError](err); ok {
		return busy
	}
	if err != nil {
		return nil // opening it for writing will say why
	}
	defer f.Close()
	r, err := archive.NewReader(f)
	if err == nil {
		err = r.Close()
	}
	if errors.Is(err, archive.ErrIncomplete) || errors.Is(err, archive.ErrDamaged) {
		return nil // not even what was asked for is there
	}
	if errors.Is(err, archive.ErrNotDump) {
		return err
	}
	return usagef(fmt.Sprintf("resume it with: %s, without times and --match; or start over with --force", a.resumeCommand(name)),
		"%s exists: it holds what an unfinished dump received", partial(name))
}

func (a *app) resumeCommand(name string) string {
	return fmt.Sprintf("%s --resume -t %s", a.Name, shellWord(name))
}

// openResumed opens what an earlier command could not finish, and takes what was asked
// for from there.
func (a *app) openResumed(c *dumpConfig) (_ *output, err error) {
	final := destination(c.file)
	name := partial(final)
	f, err := openPartial(name, os.O_RDWR)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, usagef("without --resume it begins at the beginning", "there is no %s to resume", name)
	}
	if busy, ok := errors.AsType[*busyError](err); ok {
		return nil, busy
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", name, unnamed(err))
	}
	out := &output{to: f, name: c.file, file: f, temp: name, final: final, force: c.force, resume: true, synced: newSyncer(f)}
	defer func() {
		if err != nil {
			err = errors.Join(err, out.release())
		}
	}()
	progress := a.progress("checking")
	k, err := dump.ReadKept(&progressReader{f, progress, 0, sizeOf(f)})
	progress.Done()
	if errors.Is(err, archive.ErrIncomplete) {
		return nil, usagef("dump again, without --resume and with the times", "nothing in %s can be resumed: %v", name, err)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if err := c.sameFlags(name, k); err != nil {
		return nil, err
	}
	s := k.Manifest.Selection
	matchers, err := compileMatch(s.Matchers)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	c.kept, c.selectors, c.compression = k, s.Matchers, k.Compression
	c.request.Selection = wire.Selection{MinTime: s.MinTime, MaxTime: s.MaxTime, Matchers: matchers}
	c.request.Head, c.request.WholeBlocks = wire.HeadMode(s.Head), s.WholeBlocks
	return out, nil
}

// sameFlags refuses flags that say something else than the first command.
func (c *dumpConfig) sameFlags(name string, k *dump.Kept) error {
	s := k.Manifest.Selection
	for _, f := range []struct{ flag, began, now string }{
		{"head", s.Head, string(c.request.Head)},
		{"whole-blocks", strconv.FormatBool(s.WholeBlocks), strconv.FormatBool(c.request.WholeBlocks)},
		{"compression", string(k.Compression), string(c.compression)},
	} {
		if c.given(f.flag) && f.began != f.now {
			return usagef(fmt.Sprintf("leave --%s out, or start over with --force, with the times", f.flag), "%s was begun with --%s=%s", name, f.flag, f.began)
		}
	}
	return nil
}

func sizeOf(f *os.File) int64 {
	fi, err := f.Stat()
	if err != nil {
		return 0
	}
	return fi.Size()
}

// progressReader shows how much of a file is read.
type progressReader struct {
	r        io.Reader
	progress *term.Progress
	done, of int64
}

func (r *progressReader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	r.done += int64(n)
	r.progress.Set(r.done, r.of, "")
	return n, err
}

// resumed says how much of an unfinished dump was reused.
func (a *app) resumed(c dumpConfig, r dump.Report) {
	if c.kept == nil {
		return
	}
	a.summary("resumed: %s of %s were reused (%s), %s at its end were read again",
		term.Bytes(r.Reused), partial(c.file), term.Counted(r.ReusedBlocks, "block", "blocks"), term.Bytes(c.kept.Size-r.Reused))
}
