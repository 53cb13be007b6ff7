package term

import (
	"fmt"
	"io"
	"sync"
	"time"
	"unicode/utf8"
)

// Not oftener than this: a terminal far away is slower than a disk.
const redraw = 200 * time.Millisecond

// The rate is of the last few seconds, so that "time left" follows the link, not
// its history.
const rateWindow = 5 * time.Second

// The time left is shown some seconds after the first byte, and while it is no more than
// farthest times what has passed: beyond that less than a percent is known. The first bytes
// of a stream come while the other side still starts, and would promise a week, as would
// those after a pause.
const (
	firstRate  = time.Second
	firstGuess = 3 * time.Second
	farthest   = 99
)

// Progress is the line that shows how far some work has come. A nil *Progress
// shows nothing, which is what a stream that is no terminal gets. It may be used
// by several goroutines.
type Progress struct {
	mu     sync.Mutex
	w      io.Writer
	verb   string
	width  func() int
	now    func() time.Time
	drawn  bool
	last   time.Time
	marks  []mark
	first  time.Time // when something was done; zero: nothing is yet
	closed bool
}

type mark struct {
	at   time.Time
	done int64
}

// Progress begins a line, "verb 12.3 MiB of 40.0 MiB …". It gives nil, which
// shows nothing, when Err is no terminal.
func (s Streams) Progress(verb string) *Progress {
	if !IsTerminal(s.Err) {
		return nil
	}
	return newProgress(s.Err, verb, func() int { return Width(s.Err) }, time.Now)
}

func newProgress(w io.Writer, verb string, width func() int, now func() time.Time) *Progress {
	return &Progress{w: w, verb: verb, width: width, now: now}
}

// Set says how many bytes of total are done. A total of 0 or less is unknown, and
// one that is less than done was estimated too low: then neither share nor time
// left is shown. Tail is shown behind them if it is not empty and there is room.
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

// rate is in bytes a second; 0: it is not known yet.
func (p *Progress) rate(now mark) float64 {
	first := p.marks[0]
	if p.first.IsZero() || now.at.Sub(p.first) < firstRate || !now.at.After(first.at) {
		return 0
	}
	return float64(now.done-first.done) / now.at.Sub(first.at).Seconds()
}

// left is the time that the rest takes; 0: it cannot be estimated.
func (p *Progress) left(now mark, total int64, rate float64) time.Duration {
	ran := now.at.Sub(p.first)
	if rate < 1 || ran < firstGuess {
		return 0
	}
	seconds := float64(total-now.done) / rate
	if seconds > farthest*ran.Seconds() {
		return 0
	}
	return time.Duration(seconds * float64(time.Second))
}

// line is made of pieces in the order of their worth: what does not fit is left
// out from the end, piece by piece.
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
	// The last column stays free: some terminals wrap as soon as it is written.
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

func (p *Progress) draw(line string) {
	// One write: what else prints on the terminal does not land inside of it.
	fmt.Fprint(p.w, "\r"+line+clearRight)
	p.drawn = true
}

const clearRight = "\x1b[K"

// Done removes the line. Later calls of Set show nothing.
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
