package remoteread

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/prometheus/prometheus/prompb"
)

// longestPause is the most that we wait because a server asks for it.
const longestPause = 5 * time.Minute

// fetcher asks for windows of one selection.
type fetcher struct {
	*Source
	k       *known
	queries []query
	last    *prompb.Query // the last one of each request, which proves its end; nil: none is known
	dir     string        // for spools

	// step is the longest range that is asked for at once, in milliseconds: what was
	// too much for the server once is not tried again.
	step atomic.Int64
}

func (f *fetcher) shorten(step int64) {
	for {
		old := f.step.Load()
		if step >= old || f.step.CompareAndSwap(old, step) {
			return
		}
	}
}

// fetch brings a window.
func (f *fetcher) fetch(ctx context.Context, r span) (w *window, err error) {
	w = &window{}
	defer func() {
		if err != nil {
			w.remove()
		}
	}()
	for from := r.min; ; {
		step := f.step.Load()
		part := span{from, r.max}
		if step < r.max-from { // r.max-from cannot overflow: a window is short
			part.max = from + step
		}
		if err := f.part(ctx, part, w); err != nil {
			return w, err
		}
		if part.max == r.max {
			return w, nil
		}
		from = part.max + 1
	}
}

// part brings a part of a window, if need be in halves.
func (f *fetcher) part(ctx context.Context, r span, w *window) error {
	cuts := 0
	err := f.again(ctx, r.String(), func() error {
		// After an answer broke off twice another kind of request may do.
		to := r.max
		if cuts == 2 {
			to = f.k.end(r)
		}
		s, err := f.ask(ctx, r, to)
		if err == nil {
			w.spools = append(w.spools, s)
			return nil
		}
		length := r.max - r.min
		much, ok := errors.AsType[*tooMuch](err)
		if b, is := errors.AsType[*broken](err); is && b.cut {
			// A server that breaks off again and again may have died of it.
			if cuts++; cuts == 4 {
				much, ok = &tooMuch{err}, true
			}
		}
		switch {
		case ok && length/2 >= f.o.times.floor.Milliseconds():
			return &halve{much}
		case ok && cuts < 4:
			return &broken{err: much.err}
		}
		return err
	})
	h, ok := errors.AsType[*halve](err)
	if !ok {
		return err
	}
	half := (r.max - r.min) / 2
	f.shorten(half)
	f.o.Note(fmt.Sprintf("%s is too much for the server at once, asking for half of it: %v", r, h.why))
	if err := f.part(ctx, span{r.min, r.min + half}, w); err != nil {
		return err
	}
	return f.part(ctx, span{r.min + half + 1, r.max}, w)
}

// halve says that a range is asked for in halves.
type halve struct{ why error }

func (e *halve) Error() string { return e.why.Error() }

// again tries until f succeeds, until its error is one that no try mends, or until
// it failed too often.
func (s *Source) again(ctx context.Context, what string, f func() error) error {
	for failed := 0; ; failed++ {
		err := f()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		b, ok := errors.AsType[*broken](err)
		if _, damaged := errors.AsType[*FrameError](err); !ok && damaged {
			b, ok = &broken{err: err}, true
		}
		if _, half := errors.AsType[*halve](err); half || !ok {
			return err
		}
		if failed == len(s.o.times.pause) || !s.met.Load() {
			return &LostError{Tries: failed + 1, Err: b.err}
		}
		pause := s.o.times.pause[failed]
		if b.after > 0 {
			pause = min(b.after, longestPause)
		}
		s.o.Logger.Debug("asking again", "what", what, "error", err, "try", failed+1, "pause", pause)
		s.o.Note(fmt.Sprintf("%s: %v: asking again in %v (try %d of %d)", what, b.err, pause, failed+1, len(s.o.times.pause)))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
}

// ask asks once for a range, as one that ends at to, and keeps the answer.
func (f *fetcher) ask(ctx context.Context, r span, to int64) (_ *spool, err error) {
	all := make([]*prompb.Query, 0, len(f.queries)+1)
	for _, q := range f.queries {
		all = append(all, &prompb.Query{StartTimestampMs: r.min, EndTimestampMs: to, Matchers: q.matchers})
	}
	if f.last != nil {
		all = append(all, f.last)
	}
	ctx, moved, stop := f.watch(ctx)
	defer stop()
	resp, err := f.post(ctx, all) //nolint:bodyclose // drainAndClose does
	if err != nil {
		return nil, err
	}
	defer drainAndClose(resp.Body)
	k, err := kindOf(resp, f.last != nil)
	if err != nil {
		return nil, err
	}
	s, err := newSpool(f.dir)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			s.remove()
		}
	}()
	body := &moving{resp.Body, moved}
	if k == sampled {
		f.shorten(f.o.times.sample.Milliseconds())
		err = takeSamples(body, f.queries, r, s)
	} else {
		err = f.takeFrames(body, r, s)
	}
	if err != nil {
		return nil, f.explain(ctx, err)
	}
	return s, s.finish()
}

