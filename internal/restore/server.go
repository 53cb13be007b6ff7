package restore

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/common/model"

	"github.com/promdump/promdump/internal/promapi"
	"github.com/promdump/promdump/internal/wire"
)

// server is the Prometheus on the target's data dir.
type server struct {
	base   *url.URL
	client *http.Client
	every  time.Duration // between two looks

	first promapi.Identity // the chosen one of several servers; zero: any server
}

// errNotFound is what an older server says to an endpoint that it does not have.
var errNotFound = errors.New("not found")

// RequestError reports that a server refuses requests because of the scheme, the
// credentials or a certificate. Waiting cannot help.
type RequestError struct{ Err error }

func (e *RequestError) Error() string { return e.Err.Error() }
func (e *RequestError) Unwrap() error { return e.Err }

// AnswerError reports an answer of success that is not that of a Prometheus, like a
// login page.
type AnswerError struct {
	Path string
	Err  error
}

func (e *AnswerError) Error() string {
	return e.Path + " does not answer like a Prometheus: " + e.Err.Error()
}
func (e *AnswerError) Unwrap() error { return e.Err }

// ReplicaError reports that several servers answer at one URL, and that the one on the
// data dir is unknown.
type ReplicaError struct {
	Servers []promapi.Identity
	Why     string
}

func (e *ReplicaError) Error() string {
	var names []string
	for _, id := range e.Servers {
		names = append(names, id.String())
	}
	return fmt.Sprintf("several servers answer at the URL to wait for (%s), %s", strings.Join(names, "; "), e.Why)
}

// newServer asks by a client; nil: as anybody.
func newServer(base string, client *http.Client) (*server, error) {
	u, err := url.Parse(base)
	if err != nil {
		return nil, errors.New("not a URL") // url.Parse's own error would repeat a password in it
	}
	if u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return nil, fmt.Errorf("%q is not the URL of a server", u.Redacted())
	}
	c := http.Client{}
	if client != nil {
		c = *client
	}
	c.Timeout = 30 * time.Second
	// Whoever answers must not send us, and who we are, elsewhere.
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &server{base: u, client: &c, every: 2 * time.Second}, nil
}

func (s *server) get(ctx context.Context, path string, q url.Values) ([]byte, http.Header, error) {
	u := *s.base
	u.Path = joinPath(u.Path, path)
	u.RawQuery = q.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, nil, err
	}
	resp, err := s.client.Do(req)
	_, certificate := errors.AsType[*tls.CertificateVerificationError](err)
	switch {
	case certificate, errors.Is(err, http.ErrSchemeMismatch):
		return nil, nil, &RequestError{err}
	case err != nil:
		return nil, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	switch {
	case resp.StatusCode == http.StatusNotFound:
		return nil, nil, fmt.Errorf("%s: %w", u.Redacted(), errNotFound)
	case slices.Contains([]int{http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden}, resp.StatusCode):
		return nil, nil, &RequestError{fmt.Errorf("%s: %s: %.100s", u.Redacted(), resp.Status, bytes.TrimSpace(body))}
	case resp.StatusCode != http.StatusOK:
		return nil, nil, fmt.Errorf("%s: %s", u.Redacted(), resp.Status)
	}
	return body, resp.Header, err
}

// ask passes the answer to parse. An error of parse becomes an [AnswerError].
func (s *server) ask(ctx context.Context, path string, q url.Values, parse func([]byte, http.Header) error) error {
	body, header, err := s.get(ctx, path, q)
	if err != nil {
		return err
	}
	if err := parse(body, header); err != nil {
		return &AnswerError{path, err}
	}
	return nil
}

func (s *server) blocks(ctx context.Context) (blocks []promapi.Block, err error) {
	err = s.ask(ctx, promapi.BlocksPath, nil, func(b []byte, _ http.Header) (err error) {
		blocks, err = promapi.Blocks(b)
		return err
	})
	return blocks, err
}

func (s *server) head(ctx context.Context) (head promapi.HeadStats, err error) {
	err = s.ask(ctx, promapi.HeadPath, nil, func(b []byte, _ http.Header) (err error) {
		head, err = promapi.Head(b)
		return err
	})
	return head, err
}

