package agent

import (
	"bufio"
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/promdump/promdump/internal/wire"
)

// connection is the streams of one command in the container.
type connection struct {
	in    *bufio.Reader
	out   io.Writer
	errs  io.Writer // stderr
	close func()    // ends reads and writes that have begun; may be called more than once
}

// link is the agent's side of a stream that outlives its connections. While there is
// none, or where none carries anything, the files of the dump stay open, so that what
// comes after is still of the same moment.
type link struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	buf    *sendBuffer
	key    string
	wait   time.Duration // for another connection

	calls    chan calling
	received chan struct{}
	idle     *time.Timer // ends all

	attaching sync.Mutex // held while one connection replaces another

	mu        sync.Mutex
	conn      *connection // nil: it is broken
	called    bool
	finished  bool // received is closed
	bandwidth int64
}

// calling is what ReadCall returned.
type calling struct {
	call wire.Call
	err  error
}

// attachTime is how long a new connection may take to send its key.
const attachTime = 10 * time.Second

func newLink(ctx context.Context, cancel context.CancelCauseFunc, m *Meeting) *link {
	l := &link{
		ctx: ctx, cancel: cancel, buf: newSendBuffer(wire.Limits{}.Window()), key: m.key, wait: m.Wait,
		calls: make(chan calling, 1), received: make(chan struct{}),
	}
	l.idle = time.AfterFunc(l.wait, func() { cancel(errClientGone) })
	context.AfterFunc(ctx, func() {
		l.idle.Stop()
		l.buf.Close(context.Cause(ctx))
	})
	return l
}

// limit sets what a call allows, and less where memory is tight.
func (l *link) limit(limits wire.Limits, tight bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.bandwidth = limits.Bandwidth
	window := limits.Window()
	if tight {
		window = min(window, 2*wire.AckEvery)
	}
	l.buf.setLimit(window)
}

// use makes c the connection and sends from an offset on.
func (l *link) use(c *connection, sender int, offset int64) {
	l.mu.Lock()
	l.conn = c
	l.mu.Unlock()
	l.heard()
	go func() {
		_ = l.buf.Send(&limited{l: l, to: c.out}, sender, offset) // the client reconnects
		l.lost(c)
	}()
	go l.hear(c)
}

// hear reads the client's lines until stdin ends. A stdin may carry a goodbye when stdout is
// broken already.
func (l *link) hear(c *connection) {
	_ = l.listen(c) // the client reconnects
	c.close()
	l.lost(c)
}

// limited throttles a connection to the bandwidth of the call. Nothing is sent before the call.
type limited struct {
	l  *link
	to io.Writer
	w  io.Writer
}

func (t *limited) Write(p []byte) (int, error) {
	if t.w == nil {
		t.l.mu.Lock()
		t.w = Throttle(t.l.ctx, t.to, t.l.bandwidth)
		t.l.mu.Unlock()
	}
	return t.w.Write(p)
}

// heard restarts the idle timer when the client has sent something.
func (l *link) heard() { l.idle.Reset(max(l.wait, clientSilence)) }

// lost begins to wait for another connection, if c is the one in use.
func (l *link) lost(c *connection) {
	l.mu.Lock()
	current := l.conn == c
	l.mu.Unlock()
	if !current || l.ctx.Err() != nil {
		return
	}
	l.idle.Reset(l.wait)
	l.buf.Free()
	debug.FreeOSMemory() // it may take a while
}

// listen reads the call, if none came before, and the client's lines after it.
func (l *link) listen(c *connection) error {
	l.mu.Lock()
	called := l.called
	l.mu.Unlock()
	if !called {
		call, err := wire.ReadCall(c.in)
		_, version := errors.AsType[*wire.VersionError](err)
		_, frame := errors.AsType[*wire.FrameError](err)
		if err != nil && !version && !frame {
			return err
		}
		if err != nil {
			err = refuse(c.out, err)
		}
		l.begin(calling{call, err})
	}
	for {
		line, err := c.in.ReadSlice('\n')
		if err != nil {
			return err
		}
		l.heard()
		word, rest, _ := strings.Cut(strings.TrimSpace(string(line)), " ")
		switch word {
		case wire.Ack:
			if n, err := strconv.ParseInt(rest, 10, 64); err == nil {
				l.buf.Ack(n)
			}
		case wire.Received:
			l.finish()
		case wire.Bye:
			l.cancel(errClientGone)
		}
	}
}

// begin takes the first call. A connection and the one that replaces it may both bring
// it.
func (l *link) begin(c calling) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.called {
		l.called = true
		l.calls <- c
	}
}

func (l *link) finish() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.finished {
		l.finished = true
		close(l.received)
	}
}

// attach continues the stream on a new connection, at the offset that the client sends
// with the key. What
// the connection before still carries is of no use to the client any more.
func (l *link) attach(c *connection) {
	late := time.AfterFunc(attachTime, c.close)
	line, err := c.in.ReadSlice('\n')
	late.Stop()
	key, rest, _ := strings.Cut(strings.TrimSpace(string(line)), " ")
	have, nerr := strconv.ParseInt(rest, 10, 64)
	if err != nil || nerr != nil || subtle.ConstantTimeCompare([]byte(key), []byte(l.key)) != 1 {
		c.close()
		return
	}
	l.attaching.Lock()
	defer l.attaching.Unlock()
	l.mu.Lock()
	old, need := l.conn, wire.AttachedCalled
	l.conn = nil
	if !l.called {
		need = wire.AttachedNoCall
	}
	l.mu.Unlock()
	if old != nil {
		old.close()
	}
	sender, end, ok := l.buf.From(have)
	if !ok {
		c.close()
		l.cancel(fmt.Errorf("the client asks for byte %d, and that is not there any more", have))
		return
	}
	l.buf.Ack(have)
	if _, err := fmt.Fprintf(c.out, "%s %d %s\n", wire.Attached, end, need); err != nil {
		c.close()
		return
	}
	l.use(c, sender, have)
}

// Write writes to the client's stderr, if there is one now that takes it.
func (l *link) Write(p []byte) (int, error) {
	l.mu.Lock()
	c := l.conn
	l.mu.Unlock()
	if c != nil && c.errs != nil {
		_, _ = c.errs.Write(p) // only a person reads it
	}
	return len(p), nil
}

// serveLink is Serve for a client that may come back.
func (p Process) serveLink(ctx context.Context, cancel context.CancelCauseFunc) error {
	l := newLink(ctx, cancel, p.Meeting)
	defer p.Meeting.Close()
	go p.Meeting.accept(l)
	first := p.Meeting.first(p)
	sender, _, _ := l.buf.From(0)
	l.use(first, sender, 0)
	var c calling
	select {
	case c = <-l.calls:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if c.err != nil {
		return c.err
	}
	if c.call.Do == wire.DoReceive {
		return refuse(first.out, errors.New("a stream to the container cannot be continued"))
	}
	p.tight, p.short = p.limit(ctx, cancel, c.call.Limits.Memory)
	l.limit(c.call.Limits, p.tight)
	c.call.Limits.Bandwidth = 0 // it counts for what goes out, and some may go out twice
	p.Out, p.Err = l.buf, l
	return p.serve(ctx, c.call, client{received: l.received})
}
