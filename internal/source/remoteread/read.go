package remoteread

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/prompb"

	"github.com/promdump/promdump/internal/fsutil"
	"github.com/promdump/promdump/internal/promapi"
	"github.com/promdump/promdump/internal/wire"
)

// windowLength is that of Prometheus' smallest blocks.
const windowLength = int64(2 * time.Hour / time.Millisecond)

// maxWindows bounds what is asked of a server that does not tell what it holds.
const maxWindows = 20_000

// refuse is the error of a request that a server cannot be asked for.
func refuse(req wire.Request) error {
	const ways = "a data dir gives it: --via exec or --via debug for one in a pod, -d for one on this machine"
	switch {
	case req.Version != wire.Version:
		return fmt.Errorf("request version %d is not known", req.Version)
	case req.Selection.MinTime > req.Selection.MaxTime:
		return errors.New("the range of the selection is empty")
	case req.WholeBlocks:
		return &RefusedError{"--whole-blocks", "a server tells samples, not its files", ways}
	case req.Head == wire.HeadRaw:
		return &RefusedError{"--head=raw", "a server tells samples, not its files", ways}
	case req.Head == wire.HeadNone:
		return &RefusedError{"--head=none", "a server does not tell which samples are from its head", "leave it out to take the head as well; " + ways}
	case req.Head != wire.HeadBlock:
		return fmt.Errorf("head mode %q is not known", req.Head)
	case req.Resume != nil && (req.Resume.At != nil || slices.ContainsFunc(req.Resume.Have, isNoWindow)):
		return &RefusedError{"to go on with blocks of another way", "a server does not tell what is in which block", "go on the way that it was begun, or begin again without --resume"}
	}
	return nil
}

func (s *Source) read(ctx context.Context, req wire.Request, yield func(wire.Message, error) bool) (err error) {
	if err := refuse(req); err != nil {
		return err
	}
	p, k, done, err := s.begin(ctx)
	if err != nil {
		return err
	}
	defer done()
	windows, err := k.windows(req.Selection)
	if err != nil {
		return err
	}
	if req.Resume != nil {
		windows = slices.DeleteFunc(windows, func(w span) bool {
			return slices.ContainsFunc(req.Resume.Have, func(b wire.Block) bool { return b.ULID == name(w) })
		})
	}
	plan := k.plan(req.Selection, windows)
	f := &fetcher{pool: p, k: k}
	f.step.Store(math.MaxInt64)
	notes, err := f.compile(ctx, req.Selection)
	if err != nil {
		return err
	}
	plan.Notes = append(plan.Notes, notes...)
	say := func(m wire.Message) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		if !yield(m, nil) {
			return errLeft
		}
		return nil
	}
	if err := say(plan); err != nil || req.PlanOnly {
		return err
	}
	end := &wire.End{}
	if len(windows) > 0 {
		if err := f.prove(ctx, f.candidates(windows)); err != nil {
			return err
		}
		if err := f.tellAll(ctx, windows, end, say); err != nil {
			return err
		}
		// Where answers do not say it, this does: the last of them had the same labels.
		if err := p.with(ctx, promapi.ConfigPath, func(se *session) error { return se.sameLabels(ctx, k) }); err != nil {
			return err
		}
	}
	if end.Series == 0 && k.headKnown && !k.head.Empty() {
		// Who got nothing wants to know what there is.
		if err := say(&wire.HeadStart{MinTime: req.Selection.MinTime, MaxTime: req.Selection.MaxTime}); err != nil {
			return err
		}
		if err := say(&wire.HeadEnd{MinTime: k.head.MinTime, MaxTime: k.head.MaxTime, Series: k.head.Series}); err != nil {
			return err
		}
	}
	return say(end)
}

// windows are those of a selection in which the server may have samples.
func (k *known) windows(sel wire.Selection) ([]span, error) {
	all := span{sel.MinTime, sel.MaxTime}
	if k.bounded() {
		held := span{math.MaxInt64, math.MinInt64}
		for _, b := range k.blocks {
			held.min, held.max = min(held.min, b.MinTime), max(held.max, b.MaxTime-1)
		}
		if !k.head.Empty() {
			held.min = min(held.min, k.head.MinTime, k.head.MaxTime-k.outOfOrder)
			held.max = max(held.max, k.head.MaxTime+late)
		}
		all.min, all.max = max(all.min, held.min), min(all.max, held.max)
		if all.min > all.max {
			return nil, nil
		}
	}
	const most = 10_000_000 // windows that are looked at: more than two thousand years
	first, last := floorDiv(all.min, windowLength), floorDiv(all.max, windowLength)
	var windows []span
	if last-first > most {
		return nil, k.tooMany()
	}
	for n := first; n <= last; n++ {
		// At the ends of time the window's own ends cannot be counted to.
		w := all
		if n > first {
			w.min = n * windowLength
		}
		if n < last {
			w.max = (n+1)*windowLength - 1
		}
		if !k.holds(w) {
			continue
		}
		if len(windows) == maxWindows {
			return nil, k.tooMany()
		}
		windows = append(windows, w)
	}
	return windows, nil
}

