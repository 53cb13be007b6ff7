// Package pod is the source for a Prometheus in a container that takes commands:
// it uploads the agent, starts it, and listens. See [Exec] for all that it needs
// of Kubernetes.
//
// The agent comes through a shell, which finds it a place and removes it whatever
// happens; where there is none, through tar. Of a tar alone nobody can ask what a
// directory is good for: it is tried, and what came there in vain is removed by
// tar too.
//
// A stream that breaks is begun again where it stopped, with a new agent: whole
// blocks at their byte, cut ones at their series, the head from its beginning.
// The files of a whole block are passed on while they come; a block that was compacted
// away meanwhile is taken back by a Forget, and what replaced it is sent.
//
// What is not promised: that a dump over several streams shows one moment. What
// was told is what was there when it was told. Nor, where there is just tar, that
// a client which is killed in the part of a second between upload and start leaves
// no file; the next agent in that directory removes it.
package pod

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/promdump/promdump/internal/retry"
	"github.com/promdump/promdump/internal/wire"
)

// Exec runs a command in the container until it ends, or ctx does. That it gives
// no error says nothing about what went through its streams. An [AgentError] says
// that there is no such command or that it cannot be run, an [ExitError] that it
// ended so.
type Exec func(ctx context.Context, command []string, s Streams) error

// Streams are those of a command.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
	Much     bool // many bytes go through them
}

// Options of a Source.
type Options struct {
	Name      string   // names the source for a person
	Exec      Exec     // into the container
	Agent     Agents   // the program for its machine
	Installed string   // the agent that the container has already; empty: it is uploaded
	Dirs      []string // the data dir is the first of these that is one

	// Volumes are directories of the container that may be writable. A shell finds
	// them by itself; where there is none these are tried.
	Volumes  []string
	InMemory []string // those of Volumes that are in memory

	// Check is called each time before anything is uploaded; nil: nothing is checked.
	// An error keeps it from that. If tight is true, the file goes to a disk where
	// there is one: memory is short.
	Check func(ctx context.Context) (tight bool, err error)

	// Alive is called after a stream broke, and again before the next one is begun;
	// nil: it is not known. An error says that the container is not the one any more
	// that it was, and ends the work.
	Alive func(ctx context.Context) error

	Codec  wire.Codec
	Limits wire.Limits
	Debug  bool // the agent tells what it decides

	// Wait is how long an agent that reads waits for us when the connection broke, and how
	// long a container that cannot be reached is tried. 0: the agent ends then, another one
	// is uploaded, and it is tried for 90 seconds.
	Wait time.Duration

	// Note tells a person what is not as it should be, while it happens.
	Note   func(string)
	Logger *slog.Logger

	// Upload reports how many bytes of the agent have been sent; it may be nil. Each
	// upload begins with 0 and ends with the total, also when it fails.
	Upload func(done, total int64)

	times times // tests wait less
}

// Agents gives the agent for a machine, as uname -m names it. It is called once
// for each upload.
type Agents func(ctx context.Context, machine string) (gzip []byte, size int64, err error)

// times are how long is waited for what.
type times struct {
	stall   time.Duration   // a stream without a byte for so long is dead
	silence time.Duration   // the same of an agent that waits: another connection costs little
	ping    time.Duration   // between the lines that tell the agent that we live
	limit   time.Duration   // a container that cannot be reached for so long is given up, if Wait is 0
	answer  time.Duration   // the last try is given so long of it, and a try is never given less
	pause   []time.Duration // before the retries, the last one again and again
	anew    time.Duration   // least pause before another agent is uploaded
	tries   int             // attempts in a row that may reach the container and get no further
}

// A link that is dead from some moment on is given up after stall + limit, two minutes, and
// some seconds for the last questions: the one is until it shows, the other all retries.
var usual = times{
	stall:   30 * time.Second,
	silence: 15 * time.Second,
	ping:    15 * time.Second,
	limit:   90 * time.Second,
	answer:  10 * time.Second,
	pause:   []time.Duration{0, time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 15 * time.Second},
	anew:    time.Second,
	tries:   8,
}

