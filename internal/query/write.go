package query

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	v1 "github.com/prometheus/prometheus/web/api/v1"
)

// codec makes Prometheus' API stream its answers. The API encodes an answer as a whole
// and then writes it. This codec encodes it as a token; the answerWriter receives the
// token and encodes the answer into the connection.
type codec struct{ answers sync.Map } // by the address of their tokens' first bytes

// ContentType implements v1.Codec.
func (*codec) ContentType() v1.MIMEType { return v1.JSONCodec{}.ContentType() }

// CanEncode implements v1.Codec.
func (*codec) CanEncode(*v1.Response) bool { return true }

// Encode implements v1.Codec.
func (c *codec) Encode(r *v1.Response) ([]byte, error) {
	token := []byte("see codec")
	c.answers.Store(&token[0], r)
	return token, nil
}

// take returns the answer of a token and forgets it.
func (c *codec) take(token []byte) *v1.Response {
	if len(token) == 0 {
		return nil
	}
	r, ok := c.answers.LoadAndDelete(&token[0])
	if !ok {
		return nil
	}
	return r.(*v1.Response)
}

// answerWriter sends an answer within the limits. Until its first byte is sent, the
// answer can still be replaced by an error; after that it can only be cut, which the
// client sees as a broken connection.
type answerWriter struct {
	http.ResponseWriter
	admission *admission
	request   *request
	ctx       context.Context
	account   *account
	left      int64 // bytes of the answer

	code int
	err  error // why the rest is not sent
}

// WriteHeader implements http.ResponseWriter. The header is sent with the first byte.
func (w *answerWriter) WriteHeader(code int) {
	if w.code == 0 {
		w.code = code
	}
}

// Write implements http.ResponseWriter. Bytes that cannot be sent are dropped without
// an error, which the API would only log; finish handles the failure.
func (w *answerWriter) Write(p []byte) (int, error) {
	if r := w.admission.codec.take(p); r != nil {
		w.stream(r)
		return len(p), nil
	}
	_, err := w.send(p)
	if w.request.read {
		return len(p), err // without an error remote read would go on reading
	}
	return len(p), nil
}

// stream encodes the answer of a query. An answer that may be too long is encoded
// twice, so that the client receives an error and not half an answer.
func (w *answerWriter) stream(r *v1.Response) {
	if w.err = w.failure(); w.err != nil {
		return
	}
	if mayExceed(r, w.left) {
		if err := encode(&checked{&limited{w.left}, w.ctx}, r); err != nil {
			w.err = err
			if errors.Is(err, errTooLong) {
				w.account.fail(&LimitError{Limit: LimitAnswer, Max: w.admission.limits.Answer})
			}
			return
		}
	}
	if err := encode(sender{w}, r); err != nil && w.err == nil {
		w.err = err
	}
}

// checked ends when the request does.
type checked struct {
	io.Writer
	ctx context.Context
}

func (c *checked) Write(p []byte) (int, error) {
	if err := context.Cause(c.ctx); err != nil {
		return 0, err
	}
	return c.Writer.Write(p)
}

type sender struct{ w *answerWriter }

func (s sender) Write(p []byte) (int, error) { return s.w.send(p) }

// send writes bytes of the answer.
func (w *answerWriter) send(p []byte) (int, error) {
	if w.err == nil {
		w.err = w.failure()
	}
	if w.err != nil {
		return 0, w.err
	}
	if w.request.read && !w.request.samples {
		// The stream as a whole has no time limit, but each frame must be received in
		// time.
		_ = w.request.control.SetWriteDeadline(time.Now().Add(w.admission.limits.Timeout))
	} else if w.left -= int64(len(p)); w.left < 0 {
		w.err = &LimitError{Limit: LimitAnswer, Max: w.admission.limits.Answer}
		w.account.fail(w.err)
		return 0, w.err
	}
	if !w.request.started.Swap(true) {
		w.header()
	}
	var n int
	n, w.err = w.ResponseWriter.Write(p)
	return n, w.err
}

func (w *answerWriter) header() {
	h := w.Header()
	if all := h["Vary"]; len(all) > 1 { // each compression adds one
		h["Vary"] = all[:1]
	}
	if w.code != 0 {
		w.ResponseWriter.WriteHeader(w.code)
	}
}

// failure returns why the answer must not be continued.
func (w *answerWriter) failure() error {
	if err := w.account.failed(); err != nil {
		return err
	}
	return context.Cause(w.ctx)
}

// Flush implements http.Flusher, for remote read.
func (w *answerWriter) Flush() {
	if w.request.started.Load() && w.err == nil {
		w.err = w.request.control.Flush()
	}
}

// finish ends the answer: as an error if nothing was sent, or by breaking the
// connection if a part was.
func (w *answerWriter) finish() {
	switch err := w.failure(); {
	case w.request.started.Load():
		if w.err != nil {
			panic(http.ErrAbortHandler)
		}
	case err != nil:
		w.admission.refuse(w.ResponseWriter, err)
	case w.err != nil:
		w.admission.refuse(w.ResponseWriter, w.err)
	default:
		w.header()
	}
}
