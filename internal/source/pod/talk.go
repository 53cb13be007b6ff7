package pod

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/promdump/promdump/internal/retry"
	"github.com/promdump/promdump/internal/wire"
)

// talk starts an agent, makes one call and lets listen read the answer. An agent whose
// answer may be long waits for us when the connection breaks.
func (s *Source) talk(ctx context.Context, tries *retry.Budget, call wire.Call, listen func(*conversation, *wire.Reader) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	wait := time.Duration(0)
	if call.Do == wire.DoRead {
		wait = s.o.Wait
	}
	c, err := s.start(ctx, tries, wait)
	if err != nil {
		return err
	}
	call.Version, call.Dirs, call.Codec, call.Limits, call.Debug = wire.Version, s.o.Dirs, s.o.Codec, s.o.Limits, s.o.Debug
	if err := wire.WriteCall(c.in, call); err != nil && !c.waits() {
		defer c.close()
		return c.explain(fmt.Errorf("send the request: %w", err))
	}
	l := s.newLink(ctx, tries, c, call)
	defer l.close()
	err = listen(c, wire.NewReader(l))
	if err != nil {
		if _, told := errors.AsType[*wire.Failure](err); told {
			l.received()
		}
		if l.err != nil {
			return l.err
		}
		return l.c.explain(err)
	}
	l.received()
	return nil
}

// conversation is with a command that runs in the container.
type conversation struct {
	cancel context.CancelFunc
	in     *io.PipeWriter
	out    *io.PipeReader
	said   *tail // on stderr
	stall  time.Duration
	ended  chan struct{} // exec has returned
	err    error         // what it returned, once it has

	place   wire.Place  // of the agent, if it waits for us when the streams break
	waiting atomic.Bool // it does
	over    atomic.Bool // what is written now is lost, or must be
	leaving sync.Once
	stop    func() bool // of what looks at the context
}

// setPlace records where the agent waits.
func (c *conversation) setPlace(p wire.Place) {
	c.place = p
	c.waiting.Store(true)
}

// waits reports whether the agent waits for us when the streams break.
func (c *conversation) waits() bool { return c.waiting.Load() }

// run runs a command and returns its streams. Its first line is awaited for as long as the
// budget leaves. When ctx ends, an agent that would wait for us hears it before its streams
// end.
func (s *Source) run(ctx context.Context, tries *retry.Budget, command []string) *conversation {
	inner, cancel := context.WithCancel(context.WithoutCancel(ctx))
	inR, inW := io.Pipe()
	outR, outW := io.Pipe()
	c := &conversation{cancel: cancel, in: inW, out: outR, said: &tail{}, stall: min(s.o.times.stall, s.left(tries)), ended: make(chan struct{})}
	if s.o.Debug {
		c.said.log = func(line string) { s.o.Logger.Debug("agent says", "line", line) }
	}
	c.stop = context.AfterFunc(ctx, func() {
		c.out.CloseWithError(ctx.Err()) // a reader need not wait
		c.leave()
		cancel()
	})
	go func() {
		defer close(c.ended)
		c.err = s.o.Exec(inner, command, Streams{In: inR, Out: outW, Err: c.said, Much: true})
		end := c.err
		if end == nil {
			end = io.ErrUnexpectedEOF // that a command ends means nothing
		}
		outW.CloseWithError(end)
		inR.CloseWithError(end)
	}()
	return c
}

// stallError says that a stream stands still.
type stallError struct{ after time.Duration }

func (e *stallError) Error() string { return fmt.Sprintf("nothing came for %v", e.after) }

// Read gives what the command writes. A stream that stands still is an error.
func (c *conversation) Read(p []byte) (int, error) {
	t := time.AfterFunc(c.stall, func() { c.out.CloseWithError(&stallError{c.stall}) })
	defer t.Stop()
	n, err := c.out.Read(p)
	if err == io.ErrClosedPipe {
		err = &stallError{c.stall}
	}
	return n, err
}

