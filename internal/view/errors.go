package view

import (
	"fmt"

	"github.com/promdump/promdump/internal/archive"
	"github.com/promdump/promdump/internal/block"
)

// DamagedError reports a block of a dump that Prometheus cannot load.
type DamagedError struct{ Findings []block.Finding }

func (e *DamagedError) Error() string {
	s := "the dump is damaged: " + e.Findings[0].String()
	if n := block.Count(e.Findings) - 1; n > 0 {
		s += fmt.Sprintf(" (and %d more)", n)
	}
	return s
}

// Is reports that it is an [archive.ErrDamaged], as damage of the archive is.
func (e *DamagedError) Is(target error) bool { return target == archive.ErrDamaged }

// ExitCode returns the exit code of a failed verification.
func (e *DamagedError) ExitCode() int { return 4 }

// Hint returns what the user can do.
func (e *DamagedError) Hint() string { return "promdump verify FILE lists all errors" }

// Error is an error with an exit code and a hint.
type Error struct {
	Err  error
	Code int    // exit code
	Tip  string // the hint
}

func (e *Error) Error() string { return e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// ExitCode returns the exit code.
func (e *Error) ExitCode() int { return e.Code }

// Hint returns what the user can do.
func (e *Error) Hint() string { return e.Tip }
