package plugin

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/promdump/promdump/internal/source/pod"
	"github.com/promdump/promdump/internal/wire"
)

// shortError reports that the container has too little memory for a method. Nothing of it
// was started there.
type shortError struct {
	via         via
	free, need  int64 // bytes
	limit, used int64
	what        string // in words
	others      []via  // methods that do not need that memory
}

func (e *shortError) Error() string {
	return e.what + ": nothing was uploaded, so that Prometheus is not killed"
}

// ExitCode is that of the command.
func (e *shortError) ExitCode() int { return 12 }

// Stops reports that trying again would take the memory that is left.
func (e *shortError) Stops() bool { return true }

// Hint names what works all the same.
func (e *shortError) Hint() string { return insteadHint(e.others) }

// agentShortError is the same, reported by the running agent.
type agentShortError struct {
	failure *wire.Failure
	others  []via
}

func (e *agentShortError) Error() string { return e.failure.Error() }
func (e *agentShortError) Unwrap() error { return e.failure }

// ExitCode is that of the agent's failure.
func (e *agentShortError) ExitCode() int { return e.failure.ExitCode() }

// Hint names what works all the same.
func (e *agentShortError) Hint() string { return insteadHint(e.others) }

// killedError reports that the kernel killed a process of the container that was not its
// first one: no restart shows it.
type killedError struct{ more []via }

func (e *killedError) Error() string {
	return "the kernel killed a process of the Prometheus container for lack of memory"
}

// ExitCode is that of the command: what it has is incomplete.
func (e *killedError) ExitCode() int { return 3 }

// Stops reports that nothing may be run in the container again.
func (e *killedError) Stops() bool { return true }

// Hint names what works all the same.
func (e *killedError) Hint() string { return insteadHint(e.more) }

// duringError adds which operation was running when something happened to the server.
type duringError struct {
	err  error
	what string
}

func (e *duringError) Error() string {
	if e.what == "" {
		return e.err.Error()
	}
	return e.err.Error() + " during " + e.what
}

func (e *duringError) Unwrap() error { return e.err }

// cutError is an error that came after the first data: what is here is incomplete, and
// can be gone on with.
type cutError struct {
	err  error
	hint string
}

func (e *cutError) Error() string { return e.err.Error() }
func (e *cutError) Unwrap() error { return e.err }

// ExitCode is that of the command.
func (e *cutError) ExitCode() int { return 3 }

// Stops reports that the same method would fail again.
func (e *cutError) Stops() bool { return true }

// Hint is that of the error.
func (e *cutError) Hint() string { return e.hint }

// cut is an error that came after the first data, if it is one that ends the reading in
// this container: what is here can be gone on with.
func cut(err error) error {
	e, ok := errors.AsType[interface {
		error
		Hint() string
	}](err)
	if ok && isShort(err) {
		return &cutError{err, e.Hint()}
	}
	return err
}

// isShort reports whether an error is that the container lacks memory.
func isShort(err error) bool {
	_, short := errors.AsType[*shortError](err)
	_, agent := errors.AsType[*agentShortError](err)
	return short || agent
}

// besides orders the methods that are left where memory is short: first what needs none
// of the server's at all.
func besides(list []way) []way {
	order := []via{viaDebug, viaRemote, viaPVC}
	left := slices.DeleteFunc(slices.Clone(list), func(w way) bool { return !slices.Contains(order, w.via) })
	slices.SortStableFunc(left, func(a, b way) int { return slices.Index(order, a.via) - slices.Index(order, b.via) })
	return left
}

// explain gives an error about memory the hints that fit this command.
func (w *choice) explain(err error) error {
	if w.guard == nil {
		return err
	}
	var others []via
	for _, v := range w.guard.others {
		if v != w.taken {
			others = append(others, v)
		}
	}
	if f, ok := errors.AsType[*wire.Failure](err); ok && f.Memory {
		return &agentShortError{f, others}
	}
	if lost, ok := errors.AsType[*pod.LostError](err); ok && lost.Killed() {
		return &cutError{err, "something killed the agent, most likely the kernel for lack of memory; " + insteadHint(others)}
	}
	return err
}

// isBlind reports whether the memory could not be checked.
func (g *guard) isBlind() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.blind
}

// instead describes a method that needs no memory of the server's container.
var instead = map[via]string{
	viaDebug:  "runs the agent in a container of its own",
	viaRemote: "asks the server itself",
	viaPVC:    "runs the agent in a pod of its own",
}

func insteadHint(others []via) string {
	var each []string
	for _, v := range others {
		each = append(each, fmt.Sprintf("--via %s %s", v, instead[v]))
	}
	if len(each) == 0 {
		return "raise the container's memory limit"
	}
	return strings.Join(each, ", ") + "; or raise the container's memory limit"
}

func mib(n int64) string   { return fmt.Sprintf("%d MiB", n>>20) }
func mibUp(n int64) string { return mib(n + 1<<20 - 1) }