// explain makes one of ours of an error that an answer ended with.
func (f *fetcher) explain(ctx context.Context, err error) error {
	if errors.Is(context.Cause(ctx), errStall) {
		return &tooMuch{errStall}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	frame, damaged := errors.AsType[*FrameError](err)
	_, much := errors.AsType[*tooMuch](err)
	_, b := errors.AsType[*broken](err)
	_, ours := errors.AsType[*localError](err)
	_, final := errors.AsType[*ServerError](err)
	switch {
	case damaged && limits.MatchString(frame.Reason):
		return &tooMuch{err}
	case damaged, much, b, ours, final:
		return err
	}
	return &broken{err: fmt.Errorf("the answer broke off: %w", err), cut: true}
}

// takeFrames keeps a stream of chunks. It ends where the stream does, and fails if
// that is not its end.
func (f *fetcher) takeFrames(body io.Reader, r span, to *spool) error {
	in := newFrames(body)
	var m prompb.ChunkedReadResponse
	var key, chunks []byte
	at := int64(-1) // query
	for {
		err := in.next(&m)
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		if m.QueryIndex < at || m.QueryIndex > int64(len(f.queries)) {
			return &FrameError{fmt.Sprintf("it goes on with query %d after %d", m.QueryIndex, at)}
		}
		if m.QueryIndex > at {
			if at = m.QueryIndex; at < int64(len(f.queries)) {
				if err := to.begin(); err != nil {
					return err
				}
			}
		}
		if at == int64(len(f.queries)) {
			continue
		}
		for _, series := range m.ChunkedSeries {
			if key, err = appendKey(key[:0], series.Labels, f.queries[at].strip); err != nil {
				return err
			}
			if chunks, err = appendBody(chunks[:0], series.Chunks, r); err != nil {
				return err
			}
			if len(chunks) == 0 {
				continue
			}
			if err := to.add(key, chunks); err != nil {
				return err
			}
		}
	}
	if f.last != nil && at != int64(len(f.queries)) {
		return &broken{err: errors.New("the answer ends without its last query"), cut: true}
	}
	return nil
}

// watch ends ctx when moved was not called for too long.
func (s *Source) watch(ctx context.Context) (_ context.Context, moved, stop func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(s.o.times.stall, func() { cancel(errStall) })
	return ctx, func() { timer.Reset(s.o.times.stall) }, func() { timer.Stop(); cancel(nil) }
}

// moving tells of each piece that comes.
type moving struct {
	r     io.Reader
	moved func()
}

func (m *moving) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	if n > 0 {
		m.moved()
	}
	return n, err
}

