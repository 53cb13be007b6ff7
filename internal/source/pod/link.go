package pod

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/promdump/promdump/internal/retry"
	"github.com/promdump/promdump/internal/wire"
)

// link reads the answer of one agent, byte after byte, over as many connections as it
// takes. An agent that waits keeps what was not acknowledged: each connection goes on
// with the next byte, and what reads it sees one stream.
type link struct {
	s    *Source
	ctx  context.Context
	call wire.Call

	tries *retry.Budget
	start retry.Budget // tries as they are when bytes come from the agent
	stale bool         // tries is not start, since none have come

	c     *conversation
	stall time.Duration
	have  atomic.Int64  // bytes that were read
	acked int64         // offset of the last acknowledgement that was asked for
	ack   chan struct{} // one is due
	pings sync.WaitGroup
	quiet context.CancelFunc // ends the pings of c
	old   sync.WaitGroup     // connections that are given up, and may take a while to end
	err   error              // the stream is lost; its connection's error, explained
}

// newLink makes the call. Its error shows in the first Read.
func (s *Source) newLink(ctx context.Context, tries *retry.Budget, c *conversation, call wire.Call) *link {
	l := &link{s: s, ctx: ctx, call: call, tries: tries, start: *tries, stale: true, c: c, stall: s.o.times.stall, ack: make(chan struct{}, 1)}
	l.start.Moved()
	if c.waits() {
		l.stall = s.o.times.silence
	}
	l.use(c)
	return l
}

// use begins to send signs of life, and acknowledgements, over a connection.
func (l *link) use(c *conversation) {
	l.c = c
	c.stall = l.stall
	pings, quiet := context.WithCancel(l.ctx)
	l.quiet = quiet
	if l.call.Do != wire.DoReceive { // there the files keep the session alive
		l.pings.Go(func() { l.ping(pings, c) })
	}
}

func (l *link) ping(ctx context.Context, c *conversation) {
	tick := time.NewTicker(l.s.o.times.ping)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.ack:
		case <-tick.C:
		}
		line := wire.Ping
		if c.waits() {
			line = fmt.Sprint(wire.Ack, " ", l.have.Load())
		}
		if _, err := io.WriteString(c.in, line+"\n"); err != nil {
			return
		}
	}
}

// Read implements io.Reader. It gives an error when the agent cannot be reached again.
func (l *link) Read(p []byte) (int, error) {
	for {
		n, err := l.c.Read(p)
		if n > 0 {
			if l.stale {
				*l.tries, l.stale = l.start, false
			}
			if have := l.have.Add(int64(n)); have-l.acked >= min(l.call.Limits.Window()/2, wire.AckEvery) {
				l.acked = have
				select {
				case l.ack <- struct{}{}:
				default: // one is due already, and will send this offset
				}
			}
			return n, nil
		}
		if err == nil || l.err != nil || !l.c.waits() || l.ctx.Err() != nil {
			return 0, err
		}
		if err := l.reconnect(err); err != nil {
			return 0, err
		}
	}
}

// reconnect connects with the same agent again, for as long as it waits.
func (l *link) reconnect(cause error) error {
	place, broke := l.c.place, l.drop(cause)
	l.stale = true
	last := broke
	for !isEnd(last) && !stops(last) {
		more, dead := l.s.retry(l.ctx, l.tries, last, 0)
		if dead != nil { // nothing is started in such a container
			l.err = dead
			return dead
		}
		if !more {
			break
		}
		c, err := l.attach(place)
		if err == nil {
			l.use(c)
			return nil
		}
		last = err
	}
	if l.ctx.Err() != nil {
		last = l.ctx.Err()
	} else if isEnd(last) {
		last = broke // it is the reason why the agent has gone
	}
	l.err = last
	return last
}

// drop gives a connection up and returns why it broke.
func (l *link) drop(cause error) error {
	l.quiet()
	c := l.c
	c.over.Store(true)
	err := c.explain(cause)
	l.old.Go(c.close)
	return err
}

// isEnd reports whether there is no agent any more to reconnect to.
func isEnd(err error) bool {
	_, gone := errors.AsType[*AgentError](err)
	end, ended := errors.AsType[*ExitError](err)
	// A signal may have met the shell or another process between the agent and us.
	return gone || forGood(err) || ended && end.Code < 128
}

// attach connects with the agent by another command in the container.
func (l *link) attach(place wire.Place) (_ *conversation, err error) {
	c := l.s.run(l.ctx, l.tries, []string{place.Program, wire.ToAttach, place.Name})
	defer func() {
		if err != nil {
			err = c.explain(fmt.Errorf("reconnect to the agent: %w", err))
			l.old.Go(c.close)
		}
	}()
	have := l.have.Load()
	l.old.Go(func() { _, _ = fmt.Fprintf(c.in, "%s %d\n", place.Key, have) }) // an error of it shows in the answer
	line, err := readLine(c)
	if err != nil {
		return nil, err
	}
	var end int64
	var called string
	if _, err := fmt.Sscanf(line, wire.Attached+" %d %s", &end, &called); err != nil {
		return nil, fmt.Errorf("unexpected answer %q", line)
	}
	if called == wire.AttachedNoCall {
		if err := wire.WriteCall(c.in, l.call); err != nil {
			return nil, fmt.Errorf("send the request: %w", err)
		}
	}
	if end == have && called == wire.AttachedCalled {
		// The agent had nothing to say: it is slow, and the connection may have been good.
		l.stall = min(2*l.stall, max(l.s.o.times.stall, l.stall))
	}
	c.setPlace(place)
	l.s.o.Logger.Debug("reconnected to the agent", "byte", have, "ahead", end-have)
	return c, nil
}

// received acknowledges that everything has arrived. A connection that breaks just then is made once more,
// or the agent would wait for its client.
func (l *link) received() {
	l.quiet()
	if l.c.received(&l.pings) || !l.c.waits() || l.ctx.Err() != nil {
		return
	}
	place := l.c.place
	_ = l.drop(io.ErrUnexpectedEOF)
	if c, err := l.attach(place); err == nil {
		l.use(c)
		l.quiet()
		c.received(&l.pings)
	}
}

// close ends the agent, if it is still there, and returns when nothing of the link runs
// here any more.
func (l *link) close() {
	l.quiet()
	l.c.close()
	l.old.Wait()
	l.pings.Wait()
}
