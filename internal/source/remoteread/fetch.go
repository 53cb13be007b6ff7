package remoteread

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/prometheus/prometheus/prompb"

	"github.com/promdump/promdump/internal/retry"
)

// longestPause is the most that we wait because a server asks for it.
const longestPause = 5 * time.Minute

// fetcher asks for windows of one selection.
type fetcher struct {
	*pool
	k       *known
	queries []query
	last    *prompb.Query // the last one of each request, which proves its end; nil: none is known
	labels  []byte        // key of the series that last is answered with
	dir     string        // for spools

	// step is the longest range that is asked for at once, in milliseconds: what was
	// too much for the server once is not tried again.
	step atomic.Int64

	took atomic.Int64 // nanoseconds that the last window took
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
	se, err := f.take(ctx)
	if err != nil {
		return w, err
	}
	defer f.give(se)
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
		if err := f.part(ctx, se, part, w); err != nil {
			return w, err
		}
		if part.max == r.max {
			return w, nil
		}
		from = part.max + 1
	}
}

// part brings a part of a window, if need be in halves.
func (f *fetcher) part(ctx context.Context, se *session, r span, w *window) error {
	cuts := 0
	err := f.again(ctx, r.String(), func() error {
		// After an answer broke off twice another kind of request may do.
		to := r.max
		if cuts == 2 {
			to = f.k.end(r)
		}
		var s *spool
		err := se.sure(ctx, func() (err error) {
			s, err = f.ask(ctx, se, r, to)
			return err
		})
		if err == nil {
			w.spools = append(w.spools, s)
			return nil
		}
		s.remove() // from an answer that may be another server's
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
	if err := f.part(ctx, se, span{r.min, r.min + half}, w); err != nil {
		return err
	}
	return f.part(ctx, se, span{r.min + half + 1, r.max}, w)
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
		if advice := retry.Of(err); advice == retry.No || advice == retry.AfterSuccess && !s.met.Load() {
			return b.err // of the way to the server, which says itself what is wrong
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
func (f *fetcher) ask(ctx context.Context, se *session, r span, to int64) (s *spool, err error) {
	all := make([]*prompb.Query, 0, len(f.queries)+1)
	for _, q := range f.queries {
		all = append(all, &prompb.Query{StartTimestampMs: r.min, EndTimestampMs: to, Matchers: q.matchers})
	}
	if f.last != nil {
		all = append(all, f.last)
	}
	ctx, moved, stop := f.watch(ctx)
	defer stop()
	resp, err := se.post(ctx, all)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	defer drain(resp.Body)
	k, err := kindOf(resp, f.last != nil)
	if err != nil {
		return nil, err
	}
	if s, err = newSpool(f.dir); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			s.remove()
			s = nil
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
		return s, f.explain(ctx, err)
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
	_, answer := errors.AsType[*AnswerError](err)
	_, labels := errors.AsType[*LabelsError](err)
	switch {
	case damaged && limits.MatchString(frame.Reason):
		return &tooMuch{err}
	case damaged, much, b, ours, final, answer, labels:
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
	var labels *LabelsError
	if f.last != nil {
		labels = &LabelsError{} // until the last query is answered with the labels that it had
	}
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
			for _, series := range m.ChunkedSeries {
				if key, err = appendKey(key[:0], series.Labels, nil); err != nil {
					return err
				}
				if bytes.Equal(key, f.labels) {
					labels = nil
				} else if labels != nil {
					labels.Was, labels.Is = difference(f.labels, key)
				}
			}
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
	if labels != nil {
		return labels
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