// received acknowledges that everything has arrived, and gives the agent a moment to end: an end of its own
// is cleaner than that of its stream. It reports whether it has ended.
func (c *conversation) received(pinging *sync.WaitGroup) bool {
	const moment = 5 * time.Second
	done := time.AfterFunc(moment, func() { c.in.CloseWithError(io.ErrClosedPipe) })
	defer done.Stop()
	pinging.Wait()
	_, _ = io.WriteString(c.in, "\n"+wire.Received+"\n") // what it refused may have stopped anywhere
	go func() { _, _ = io.Copy(io.Discard, c.out) }()
	select {
	case <-c.ended:
		c.over.Store(c.err == nil)
		return c.err == nil
	case <-time.After(moment):
		return false
	}
}

// leave ends an agent that would wait for another connection, and gives it a moment to exit.
func (c *conversation) leave() {
	if !c.waits() || c.over.Load() {
		return
	}
	c.leaving.Do(func() {
		moment := time.NewTimer(2 * time.Second)
		defer moment.Stop()
		go func() { _, _ = io.WriteString(c.in, "\n"+wire.Bye+"\n") }() // ends with the stream
		select {
		case <-c.ended:
		case <-moment.C:
		}
	})
}

// close ends the command: its stdin ends, and with it the agent, unless it waits for us.
// It returns when nothing of the conversation runs here any more.
func (c *conversation) close() {
	c.stop()
	go func() { _, _ = io.Copy(io.Discard, c.out) }() // until its end below
	c.leave()
	_ = c.in.Close()
	_ = c.out.Close()
	c.cancel()
	<-c.ended
}

// explain adds what the command said to an error of its stream.
func (c *conversation) explain(err error) error {
	if _, ours := errors.AsType[*localError](err); ours {
		return err
	}
	if _, told := errors.AsType[*wire.Failure](err); told {
		return err
	}
	c.leave()
	// How the command ended says more than how its stream did.
	_ = c.in.Close()
	select {
	case <-c.ended:
		if end, ok := errors.AsType[*ExitError](c.err); ok && end.Code == wire.ExitMemory {
			return stoppedItself(c.said.String())
		}
		if c.err != nil && !errors.Is(err, c.err) {
			err = fmt.Errorf("%w (%w)", c.err, err)
		}
	case <-time.After(time.Second):
	}
	if said := c.said.String(); said != "" {
		err = fmt.Errorf("%w: %s", err, said)
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = &brokenError{err}
	}
	return err
}

// stoppedItself is the failure of an agent whose stream could not take it any more.
func stoppedItself(said string) *wire.Failure {
	text := strings.TrimPrefix(said, "promdump-agent: ")
	if text == "" {
		text = "the container ran short of memory: the agent stopped itself, so that Prometheus is not killed"
	}
	return &wire.Failure{Text: text, Code: 3, Memory: true}
}

// brokenError says in words that a stream ended early.
type brokenError struct{ err error }

func (e *brokenError) Error() string {
	return strings.ReplaceAll(e.err.Error(), io.ErrUnexpectedEOF.Error(), "the stream from the container broke")
}
func (e *brokenError) Unwrap() error { return e.err }

// tail keeps the end of what is written to it.
type tail struct {
	mu   sync.Mutex
	text []byte
	rest []byte // of a line, for log
	log  func(line string)
}

const maxTail = 1 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, p...)
	t.text = t.text[max(0, len(t.text)-maxTail):]
	if t.log != nil {
		t.rest = append(t.rest, p...)
		for {
			line, rest, ok := bytes.Cut(t.rest, []byte("\n"))
			if !ok {
				break
			}
			t.log(string(line))
			t.rest = rest
		}
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.log != nil {
		return "" // it was shown
	}
	return strings.Join(strings.FieldsFunc(string(t.text), func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
}
