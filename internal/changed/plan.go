package changed

import (
	"fmt"
	"slices"
)

// plan says which times are read, and how they are divided into steps.
type plan struct {
	window, baseline Span
	step             int64
	segments         []segment // baseline, window, then baseline and window of each earlier day
	days             []int     // how many days before, for each pair of segments after the first
	reads            []read
	width            int // steps of all segments
}

// segment is a span of steps.
type segment struct {
	Span
	at, n int // the place of its values in a vector
}

// read is a range of one storage that is read in one pass.
type read struct {
	data     *Data
	span     Span
	segments []int
}

const (
	steps     = 60          // of the window
	minStep   = 15_000      // milliseconds: few servers scrape more often
	maxSteps  = 480         // of the baseline
	leastStep = 3           // of a window or a baseline
	day       = 86_400_000  // milliseconds
	maxDays   = 3           // earlier days that are compared
	margin    = 5 * 60_000  // read before a segment, so that its first step has a rate
	longRead  = 20 * 60_000 // two segments that are closer are read in one pass
)

func newPlan(o Options) (*plan, []Note, error) {
	var notes []Note
	data := Span{o.Data.MinTime, o.Data.MaxTime}
	w := Span{max(o.Window.From, data.From), min(o.Window.To, data.To)}
	if w.From >= w.To {
		return nil, nil, &WindowError{o.Window, data}
	}
	if w != o.Window {
		notes = append(notes, Note{fmt.Sprintf("the data has only the part of the window from %s to %s", stamp(w.From), stamp(w.To))})
	}
	before := &o.Data
	if o.Before != nil {
		before = o.Before
	}
	asked := o.Baseline
	if asked == (Span{}) {
		asked = Span{w.From - w.Length(), w.From}
	}
	had := Span{before.MinTime, before.MaxTime}
	b := Span{max(asked.From, had.From), min(asked.To, had.To)}
	if b.From >= b.To {
		return nil, nil, &BaselineError{asked, w, had}
	}
	if o.Before == nil && b.From < w.To && w.From < b.To {
		return nil, nil, &OverlapError{b, w}
	}
	if b != asked {
		notes = append(notes, Note{fmt.Sprintf("the data has only the part of the baseline from %s to %s", stamp(b.From), stamp(b.To))})
	}
	p := &plan{window: w, baseline: b}
	p.step = max(roundUp(w.Length(), steps), minStep, roundUp(b.Length(), maxSteps))
	for _, s := range []Span{w, b} {
		if s.Length()/p.step < leastStep {
			return nil, nil, &ShortError{s}
		}
	}
	p.add(b, w)
	p.reads = []read{{before, Span{}, []int{0}}, {&o.Data, Span{}, []int{1}}}
	if o.Before == nil {
		for k := 1; len(p.days) < maxDays; k++ {
			shift := int64(k) * day
			db, dw := Span{b.From - shift, b.To - shift}, Span{w.From - shift, w.To - shift}
			if db.From < had.From || dw.From < had.From {
				break
			}
			// Days of the baseline itself are no days before.
			if dw.To <= b.From && db.To <= b.From {
				p.days = append(p.days, k)
				p.add(db, dw)
				n := len(p.segments)
				p.reads = append(p.reads, read{&o.Data, Span{}, []int{n - 2}}, read{&o.Data, Span{}, []int{n - 1}})
			}
			if k > 2*maxDays {
				break
			}
		}
	}
	p.join()
	return p, notes, nil
}

func roundUp(length int64, n int64) int64 {
	const second = 1000
	return (length/n + second - 1) / second * second
}

func (p *plan) add(spans ...Span) {
	for _, s := range spans {
		n := int(s.Length() / p.step)
		p.segments = append(p.segments, segment{Span{s.To - int64(n)*p.step, s.To}, p.width, n})
		p.width += n
	}
}

// join makes one read of those that touch.
func (p *plan) join() {
	for i := range p.reads {
		r := &p.reads[i]
		s := p.segments[r.segments[0]]
		r.span = Span{s.From - margin, s.To}
	}
	slices.SortFunc(p.reads, func(a, b read) int { return int(min(max(a.span.From-b.span.From, -1), 1)) })
	var joined []read
	for _, r := range p.reads {
		if n := len(joined); n > 0 && joined[n-1].data == r.data && r.span.From <= joined[n-1].span.To+longRead {
			joined[n-1].span.To = max(joined[n-1].span.To, r.span.To)
			joined[n-1].segments = append(joined[n-1].segments, r.segments...)
			continue
		}
		joined = append(joined, r)
	}
	p.reads = joined
}

// part returns the values of a segment.
func (p *plan) part(v []float64, i int) []float64 {
	s := p.segments[i]
	return v[s.at : s.at+s.n]
}

// start returns the time at which a step of the window begins.
func (p *plan) start(step int) int64 {
	if step < 0 {
		return p.window.From
	}
	return p.segments[1].From + int64(step)*p.step
}

// middle returns the time in the middle of a place of a vector.
func (p *plan) middle(i int) int64 {
	for _, s := range p.segments {
		if i < s.at+s.n {
			return s.From + int64(i-s.at)*p.step + p.step/2
		}
	}
	return p.window.To
}
