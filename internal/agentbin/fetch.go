package agentbin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"
)

// stall is how long a server may be silent. There is no limit for the whole: a
// slow line is no error.
const stall = 30 * time.Second

// fetch writes what is at a URL to w. That a body ended where its sender said is
// checked by net/http; whether it is the right one, by the caller.
func fetch(ctx context.Context, o Options, u *url.URL, w io.Writer, limit int64) error {
	o.Logger.Debug("download", "url", show(u))
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := time.AfterFunc(o.stall, func() { cancel(errStalled) })
	defer silence.Stop()

	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return fail(hintURL, "download %s: %w", show(u), bare(err))
	}
	// Otherwise a server that calls the archive's own compression one of the
	// transport has it removed on the way.
	req.Header.Set("Accept-Encoding", "identity")
	req.Header.Set("User-Agent", "promdump")
	resp, err := onlyDown(o.Client).Do(req)
	if err != nil {
		return fail(hintNetwork, "download %s: %w", show(u), reason(ctx, err))
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return refused(u, resp)
	}
	body := &limited{r: &alive{resp.Body, silence, o.stall}, left: limit}
	n, err := io.Copy(w, &reads{r: body})
	if e, ok := errors.AsType[*readError](err); ok {
		return fail(hintAgain, "download %s: it broke off after %d bytes: %w", show(u), n, reason(ctx, e.err))
	}
	if err != nil {
		return fail(hintTemp, "keep what is downloaded from %s: %w", show(u), err)
	}
	return nil
}

// onlyDown gives a client that never goes from https to http.
func onlyDown(c *http.Client) *http.Client {
	safe := *c
	safe.CheckRedirect = func(req *http.Request, via []*http.Request) error {
		if via[len(via)-1].URL.Scheme == "https" && req.URL.Scheme != "https" {
			return fmt.Errorf("it redirects to %s, which is not https", show(req.URL))
		}
		if c.CheckRedirect != nil {
			return c.CheckRedirect(req, via)
		}
		if len(via) >= 10 {
			return errors.New("it redirects again and again")
		}
		return nil
	}
	return &safe
}

func refused(u *url.URL, resp *http.Response) error {
	hint := hintAgain
	switch resp.StatusCode {
	case http.StatusNotFound, http.StatusGone:
		hint = "is there such a release, with agents? " + hintURL
	case http.StatusUnauthorized, http.StatusForbidden:
		hint = "may you read it? A URL can have a user in it; " + hintURL
	case http.StatusProxyAuthRequired:
		hint = "the proxy asks who you are: HTTPS_PROXY can have a user in it"
	}
	return fail(hint, "download %s: the server says %s", show(u), resp.Status)
}

// reason is why a request failed. "context canceled" would hide that it was us
// who gave up.
func reason(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return bare(err)
}

// bare takes the URL out of an error: it may be that of a redirect, with what
// gives access in it.
func bare(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err
	}
	return err
}

// show is a URL without what gives access.
func show(u *url.URL) string {
	c := *u
	c.RawQuery, c.Fragment = "", ""
	return c.Redacted()
}

// alive takes each byte as a sign of life.
type alive struct {
	io.Reader
	silence *time.Timer
	stall   time.Duration
}

func (a *alive) Read(p []byte) (int, error) {
	n, err := a.Reader.Read(p)
	if n > 0 {
		a.silence.Reset(a.stall)
	}
	return n, err
}

// reads tells an error of the reader from one of the writer in io.Copy.
type reads struct{ r io.Reader }

type readError struct{ err error }

func (e *readError) Error() string { return e.err.Error() }
func (e *readError) Unwrap() error { return e.err }

func (r *reads) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	if err != nil && err != io.EOF {
		err = &readError{err}
	}
	return n, err
}