// Source is a data dir in a container.
type Source struct {
	o       Options
	noShell atomic.Bool // it is known that there is none
	hasTar  atomic.Bool // it is known that there is one
	crashed atomic.Bool // an agent that came by tar could not be run once
	worked  atomic.Bool // a session has succeeded: the pod and the rights to it are there
}

// New makes a source. Nothing is done until it is read.
func New(o Options) *Source {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Note == nil {
		o.Note = func(string) {}
	}
	if o.times.stall == 0 {
		o.times = usual
	}
	return &Source{o: o}
}

// String names the container.
func (s *Source) String() string { return s.o.Name }

// Inventory implements source.Source.
func (s *Source) Inventory(ctx context.Context) (inv *wire.Inventory, err error) {
	err = s.again(ctx, func(ctx context.Context, tries *retry.Budget) (bool, error) {
		return false, s.talk(ctx, tries, wire.Call{Do: wire.DoInventory}, func(_ *conversation, r *wire.Reader) error {
			inv = &wire.Inventory{}
			return r.Answer(inv)
		})
	})
	return inv, err
}

// Read implements source.Source.
func (s *Source) Read(ctx context.Context, req wire.Request) iter.Seq2[wire.Message, error] {
	return func(yield func(wire.Message, error) bool) {
		if err := s.read(ctx, req, yield); err != nil && !errors.Is(err, errLeft) {
			yield(nil, err)
		}
	}
}

func (s *Source) read(ctx context.Context, req wire.Request, yield func(wire.Message, error) bool) error {
	ctx, cancel := context.WithCancel(ctx)
	h := &handover{ctx: ctx, items: make(chan item)}
	st := &story{req: req, out: h}
	if req.Resume != nil {
		st.have = req.Resume.Have
	}
	done := make(chan error, 1)
	go func() {
		defer close(h.items)
		err := s.again(ctx, func(ctx context.Context, tries *retry.Budget) (bool, error) {
			before := st.got
			err := s.talk(ctx, tries, wire.Call{Do: wire.DoRead, Request: st.request()}, st.listen)
			return st.further(before), err
		})
		st.abandon()
		done <- err
	}()
	left := h.consume(yield)
	cancel()
	if err := <-done; !left {
		return err
	}
	return errLeft
}

// errLeft: who asked does not want more.
var errLeft = errors.New("left")

// budget returns the retries of one operation.
func (s *Source) budget() *retry.Budget {
	limit := s.o.Wait
	if limit <= 0 {
		limit = s.o.times.limit
	}
	return &retry.Budget{Limit: limit - min(s.o.times.answer, limit/2), Tries: s.o.times.tries, Pauses: s.o.times.pause}
}

// left is how much time is left until the last try is given up.
func (s *Source) left(tries *retry.Budget) time.Duration { return tries.Left() + s.o.times.answer }

