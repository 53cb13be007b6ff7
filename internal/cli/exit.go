package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/promdump/promdump/internal/archive"
	"github.com/promdump/promdump/internal/datadir"
	"github.com/promdump/promdump/internal/dump"
	"github.com/promdump/promdump/internal/fsutil"
	"github.com/promdump/promdump/internal/restore"
)

// ExitCode is how a program tells another how it went.
type ExitCode int

const (
	Done         ExitCode = 0
	Failed       ExitCode = 1
	Usage        ExitCode = 2
	Incomplete   ExitCode = 3
	Unverified   ExitCode = 4
	NoTarget     ExitCode = 10
	NotPermitted ExitCode = 11
	NoAgent      ExitCode = 12
	Interrupted  ExitCode = 130
	Piped        ExitCode = 141
)

// Meaning is a line of the table of exit codes.
type Meaning struct {
	Code ExitCode
	Name string
	Text string
}

// ExitCodes is the table. docs/exit-codes.md and the help say the same.
func ExitCodes() []Meaning {
	return []Meaning{
		{Done, "done", "The command did everything that it was asked to do."},
		{Failed, "error", "The command failed; the message says why. An empty selection is an error too."},
		{Usage, "usage", "The command line is wrong. Nothing was read or written."},
		{Incomplete, "incomplete", "The dump lacks its end: the file that was read was cut, " +
			"or the dump that was written could not be finished; its FILE.partial can be resumed."},
		{Unverified, "verification failed", "The dump is damaged: a checksum does not match, " +
			"or Prometheus cannot read one of its blocks. " +
			"With dump --strict: the dump was written, but lacks data that could not be read."},
		{NoTarget, "no such target", "The data directory, pod or server was not found."},
		{NotPermitted, "not permitted", "File permissions or the rules of the cluster do not allow it."},
		{NoAgent, "agent could not run", "The agent could not run in the container."},
		{Interrupted, "interrupted", "Ctrl-C or SIGTERM stopped the command. " +
			"What it had written was removed."},
		{Piped, "reader gone", "The reader of stdout, such as head, exited before the end. " +
			"For a dump to stdout the code is 3."},
	}
}

func exitCodesTopic() *cobra.Command {
	var b strings.Builder
	b.WriteString("Exit codes:\n\n")
	for _, m := range ExitCodes() {
		fmt.Fprintf(&b, "  %3d  %s: %s\n", m.Code, m.Name, m.Text)
	}
	return &cobra.Command{Use: "exit-codes", Short: "Explain the exit codes", Long: strings.TrimSuffix(b.String(), "\n")}
}

// codeOf finds the exit code of an error.
func codeOf(err error) ExitCode {
	if e, ok := errors.AsType[*codedError](err); ok {
		return e.code
	}
	_, usage := errors.AsType[*usageError](err)
	_, exists := errors.AsType[*existsError](err)
	_, busy := errors.AsType[*busyError](err)
	_, other := errors.AsType[*dump.OtherError](err)
	_, damaged := errors.AsType[*restore.VerifyError](err)
	_, loss := errors.AsType[*dump.LossError](err)
	switch {
	case err == nil:
		return Done
	case usage, exists, busy, other:
		return Usage
	case errors.Is(err, archive.ErrIncomplete):
		return Incomplete
	case damaged, loss, errors.Is(err, archive.ErrDamaged):
		return Unverified
	case errors.Is(err, datadir.ErrNotDataDir):
		return NoTarget
	case errors.Is(err, fs.ErrPermission):
		return NotPermitted
	}
	if code := serverCode(err); code != Done {
		return code
	}
	// Errors of other packages may know theirs.
	if e, ok := errors.AsType[interface {
		error
		ExitCode() int
		Hint() string
	}](err); ok {
		return ExitCode(e.ExitCode())
	}
	return Failed
}

// codedError is an error whose exit code does not follow from what it is.
type codedError struct {
	code ExitCode
	err  error
}

func (e *codedError) Error() string { return e.err.Error() }
func (e *codedError) Unwrap() error { return e.err }

// usageError is a wrong command line.
type usageError struct {
	err  error
	hint string
}

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }
func (e *usageError) Hint() string  { return e.hint }

// UsageError is a wrong command line, for programs with flags of their own.
func UsageError(hint, format string, args ...any) error { return usagef(hint, format, args...) }

func usagef(hint, format string, args ...any) error {
	return &usageError{err: fmt.Errorf(format, args...), hint: hint}
}

// hintError knows what to do about an error.
type hintError struct {
	err  error
	hint string
}

func (e *hintError) Error() string { return e.err.Error() }
func (e *hintError) Unwrap() error { return e.err }
func (e *hintError) Hint() string  { return e.hint }

func hinted(err error, format string, args ...any) error {
	return &hintError{err: err, hint: fmt.Sprintf(format, args...)}
}

// hintOf finds the hint of an error. Errors of other packages may have one too.
func hintOf(err error) string {
	if e, ok := errors.AsType[interface {
		error
		Hint() string
	}](err); ok && e.Hint() != "" {
		return e.Hint()
	}
	if e, ok := errors.AsType[*restore.RefusedError](err); ok {
		return refusedHint(e)
	}
	if hint := serverHint(err); hint != "" {
		return hint
	}
	if errors.Is(err, archive.ErrNotDump) {
		return "give a file that promdump wrote; what it holds is said by: promdump meta FILE"
	}
	if errors.Is(err, archive.ErrIncomplete) {
		return "the file was cut in transit: get it again; a dump that was not finished, FILE.partial, is resumed with " +
			"--resume -t FILE"
	}
	if errors.Is(err, archive.ErrDamaged) {
		return "get the file again from its source; promdump verify FILE lists what is wrong with this one"
	}
	if _, ok := errors.AsType[*dump.OtherError](err); ok {
		return "resume it with the data that it is of, read the same way, or start over with --force, with the times"
	}
	if hint := limitHint(err); hint != "" {
		return hint
	}
	if _, ok := errors.AsType[*dump.LossError](err); ok {
		return "the dump has all that can be read; without --strict this is a note, and the exit code is 0"
	}
	if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) {
		return "a shorter range needs fewer files; or raise the limit of open files (ulimit -n)"
	}
	if fsutil.IsNoSpace(err) {
		return hintTempDir
	}
	return ""
}

const hintTempDir = "--temp-dir names another place for temporary files"

// errInterrupted replaces "context canceled", which says nothing to a person, but
// keeps a message that says what was left behind.
func errInterrupted(err error) error {
	if e, ok := errors.AsType[*codedError](err); ok {
		return fmt.Errorf("interrupted: %w", e)
	}
	return errors.New("interrupted")
}
