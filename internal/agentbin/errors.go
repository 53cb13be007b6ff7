package agentbin

import (
	"errors"
	"fmt"
)

// Error says why there is no agent.
type Error struct {
	err  error
	hint string
}

func (e *Error) Error() string { return e.err.Error() }
func (e *Error) Unwrap() error { return e.err }
func (e *Error) Hint() string  { return e.hint }

// ExitCode is that of: the agent could not run.
func (e *Error) ExitCode() int { return 12 }

func fail(hint, format string, args ...any) *Error {
	return &Error{err: fmt.Errorf(format, args...), hint: hint}
}

var (
	// ErrDigest: what was downloaded is whole, and is not what it must be.
	ErrDigest = errors.New("the digest is wrong")

	errStalled = errors.New("nothing came for too long")
)

const (
	hintBuild   = "a release of kubectl-promdump has its agents in it, and `make build` makes one that has; --agent-url names an archive of agents"
	hintURL     = "--agent-url or PROMDUMP_AGENT_URL names another place for the agents"
	hintNetwork = "is there a way to it from here? HTTPS_PROXY and NO_PROXY are heeded; " + hintURL
	hintAgain   = "try again; " + hintURL
	hintRefused = "it was not used: somebody or something has changed it, or it is of another version; " + hintURL
	hintTemp    = "TMPDIR (on Windows TMP) names another directory"
)
