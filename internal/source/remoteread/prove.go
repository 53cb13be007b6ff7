package remoteread

import (
	"context"
	"errors"
	"io"
	"maps"

	"github.com/prometheus/prometheus/prompb"

	"github.com/promdump/promdump/internal/promapi"
)

// prove finds a query that certainly has an answer, to be sent as the last query of
// each request. It tries candidates until one has an answer. Without such a query a
// stream is taken as complete when HTTP says so.
func (f *fetcher) prove(ctx context.Context, candidates []*prompb.Query) error {
	for _, c := range candidates {
		var found *prompb.ChunkedReadResponse
		var k kind
		err := f.with(ctx, "look for a sample", func(se *session) (err error) {
			found, k, err = f.first(ctx, se, c)
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
			if f.labels, err = appendKey(nil, found.ChunkedSeries[0].Labels, nil); err != nil {
				return err
			}
			if err := f.with(ctx, promapi.SeriesPath, func(se *session) error { return f.foreign(ctx, se, last, found) }); err != nil {
				return err
			}
			f.o.Logger.Debug("each request ends with a query for", "matchers", last.Matchers, "from", last.StartTimestampMs)
		}
		return nil
	}
	return nil
}

// lastQuery returns a query for the first sample of an answer and everything after it:
// some servers panic at a range that ends within a chunk, see known.end.
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

// foreign returns an error if the answer to q has other external labels than the
// server's config: a proxy may route reads to another server than other requests.
func (f *fetcher) foreign(ctx context.Context, se *session, q *prompb.Query, m *prompb.ChunkedReadResponse) error {
	if !f.k.configKnown {
		return nil
	}
	is := map[string]string{}
	for _, l := range m.ChunkedSeries[0].Labels {
		if _, external := f.k.external[l.Name]; external {
			is[l.Name] = l.Value
		}
	}
	own := map[string]string{}
	for name, value := range f.k.external {
		switch is[name] {
		case value:
			continue
		case "": // Prometheus puts it on each series
			return &LabelsError{Was: list(f.k.external), Is: list(is)}
		}
		own[name] = is[name]
	}
	if len(own) == 0 {
		return nil
	}
	for _, l := range q.Matchers {
		own[l.Name] = l.Value
	}
	ok, some, err := se.series(ctx, own, span{q.StartTimestampMs, q.EndTimestampMs})
	if err != nil || !ok || some {
		return err
	}
	return &LabelsError{Was: list(f.k.external), Is: list(is)}
}

// difference lists the labels of two keys that the other does not have.
func difference(a, b []byte) (was, is string) {
	only := func(x, y []byte) string {
		of := func(key []byte) map[string]string {
			m := map[string]string{}
			var all []string
			parts(key, func(s string) { all = append(all, s) })
			for i := 0; i+1 < len(all); i += 2 {
				m[all[i]] = all[i+1]
			}
			return m
		}
		mine, other := of(x), of(y)
		maps.DeleteFunc(mine, func(name, value string) bool { return other[name] == value })
		return list(mine)
	}
	return only(a, b), only(b, a)
}

// first returns the first frame of an answer that has a chunk, if there is one.
func (f *fetcher) first(ctx context.Context, se *session, q *prompb.Query) (*prompb.ChunkedReadResponse, kind, error) {
	ctx, moved, stop := f.watch(ctx)
	defer stop()
	resp, err := se.post(ctx, []*prompb.Query{q})
	if err != nil {
		return nil, 0, err
	}
	defer resp.Body.Close() // not read to its end, so that the server can stop
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

// tryLast reports whether a server answers a repeated query twice, in order.
func (f *fetcher) tryLast(ctx context.Context, q *prompb.Query) (works bool, err error) {
	err = f.with(ctx, "look for a sample", func(se *session) error {
		works = false
		ctx, moved, stop := f.watch(ctx)
		defer stop()
		resp, err := se.post(ctx, []*prompb.Query{q, q})
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		defer drain(resp.Body)
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
		err = nil // it supports one query at a time
	}
	if err == nil && !works {
		f.o.Logger.Debug("the server does not answer several queries in turn")
	}
	return works, err
}
