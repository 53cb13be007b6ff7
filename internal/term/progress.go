package term

import (
	"fmt"
	"io"
	"sync"
	"time"
	"unicode/utf8"
)

// redraw is the minimum interval between two updates of the line: a remote terminal is slow.
const redraw = 200 * time.Millisecond

// rateWindow is the period over which the rate is averaged. It is short, so that the remaining
// time follows the current speed.
const rateWindow = 5 * time.Second

// The remaining time is an extrapolation. It is not shown before firstEstimate, nor if it is more
// than maxEstimate times the elapsed time, which means that less than a percent is done: while the
// other side starts, and after a pause, it would be a week.
const (
	firstRate     = time.Second     // after the first byte
	firstEstimate = 3 * time.Second // after the first byte
	maxEstimate   = 99
)

// Progress is a line on a terminal that shows the progress of some work. A nil *Progress shows
// nothing. A Progress may be used concurrently.
type Progress struct {
	mu     sync.Mutex
	w      io.Writer
	verb   string
	width  func() int
	now    func() time.Time
	drawn  bool
	last   time.Time // of the last update
	marks  []mark    // of the last rateWindow
	first  time.Time // when the first byte was done; zero before
	closed bool
}

// mark is the number of bytes done at a time.
type mark struct {
	at   time.Time
	done int64
}

// Progress returns a new line, "verb 12.3 MiB of 40.0 MiB …". It returns nil, which shows nothing,
// if Err is not a terminal.
func (s Streams) Progress(verb string) *Progress {
	if !IsTerminal(s.Err) {
		return nil
	}
	return newProgress(s.Err, verb, func() int { return Width(s.Err) }, time.Now)
}

func newProgress(w io.Writer, verb string, width func() int, now func() time.Time) *Progress {
	return &Progress{w: w, verb: verb, width: width, now: now}
}

// Set updates the line: done bytes of total are done. It shows neither a percentage nor the
// remaining time if total is unknown (0 or less) or a wrong estimate (less than done). tail, if not
// empty, is the last part of the line if there is room.
func (p *Progress) Set(done, total int64, tail string) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	if p.closed || now.Sub(p.last) < redraw && !p.last.IsZero() {
		return
	}
	p.last = now
	if p.first.IsZero() && done > 0 {
		p.first, p.marks = now, nil
	}
	p.marks = append(p.marks, mark{now, done})
	for len(p.marks) > 2 && now.Sub(p.marks[1].at) >= rateWindow {
		p.marks = p.marks[1:]
	}
	rate := p.rate(mark{now, done})
	p.draw(p.line(done, total, rate, p.left(mark{now, done}, total, rate), tail))
}

// rate returns the rate in bytes per second, or 0 if it is not known yet.
func (p *Progress) rate(now mark) float64 {
	first := p.marks[0]
	if p.first.IsZero() || now.at.Sub(p.first) < firstRate || !now.at.After(first.at) {
		return 0
	}
	return float64(now.done-first.done) / now.at.Sub(first.at).Seconds()
}

// left returns the estimated remaining time, or 0 if it cannot be estimated.
func (p *Progress) left(now mark, total int64, rate float64) time.Duration {
	ran := now.at.Sub(p.first)
	if rate < 1 || ran < firstEstimate {
		return 0
	}
	seconds := float64(total-now.done) / rate
	if seconds > maxEstimate*ran.Seconds() {
		return 0
	}
	return time.Duration(seconds * float64(time.Second))
}

// line returns the text of the line. Its parts are in the order of importance; those at the end that
// do not fit are omitted.
func (p *Progress) line(done, total int64, rate float64, left time.Duration, tail string) string {
	known := total > 0 && done <= total
	pieces := []string{p.verb + " " + Bytes(done)}
	if known {
		pieces[0] += " of " + Bytes(total)
		pieces = append(pieces, fmt.Sprintf("%d %%", int64(float64(done)/float64(total)*100)))
	}
	if rate >= 1 {
		pieces = append(pieces, Bytes(int64(rate))+"/s")
		if known && left > 0 {
			pieces = append(pieces, Duration(left.Round(time.Second))+" left")
		}
	}
	if tail != "" {
		pieces = append(pieces, tail)
	}
	// Some terminals wrap when the last column is written.
	room := p.width() - 1
	line := ""
	for i, piece := range pieces {
		if i > 0 {
			piece = " · " + piece
		}
		if utf8.RuneCountInString(line)+utf8.RuneCountInString(piece) > room {
			break
		}
		line += piece
	}
	if line == "" {
		line = string([]rune(pieces[0])[:max(0, min(room, utf8.RuneCountInString(pieces[0])))])
	}
	return line
}

// draw prints a line in place of the last one.
func (p *Progress) draw(line string) {
	// One write, so that other output is not printed in between.
	fmt.Fprint(p.w, "\r"+line+clearRight)
	p.drawn = true
}

// clearRight is the escape sequence that clears the rest of a line.
const clearRight = "\x1b[K"

// Done removes the line. Later calls of Set do nothing.
func (p *Progress) Done() {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.drawn && !p.closed {
		fmt.Fprint(p.w, "\r"+clearRight)
	}
	p.closed = true
}
