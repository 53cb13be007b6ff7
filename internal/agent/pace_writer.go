package agent

import (
	"context"
	"io"
	"io/fs"
	"log/slog"
	"sync"
	"time"
)

// pieceSize is what is written between two looks, and what may be sent ahead of the
// rate, bytes.
const pieceSize = 64 << 10

// pacedWriter writes as fast as its controller lets it. Without a signal it does not
// hold anything back, unless there is a fixed rate.
type pacedWriter struct {
	ctx    context.Context
	w      io.Writer
	gentle bool
	log    *slog.Logger

	mu     sync.Mutex // of signal, which another goroutine sets
	signal signal

	control *controller
	rate    float64 // bytes a second
	credit  float64 // bytes that may be sent at once
	last    time.Time
	sent    int64         // since last
	begin   time.Time     // of the first write
	paused  time.Duration // in all
}

// signal returns what happened to the server since the last call. It is false when
// nothing is known any more.
type signal interface {
	look() (load, bool)
	close()
}

func newPacedWriter(ctx context.Context, w io.Writer, gentle bool, log *slog.Logger) *pacedWriter {
	p := usualPace
	if gentle {
		p = gentlePace
	}
	return &pacedWriter{ctx: ctx, w: w, gentle: gentle, log: log, control: newController(p), rate: p.start}
}

// watch paces by a signal from now on; nil: there is none.
func (p *pacedWriter) watch(s signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.signal = s
}

// watchServer paces by the server of a data dir, or by what has a name, where it can be
// seen.
func (p *pacedWriter) watchServer(cgroup fs.FS, dir, name string) bool {
	w := watchServer("/proc", cgroup, dir, name)
	if w == nil {
		return false
	}
	p.log.Debug("the server sets the pace", "watch", w)
	p.watch(w)
	return true
}

// Write implements io.Writer.
func (p *pacedWriter) Write(b []byte) (n int, err error) {
	for len(b) > 0 {
		if err := p.wait(); err != nil {
			return n, err
		}
		piece := b[:min(len(b), pieceSize)]
		m, err := p.w.Write(piece)
		n += m
		p.sent += int64(m)
		p.credit -= float64(m)
		if err != nil {
			return n, err
		}
		b = b[m:]
	}
	return n, nil
}

// wait waits until something may be sent.
func (p *pacedWriter) wait() error {
	for {
		if !p.look() || p.credit > 0 {
			return nil
		}
		before := time.Now()
		select {
		case <-p.ctx.Done():
			return p.ctx.Err()
		case <-time.After(paceTick):
			p.mu.Lock()
			p.paused += time.Since(before)
			p.mu.Unlock()
		}
	}
}

// look asks the signal if it is time for that, and gives the credit of the time since.
// It is false where nothing is to be held back.
func (p *pacedWriter) look() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.signal == nil && !p.gentle {
		return false
	}
	now := time.Now()
	if p.last.IsZero() {
		p.begin, p.last, p.credit = now, now, pieceSize
		if p.signal != nil {
			p.signal.look()
		}
		return true
	}
	wall := now.Sub(p.last)
	if wall < paceTick {
		return true
	}
	p.last = now
	p.rate = GentleRate
	if p.signal != nil {
		l, ok := p.signal.look()
		if !ok {
			p.log.Debug("the server cannot be watched any more")
			p.signal.close()
			p.signal = nil
			return p.gentle
		}
		l.wall, l.sent = wall, p.sent
		p.rate = p.control.next(l)
	}
	p.sent = 0
	// What was not used is not saved up.
	p.credit = min(p.credit+p.rate*wall.Seconds(), max(p.rate*2*paceTick.Seconds(), pieceSize))
	return true
}

// close ends the watching.
func (p *pacedWriter) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.signal != nil {
		p.signal.close()
		p.signal = nil
	}
	if !p.begin.IsZero() {
		p.log.Debug("pace", "paused", p.paused, "of", time.Since(p.begin), "least", p.control.least)
	}
}