// again tries until f succeeds, until its error is one that no try mends, or until the
// budget is used up. f returns whether it got further.
func (s *Source) again(ctx context.Context, f func(context.Context, *retry.Budget) (further bool, err error)) error {
	tries := s.budget()
	for first := true; ; first = false {
		further, err := f(ctx, tries)
		if err == nil {
			s.worked.Store(true)
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if further {
			tries.Further()
			first = false
		}
		if final(err, first, s.worked.Load()) || stops(err) {
			return err
		}
		failed := tries.Failed() + 1
		if !forGood(err) {
			more, dead := s.retry(ctx, tries, err, max(s.o.times.anew, min(retry.After(err), longestPause)))
			if dead != nil {
				return dead
			}
			if more {
				continue
			}
		}
		if dead := s.alive(ctx); dead != nil {
			return dead
		}
		return &LostError{Tries: failed, Err: err}
	}
}

// retry waits until the next try, and looks whether the container is still the same, since
// nothing may be started in another. If more is false the budget is used up.
func (s *Source) retry(ctx context.Context, tries *retry.Budget, err error, least time.Duration) (more bool, dead error) {
	pause, ok := tries.Next(least)
	if !ok {
		return false, nil
	}
	s.o.Logger.Debug("stream broke", "error", err, "try", tries.Failed(), "pause", pause)
	if pause > 0 {
		s.o.Note(fmt.Sprintf("%v: going on in %v (try %d, gives up in %v)",
			err, pause.Round(time.Millisecond), tries.Failed(), s.left(tries).Round(time.Second)))
	}
	if err := retry.Sleep(ctx, pause); err != nil {
		return false, err
	}
	return true, s.alive(ctx)
}

func (s *Source) alive(ctx context.Context) error {
	if s.o.Alive == nil {
		return nil
	}
	return s.o.Alive(ctx)
}

// stops reports whether nothing may be tried again in this container, because of how its
// server is.
func stops(err error) bool {
	e, ok := errors.AsType[interface {
		error
		Stops() bool
	}](err)
	return ok && e.Stops()
}

// longestPause bounds the pause that a server asks for.
const longestPause = time.Minute

// final reports whether an error is not of a connection that was lost: the agent itself
// says what is wrong, the fault is on this machine, or the very first try is refused for
// a reason that is known. worked says that an earlier session succeeded.
func final(err error, first, worked bool) bool {
	_, told := errors.AsType[*wire.Failure](err)
	_, version := errors.AsType[*wire.VersionError](err)
	_, ours := errors.AsType[*localError](err)
	if told || version || ours {
		return true
	}
	switch retry.Of(err) {
	case retry.No:
		return first
	case retry.AfterSuccess:
		return first && !worked
	case retry.Yes:
		return false
	}
	_, known := errors.AsType[interface {
		error
		ExitCode() int
		Hint() string
	}](err)
	return first && known
}

// forGood reports whether the connection cannot be made again: what it led to is gone
// and stays gone, or the cause stays until a person removes it.
func forGood(err error) bool {
	gone, ok := errors.AsType[interface {
		error
		Final() bool
	}](err)
	return ok && gone.Final() || retry.Of(err) == retry.No
}

// localError is of this machine or of what takes the story, not of the stream.
type localError struct{ err error }

func (e *localError) Error() string { return e.err.Error() }
func (e *localError) Unwrap() error { return e.err }

// LostError says that the stream broke again and again.
type LostError struct {
	Tries int // in a row, without a byte more
	Err   error
}

func (e *LostError) Error() string {
	if e.Tries == 1 {
		return fmt.Sprintf("the connection to the container is lost: %v", e.Err)
	}
	return fmt.Sprintf("the connection to the container is lost (%d tries): %v", e.Tries, e.Err)
}

func (e *LostError) Unwrap() error { return e.Err }

// ExitCode is that of the command: what came before is incomplete.
func (e *LostError) ExitCode() int { return 3 }

// Killed reports whether the last stream ended because something killed the agent.
func (e *LostError) Killed() bool {
	end, ok := errors.AsType[*ExitError](e.Err)
	return ok && end.Code == 128+9
}

// Hint returns what to do about it.
func (e *LostError) Hint() string {
	if e.Killed() {
		return "something killed the agent, most likely the kernel for lack of memory: raise the container's memory limit"
	}
	if cause := e.CauseHint(); cause != "" {
		return cause
	}
	return "the Prometheus is as it was; is the pod there? Try again, or take less at once"
}

// CauseHint returns what to do about the error that ended the last try; empty: it does not
// say.
func (e *LostError) CauseHint() string {
	h, ok := errors.AsType[interface {
		error
		Hint() string
	}](e.Err)
	if !ok {
		return ""
	}
	return h.Hint()
}
