package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/promdump/promdump/internal/dump"
	"github.com/promdump/promdump/internal/wire"
)

// unfinished says where what was received stays.
func unfinished(err error, out *output) error {
	first, after := "", ""
	if e, ok := errors.AsType[interface {
		error
		Stops() bool
		Hint() string
	}](err); ok && e.Stops() { // then the same command alone does not help
		first = e.Hint() + "; then "
	}
	if lost, ok := errors.AsType[interface {
		error
		CauseHint() string
	}](err); ok && lost.CauseHint() != "" { // may be long: it can hold a Role
		after = "; before that: " + lost.CauseHint()
	}
	return &codedError{Incomplete, hinted(fmt.Errorf("%w; what is here stays in %s", err, partial(out.name)),
		"%sthe same command with --resume -t %s, and without times and --match, goes on from there%s", first, out.name, after)}
}

// checkPartial refuses to start over if an earlier command left a partial file that can
// be resumed: if this dump is interrupted too, its partial file would replace that one.
func (a *app) checkPartial(c dumpConfig) error {
	if !a.Resumes || c.resume || c.force || c.file == "-" {
		return nil
	}
	name := partial(c.file)
	if fi, err := os.Stat(partial(destination(c.file))); err != nil || !fi.Mode().IsRegular() {
		return nil //nolint:nilerr // there is nothing to go on with
	}
	return usagef(fmt.Sprintf("resume it with: %s --resume -t %s; or start over with --force", a.Name, shellWord(c.file)),
		"%s exists: it holds what an unfinished dump received", name)
}

// readKept reads what an earlier command could not finish, and takes what was
// asked for from there.
func (c *dumpConfig) readKept() (*dump.Kept, error) {
	name := partial(destination(c.file))
	k, err := dump.ReadKept(func() (io.ReadCloser, error) { return os.Open(name) })
	if errors.Is(err, fs.ErrNotExist) {
		return nil, usagef("without --resume it begins at the beginning", "there is no %s to go on with", name)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	s := k.Manifest.Selection
	matchers, err := compileMatch(s.Matchers)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	c.selectors = s.Matchers
	c.request.Selection = wire.Selection{MinTime: s.MinTime, MaxTime: s.MaxTime, Matchers: matchers}
	c.request.Head, c.request.WholeBlocks = wire.HeadMode(s.Head), s.WholeBlocks
	return k, nil
}