// askServer learns the retention and that the server can be reached at all,
// before anything is written.
func (p *Prepared) askServer(ctx context.Context, t *wire.Target) error {
	s, err := newServer(p.spec.WaitURL, p.spec.Client)
	if err != nil {
		return fmt.Errorf("the server to wait for: %w", err)
	}
	p.server = s
	if err := p.holdServer(ctx, t); err != nil {
		return fmt.Errorf("the server to wait for: %w", err)
	}
	r, err := s.retention(ctx)
	if err != nil {
		return fmt.Errorf("ask the server for its retention: %w", err)
	}
	if p.spec.Retention != 0 {
		r.Time, r.From = p.policy.Retention.Time, p.policy.Retention.From
	}
	p.policy.Retention = r

	// What follows is good to know, and no reason to stop.
	p.policy.Version = s.version(ctx)
	if head, err := s.head(ctx); err == nil && head.Series > 0 && head.MaxTime > 0 {
		p.policy.HeadTime = ms(head.MaxTime)
	}
	return nil
}

// retention reads it where this server has it. A section in the config file wins
// as a whole: without a time in it nothing is deleted by its age, whatever the
// flags say.
func (s *server) retention(ctx context.Context) (Retention, error) {
	r := Retention{From: "the server's flags"}
	var flags map[string]string
	if err := s.ask(ctx, promapi.FlagsPath, nil, func(b []byte, _ http.Header) (err error) {
		flags, err = promapi.Flags(b)
		return err
	}); err != nil {
		return r, err
	}
	size := flags["storage.tsdb.retention.size"]
	if !isZero(size) {
		r.Size = size
	}
	for _, flag := range []string{"storage.tsdb.retention.time", "storage.tsdb.retention"} {
		if text := flags[flag]; !isZero(text) {
			d, err := model.ParseDuration(text)
			if err != nil {
				return r, fmt.Errorf("flag %s: %w", flag, err)
			}
			r.Time = time.Duration(d)
			break
		}
	}
	if r.Time == 0 && r.Size == "" {
		r.Time = defaultRetention
	}

	var config promapi.Config
	if err := s.ask(ctx, promapi.ConfigPath, nil, func(b []byte, _ http.Header) (err error) {
		config, err = promapi.ReadConfig(b)
		return err
	}); err != nil {
		return r, err
	}
	if c := config.Retention; c != nil {
		r = Retention{From: "the server's config"}
		if !isZero(c.Time) {
			d, err := model.ParseDuration(c.Time)
			if err != nil {
				return r, fmt.Errorf("retention in the server's config: %w", err)
			}
			r.Time = time.Duration(d)
		}
		if !isZero(c.Size) {
			r.Size = c.Size
		}
		if c.Percentage > 0 {
			r.Size = fmt.Sprintf("%g%% of the disk", c.Percentage)
		}
	}
	return r, nil
}

// isZero tells whether a flag or field is unset: "", "0s", "0B", "0".
func isZero(text string) bool { return !strings.ContainsAny(text, "123456789") }

// AskReplaced asks the server at a URL, which answers by now or it is an error,
// which of these blocks it serves and how many series its head has.
func AskReplaced(ctx context.Context, client *http.Client, url string, ulids []string) (served []string, series uint64, err error) {
	s, err := newServer(url, client)
	if err != nil {
		return nil, 0, err
	}
	head, err := s.head(ctx)
	if err != nil {
		return nil, 0, err
	}
	blocks, err := s.blocks(ctx)
	if errors.Is(err, errNotFound) {
		return nil, head.Series, nil // an older server does not list them
	}
	// Compared by name only: blocks that replaced them may have the same sources.
	for _, b := range blocks {
		if slices.Contains(ulids, b.ULID) {
			served = append(served, b.ULID)
		}
	}
	slices.Sort(served)
	return served, head.Series, err
}

// AskRetention asks the server at a URL for how long it keeps its data (negative: it
// deletes nothing by its age), and for its version; empty: it does not say.
func AskRetention(ctx context.Context, client *http.Client, url string) (time.Duration, string, error) {
	s, err := newServer(url, client)
	if err != nil {
		return 0, "", err
	}
	r, err := s.retention(ctx)
	if err == nil && r.Time == 0 {
		r.Time = -1
	}
	return r.Time, s.version(ctx), err
}

// version returns the server's version; empty: it does not say.
func (s *server) version(ctx context.Context) (version string) {
	_ = s.ask(ctx, promapi.BuildPath, nil, func(b []byte, _ http.Header) (err error) {
		version, err = promapi.Version(b)
		return err
	})
	return version
}