// prove finds a query that has an answer for sure, to come last in each request.
// Candidates are asked for until one has. Without any the stream of a server is
// taken for whole when HTTP says so.
func (f *fetcher) prove(ctx context.Context, candidates []*prompb.Query) error {
	for _, c := range candidates {
		var found *prompb.ChunkedReadResponse
		var k kind
		err := f.again(ctx, "look for a sample", func() (err error) {
			found, k, err = f.first(ctx, c)
			return err
		})
		if _, ok := errors.AsType[*tooMuch](err); ok {
			continue
		}
		if err != nil {
			return err
		}
		if k == sampled {
			f.shorten(f.o.times.sample.Milliseconds())
			f.o.Note("the server sends samples, not the chunks that it stores: they are made into chunks here, in smaller windows")
			return nil
		}
		if found == nil {
			continue
		}
		last := f.lastQuery(found)
		if last == nil {
			continue
		}
		ok, err := f.tryLast(ctx, last)
		if err != nil {
			return err
		}
		if ok {
			f.last = last
			f.o.Logger.Debug("each request ends with a query for", "matchers", last.Matchers, "from", last.StartTimestampMs)
		}
		return nil
	}
	return nil
}

// lastQuery asks for the first sample of an answer and what follows it: a range
// that ends within a chunk is what some servers panic at, see known.end.
func (f *fetcher) lastQuery(m *prompb.ChunkedReadResponse) *prompb.Query {
	series := m.ChunkedSeries[0]
	q := &prompb.Query{StartTimestampMs: series.Chunks[0].MinTimeMs, EndTimestampMs: series.Chunks[0].MaxTimeMs}
	q.EndTimestampMs = f.k.end(span{q.StartTimestampMs, q.EndTimestampMs})
	for _, l := range series.Labels {
		if _, external := f.k.external[l.Name]; !external && l.Value != "" && len(l.Value) <= 256 {
			q.Matchers = append(q.Matchers, &prompb.LabelMatcher{Name: l.Name, Value: l.Value})
		}
	}
	if len(q.Matchers) == 0 {
		return nil
	}
	return q
}

// first gives the first frame of an answer with a chunk in it, if there is one.
func (f *fetcher) first(ctx context.Context, q *prompb.Query) (*prompb.ChunkedReadResponse, kind, error) {
	ctx, moved, stop := f.watch(ctx)
	defer stop()
	resp, err := f.post(ctx, []*prompb.Query{q})
	if err != nil {
		return nil, 0, err
	}
	defer resp.Body.Close() // not read to its end: the server need not go on
	k, err := kindOf(resp, true)
	if err != nil || k == sampled {
		return nil, k, err
	}
	in := newFrames(&moving{resp.Body, moved})
	m := &prompb.ChunkedReadResponse{}
	for {
		err := in.next(m)
		if err == io.EOF {
			return nil, k, nil
		}
		if err != nil {
			return nil, k, f.explain(ctx, err)
		}
		if len(m.ChunkedSeries) > 0 && len(m.ChunkedSeries[0].Chunks) > 0 {
			return m, k, nil
		}
	}
}

// tryLast tells whether a server answers a query that comes twice twice, in order.
func (f *fetcher) tryLast(ctx context.Context, q *prompb.Query) (works bool, err error) {
	err = f.again(ctx, "look for a sample", func() error {
		works = false
		ctx, moved, stop := f.watch(ctx)
		defer stop()
		resp, err := f.post(ctx, []*prompb.Query{q, q}) //nolint:bodyclose // drainAndClose does
		if err != nil {
			return err
		}
		defer drainAndClose(resp.Body)
		in := newFrames(&moving{resp.Body, moved})
		var m prompb.ChunkedReadResponse
		at := int64(-1)
		for {
			err := in.next(&m)
			if err == io.EOF {
				works = at == 1
				return nil
			}
			if err != nil {
				return f.explain(ctx, err)
			}
			if m.QueryIndex < at || m.QueryIndex > at+1 {
				return nil
			}
			at = m.QueryIndex
		}
	})
	_, much := errors.AsType[*tooMuch](err)
	if e, ok := errors.AsType[*ServerError](err); much || ok && e.Code == 0 {
		err = nil // it takes one query at a time
	}
	if err == nil && !works {
		f.o.Logger.Debug("the server does not answer several queries in turn")
	}
	return works, err
}