func (k *known) tooMany() error {
	e := &ServerError{What: fmt.Sprintf("the range has more than %d windows of two hours, and the server does not tell in which of them it has samples", maxWindows), Code: 2}
	e.Tip = "name the first time: --min-time or --since"
	if k.backEnds > 0 {
		e.Tip += "; the server reads from other servers as well, and these may go far back"
	}
	return e
}

// name names a window as blocks are named: the same window always the same.
func name(r span) string {
	var id ulid.ULID
	_ = id.SetTime(uint64(min(max(r.min, 0), int64(ulid.MaxTime())))) // bounded
	copy(id[6:], nameEnd)
	return id.String()
}

// nameEnd is the entropy of all names of windows.
const nameEnd = "remoteread"

func isNoWindow(b wire.Block) bool {
	id, err := ulid.ParseStrict(b.ULID)
	return err != nil || string(id[6:]) != nameEnd
}

// plan tells the windows, and the blocks that are outside of all of them.
func (k *known) plan(sel wire.Selection, windows []span) *wire.Plan {
	p := &wire.Plan{Head: wire.PlannedHead{Mode: wire.HeadBlock, MinValidTime: math.MinInt64}}
	for _, b := range k.plannedBlocks() {
		if b.MaxTime-1 < sel.MinTime || b.MinTime > sel.MaxTime {
			b.Action, b.Reason, b.Bytes = wire.Skip, "outside the range", k.bytes(span{b.MinTime, b.MaxTime - 1})
			p.Blocks = append(p.Blocks, b)
		}
	}
	for _, w := range windows {
		bytes := k.bytes(w)
		p.Blocks = append(p.Blocks, wire.PlannedBlock{
			ULID: name(w), MinTime: w.min, MaxTime: max(w.max+1, w.max), Bytes: bytes, Action: wire.Cut, Reason: "window that the server is asked for",
		})
		p.Bytes += bytes
	}
	if k.backEnds > 0 {
		what := "has a remote_read back end"
		if k.backEnds > 1 {
			what = fmt.Sprintf("has %d remote_read back ends", k.backEnds)
		}
		p.Notes = append(p.Notes, "the server "+what+": what it reads from there is in the dump, and if that fails it does not say so")
	}
	return p
}

// bytes guesses what all series have in a range: chunks have about one and a half
// bytes a sample, or 200 each. 0: not known.
func (k *known) bytes(r span) int64 {
	share := func(minTime, maxTime int64) float64 {
		if !r.overlaps(minTime, maxTime) {
			return 0
		}
		return float64(min(r.max, maxTime)-max(r.min, minTime)+1) / float64(maxTime-minTime+1)
	}
	sum := 0.0
	for _, b := range k.blocks {
		sum += share(b.MinTime, b.MaxTime-1) * float64(b.Stats.Samples) * 1.5
	}
	if !k.head.Empty() {
		sum += share(k.head.MinTime, k.head.MaxTime) * float64(max(k.head.Chunks, 0)) * 200
	}
	return int64(sum)
}

