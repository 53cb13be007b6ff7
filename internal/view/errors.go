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

// Is matches archive.ErrDamaged: who opens a dump does not ask at which depth.
func (e *DamagedError) Is(target error) bool { return target == archive.ErrDamaged }

// ExitCode is that of a verification that failed.
func (e *DamagedError) ExitCode() int { return 4 }

// Hint returns what to do about it.
func (e *DamagedError) Hint() string { return "promdump verify FILE lists all of it" }

// Error is a problem that knows what to do about itself.
type Error struct {
	Err  error
	Code int // exit code
	Tip  string
}

func (e *Error) Error() string { return e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// ExitCode is what the process says about it.
func (e *Error) ExitCode() int { return e.Code }

// Hint returns what to do about it.
func (e *Error) Hint() string { return e.Tip }
