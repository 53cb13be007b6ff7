//go:build !linux

package agent

import (
	"bufio"
	"errors"
	"os"
	"time"

	"github.com/promdump/promdump/internal/wire"
)

// Meeting is where a client finds the agent again. There is none outside of Linux.
type Meeting struct {
	Wait time.Duration
	key  string
}

var errNoMeeting = errors.New("an agent waits on Linux alone")

// NewMeeting always fails.
func NewMeeting(time.Duration, string) (*Meeting, error) { return nil, errNoMeeting }

// Place is empty.
func (m *Meeting) Place() wire.Place { return wire.Place{} }

// Close does nothing.
func (m *Meeting) Close() {}

func (m *Meeting) accept(*link) {}

func (m *Meeting) first(p Process) *connection {
	return &connection{in: bufio.NewReader(p.In), out: p.Out, errs: p.Err, close: func() {}}
}

// NoAgentError reports that no agent waits under a name.
type NoAgentError struct{ Err error }

func (e *NoAgentError) Error() string { return e.Err.Error() }
func (e *NoAgentError) Unwrap() error { return e.Err }

// Attach always fails.
func Attach(string, ...*os.File) error { return &NoAgentError{errNoMeeting} }