// compile makes the queries.
func (f *fetcher) compile(ctx context.Context, sel wire.Selection) (notes []string, err error) {
	external := f.k.external
	switch {
	case f.o.KeepExternalLabels:
		external = nil
		if len(f.k.external) > 0 {
			notes = append(notes, "the server's external labels stay on the series, as asked for: "+list(f.k.external))
		}
	case !f.k.configKnown:
		notes = append(notes, "the server does not tell its external labels (/api/v1/status/config): if it has any, they stay on the series")
	}
	var owned []string
	err = f.with(ctx, promapi.SeriesPath, func(se *session) (err error) {
		owned, err = se.owned(ctx, external, span{sel.MinTime, sel.MaxTime})
		return err
	})
	if err != nil {
		return nil, err
	}
	if len(owned) > 4 { // each doubles the queries
		return nil, &ServerError{What: "series have, or may have, the server's external labels themselves: " + strings.Join(owned, ", "), Tip: "--keep-external-labels takes the series with all labels"}
	}
	for _, ms := range sel.Matchers {
		for _, m := range ms {
			if v, ok := external[m.Name]; ok && m.Type == "=" && m.Value == v && !slices.Contains(owned, m.Name) {
				// Now: where it leaves nothing there are no notes of a plan.
				f.o.Note(fmt.Sprintf("%s=%q is an external label of the server, which no series has itself: leave it out of --match, or give --keep-external-labels", m.Name, v))
			}
		}
	}
	f.queries, err = queries(sel, external, owned)
	return notes, err
}

func list(ls map[string]string) string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(ls)) {
		all = append(all, fmt.Sprintf("%s=%q", name, ls[name]))
	}
	return strings.Join(all, ", ")
}

// candidates are queries that may have an answer. The first ask for next to
// nothing; that for the selection is as heavy as a window.
func (f *fetcher) candidates(windows []span) (all []*prompb.Query) {
	last := windows[len(windows)-1]
	recent := span{last.max - 10*time.Minute.Milliseconds(), last.max}
	if f.k.headKnown && !f.k.head.Empty() {
		recent = span{f.k.head.MaxTime - 10*time.Minute.Milliseconds(), math.MaxInt64}
	}
	for _, n := range []string{"up", "prometheus_build_info"} {
		all = append(all, &prompb.Query{StartTimestampMs: recent.min, EndTimestampMs: recent.max, Matchers: []*prompb.LabelMatcher{{Name: "__name__", Value: n}}})
	}
	for _, q := range f.queries {
		all = append(all, &prompb.Query{StartTimestampMs: last.min, EndTimestampMs: f.k.end(last), Matchers: q.matchers})
	}
	return all
}

// tellAll fetches windows, a few at a time, and tells them in their order. One that
// is fetched and not told yet counts as well: it takes space.
func (f *fetcher) tellAll(ctx context.Context, windows []span, end *wire.End, say func(wire.Message) error) (err error) {
	dir, err := fsutil.MkdirTemp(f.o.Staging, "read")
	if err != nil {
		return fmt.Errorf("make staging directory: %w", err)
	}
	defer func() { err = errors.Join(err, dir.Remove()) }()
	f.dir = dir.Path
	ctx, cancel := context.WithCancel(ctx)
	type result struct {
		w   *window
		err error
	}
	next := make(chan chan result, f.o.Concurrency)
	var fetching sync.WaitGroup
	defer func() {
		cancel()
		fetching.Wait()
		for done := range next { // what nobody will be told
			got := <-done
			got.w.remove()
		}
	}()
	slots := make(chan struct{}, f.o.Concurrency)
	fetching.Go(func() {
		defer close(next)
		for _, r := range windows {
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
				return
			}
			if !f.rest(ctx) {
				return
			}
			done := make(chan result, 1)
			fetching.Go(func() {
				begin := time.Now()
				w, err := f.fetch(ctx, r)
				f.took.Store(int64(time.Since(begin)))
				done <- result{w, err}
			})
			next <- done // has room: there are no more than slots
		}
	})
	for _, r := range windows {
		done, ok := <-next
		if !ok {
			return ctx.Err()
		}
		got := <-done
		if got.err != nil {
			return fmt.Errorf("read %s: %w", r, got.err)
		}
		err := tellWindow(r, got.w, end, say)
		got.w.remove()
		if err != nil {
			return err
		}
		<-slots
	}
	return nil
}

// rest pauses for as long as the last window took, where the server is to be spared:
// it has half of the time for others. It is false when ctx is done.
func (f *fetcher) rest(ctx context.Context) bool {
	if !f.o.Gentle {
		return true
	}
	select {
	case <-ctx.Done():
		return false
	case <-time.After(time.Duration(f.took.Load())):
		return true
	}
}

func tellWindow(r span, w *window, end *wire.End, say func(wire.Message) error) error {
	if err := say(&wire.BlockStart{ULID: name(r), MinTime: r.min, MaxTime: r.max}); err != nil {
		return err
	}
	series, chunks, err := w.tell(say)
	if err != nil {
		return err
	}
	end.Blocks++
	end.Series += series
	return say(&wire.BlockEnd{Series: series, Chunks: chunks})
}
