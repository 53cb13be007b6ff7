package remoteread

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"sync"
)

// cookies keeps the server's cookies for all paths: an answer may set one for its own
// path only.
type cookies struct {
	mu  sync.Mutex
	all []*http.Cookie
}

func (c *cookies) SetCookies(_ *url.URL, set []*http.Cookie) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, one := range set {
		c.all = slices.DeleteFunc(c.all, func(old *http.Cookie) bool { return old.Name == one.Name })
		if one.MaxAge >= 0 {
			c.all = append(c.all, one)
		}
	}
}

func (c *cookies) Cookies(u *url.URL) (send []*http.Cookie) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, one := range c.all {
		if !one.Secure || u.Scheme == "https" {
			send = append(send, one)
		}
	}
	return send
}

// newClient makes a client with connections of its own.
func (s *Source) newClient() (*http.Client, error) {
	var client http.Client
	switch {
	case s.o.NewClient != nil:
		c, err := s.o.NewClient()
		if err != nil {
			return nil, err
		}
		client = *c
	case s.o.Client != nil:
		client = *s.o.Client
	}
	if client.Transport == nil {
		client.Transport = http.DefaultTransport
	}
	if t, ok := client.Transport.(*http.Transport); ok && s.o.NewClient == nil {
		client.Transport = t.Clone()
	}
	// A redirected POST may become a GET, and credentials would be sent to another
	// host.
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &client, nil
}

// get sends a GET to Prometheus' HTTP API, retries if that may help, and parses the
// answer. ok reports whether the server has that part of the API.
func (se *session) get(ctx context.Context, path string, q url.Values, parse func([]byte, http.Header) error) (ok bool, err error) {
	err = se.p.again(ctx, path, func() (err error) {
		ok, err = se.getOnce(ctx, path, q, parse)
		return err
	})
	return ok, err
}

func (se *session) getOnce(ctx context.Context, path string, q url.Values, parse func([]byte, http.Header) error) (ok bool, err error) {
	p := se.p
	ctx, cancel := context.WithTimeoutCause(ctx, p.o.times.stall, errStall)
	defer cancel()
	req, err := p.request(ctx, http.MethodGet, path, nil)
	if err != nil {
		return false, err
	}
	req.URL.RawQuery = q.Encode()
	resp, err := se.do(req)
	if err != nil {
		return false, transportError(ctx, err)
	}
	defer resp.Body.Close()
	defer drain(resp.Body)
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	if err != nil {
		return false, transportError(ctx, err)
	}
	switch code := resp.StatusCode; {
	case code == http.StatusUnauthorized, code/100 == 3, code == http.StatusTooManyRequests,
		code == http.StatusBadGateway, code == http.StatusServiceUnavailable, code == http.StatusGatewayTimeout:
		err := statusError(resp, string(body), path)
		if tm, ok := errors.AsType[*tooMuch](err); ok {
			err = &broken{err: tm.err}
		}
		return false, err
	case code != http.StatusOK:
		// Other servers have other APIs, and gateways forward only parts of it.
		p.o.Logger.Debug("unknown", "path", path, "status", resp.Status)
		return false, nil
	}
	if err := parse(body, resp.Header); err != nil {
		p.o.Logger.Debug("unknown", "path", path, "error", err)
		return false, nil
	}
	return true, nil
}
