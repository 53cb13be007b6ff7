package query

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/storage/remote"
	"github.com/prometheus/prometheus/util/httputil"
	v1 "github.com/prometheus/prometheus/web/api/v1"
)

const (
	maxBody  = 1 << 20          // maximum size of a request's body, in bytes
	bodyTime = 30 * time.Second // maximum time to receive the body
	grace    = 2 * time.Second  // time to send the error after a request has ended
)

// admission admits requests and enforces the Limits until the last byte of the answer
// is sent: time, memory (see budget) and the length of the answer. A request ends when
// its client disconnects, in any phase.
type admission struct {
	limits  Limits
	budget  *budget
	codec   *codec
	explain func(error) string // returns the error's text for the client
	next    http.Handler

	// endless requests have no time limit as a whole: each of their writes and queries
	// has one.
	endless bool
}

func (s *Server) admit(next http.Handler) *admission {
	return &admission{limits: s.engine.limits, budget: s.engine.budget, codec: s.codec, explain: s.explain, next: next}
}

// request is an admitted request.
type request struct {
	*http.Request
	control *http.ResponseController
	body    []byte      // of a remote read request, which has no form
	samples bool        // a remote read that is answered in one piece
	read    bool        // remote read
	weight  int64       // of its queries
	started atomic.Bool // a part of the answer has been sent
}

func (a *admission) ServeHTTP(w http.ResponseWriter, hr *http.Request) {
	r := &request{Request: hr, control: http.NewResponseController(w), read: hr.URL.Path == "/read"}
	ctx, cancel := context.WithCancel(hr.Context())
	if !a.endless && !r.read {
		ctx, cancel = context.WithTimeoutCause(ctx, a.limits.Timeout, &TimeoutError{a.limits.Timeout})
	}
	defer cancel()
	// A blocked write ends then too; if nothing was sent yet, there is time left to
	// send the reason. An error means that the connection has no deadlines, as in a
	// test.
	stop := context.AfterFunc(ctx, func() {
		end := time.Now()
		if !r.started.Load() {
			end = end.Add(grace)
		}
		_ = r.control.SetWriteDeadline(end)
	})
	defer stop()
	r.Request = hr.WithContext(ctx)
	if err := a.prepare(w, r); err != nil {
		a.refuse(w, err)
		return
	}
	if r.read {
		a.run(w, r)
		return
	}
	httputil.CompressionHandler{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		// Compression is done here: the API's own would come before the answer is
		// encoded.
		r.Request.Header = r.Request.Header.Clone()
		r.Request.Header.Del("Accept-Encoding")
		a.run(w, r)
	})}.ServeHTTP(w, r.Request)
}

// prepare reads the form or the body of the request, and refuses texts that must not be
// parsed.
func (a *admission) prepare(w http.ResponseWriter, r *request) error {
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	if r.ContentLength != 0 {
		_ = r.control.SetReadDeadline(time.Now().Add(bodyTime))
	}
	if r.read {
		return a.prepareRead(r)
	}
	// The API refuses or ignores malformed values.
	err := r.ParseForm()
	if err == nil {
		err = r.ParseMultipartForm(maxBody)
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return &badRequest{fmt.Errorf("read request: %w", err)}
	}
	for _, text := range slices.Concat(r.Form["query"], r.Form["match[]"]) {
		n, err := weigh(text)
		if err != nil {
			return err
		}
		r.weight += n
	}
	// These requests traverse a query without the engine.
	if p := r.URL.Path; p == "/format_query" || p == "/parse_query" {
		if expr, err := NewParser().ParseExpr(r.Form.Get("query")); err == nil {
			return checkDepth(expr)
		}
	}
	return nil
}

func (a *admission) prepareRead(r *request) (err error) {
	if r.body, err = io.ReadAll(r.Body); err != nil {
		return &badRequest{fmt.Errorf("read request: %w", err)}
	}
	again := r.WithContext(r.Context())
	again.Body = io.NopCloser(bytes.NewReader(r.body))
	read, err := remote.DecodeReadRequest(again)
	if err != nil {
		return &badRequest{err}
	}
	kind, err := remote.NegotiateResponseType(read.AcceptedResponseTypes)
	if err != nil {
		return &badRequest{err}
	}
	r.samples = kind == prompb.ReadRequest_SAMPLES
	for _, q := range read.Queries {
		for _, m := range q.Matchers {
			r.weight += repetitions(m.Value)
		}
	}
	return nil
}

// badRequest reports a request that cannot be read.
type badRequest struct{ error }

func (e *badRequest) Unwrap() error { return e.error }

// run answers the request: first as a small one, then as a larger one if it needs more
// memory.
func (a *admission) run(w http.ResponseWriter, r *request) {
	for level := 0; ; level++ {
		ctx, acc, err := a.budget.enter(r.Context(), level)
		if err != nil {
			a.refuse(w, err)
			return
		}
		if a.once(w, r, ctx, acc) {
			return
		}
	}
}

// once reports whether the request was answered, be it with an error.
func (a *admission) once(w http.ResponseWriter, r *request, ctx context.Context, acc *account) bool {
	defer acc.close()
	acc.samples = r.samples
	out := &answerWriter{ResponseWriter: w, admission: a, request: r, ctx: ctx, account: acc, left: a.limits.Answer}
	if acc.charge(requestBytes+r.weight) == nil {
		again := r.WithContext(ctx)
		if r.read {
			again.Body = io.NopCloser(bytes.NewReader(r.body))
		}
		a.next.ServeHTTP(out, again)
	}
	if errors.Is(acc.failed(), errOutgrown) && !r.started.Load() && ctx.Err() == nil {
		return false
	}
	out.finish()
	return true
}

// requestBytes is the memory of a request without the data that it selects: its
// connection and the compression of its answer.
const requestBytes = 2 << 20

// refuse writes an error in the format of the Prometheus API.
func (a *admission) refuse(w http.ResponseWriter, err error) {
	code, kind := http.StatusInternalServerError, "internal"
	_, limit := errors.AsType[*LimitError](err)
	_, busy := errors.AsType[*BusyError](err)
	_, timeout := errors.AsType[*TimeoutError](err)
	_, bad := errors.AsType[*badRequest](err)
	switch {
	case limit:
		code, kind = http.StatusUnprocessableEntity, "execution"
	case busy:
		code, kind = http.StatusServiceUnavailable, "unavailable"
		w.Header().Set("Retry-After", strconv.Itoa(retryAfter))
	case timeout:
		code, kind = http.StatusServiceUnavailable, "timeout"
	case bad:
		code, kind = http.StatusBadRequest, "bad_data"
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			code = http.StatusRequestEntityTooLarge
		}
	case errors.Is(err, context.Canceled):
		code, kind = 499, "canceled" // the code that Prometheus has for it
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	answer(w, v1.Response{Status: "error", ErrorType: kind, Error: a.explain(err)})
}

const retryAfter = 10 // seconds
