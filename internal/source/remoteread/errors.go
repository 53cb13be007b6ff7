package remoteread

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/promdump/promdump/internal/promapi"
)

// RefusedError says that remote read cannot do what was asked for.
type RefusedError struct{ What, Why, Tip string }

func (e *RefusedError) Error() string {
	return fmt.Sprintf("%s is not possible by remote read: %s", e.What, e.Why)
}

// ExitCode is that of a command line that is wrong.
func (e *RefusedError) ExitCode() int { return 2 }

// Hint returns what to do about it.
func (e *RefusedError) Hint() string { return e.Tip }

// ServerError says that the server, or what stands before it, will not answer,
// however often it is asked.
type ServerError struct {
	What string
	Tip  string
	Code int // exit code
}

func (e *ServerError) Error() string { return e.What }

// ExitCode is that of the command.
func (e *ServerError) ExitCode() int { return max(e.Code, 1) }

// Hint returns what to do about it.
func (e *ServerError) Hint() string { return e.Tip }

// AnswerError reports an answer of success to a remote read that is something else,
// like the login page of a proxy.
type AnswerError struct{ What string }

func (e *AnswerError) Error() string {
	return promapi.ReadPath + ": the answer is " + e.What + ", not that of a remote read"
}

// UnknownError reports a server that does not report what it has.
type UnknownError struct{}

func (e *UnknownError) Error() string {
	return "what the server has is unknown: it answers neither " + promapi.HeadPath + " nor " + promapi.BlocksPath +
		" as a Prometheus does"
}

// ReplicaError reports that several servers answer at one URL, and that a read cannot
// be restricted to the first of them.
type ReplicaError struct {
	First, Other promapi.Identity
	Why          string
}

func (e *ReplicaError) Error() string {
	return fmt.Sprintf("several servers answer at this URL (%s; %s), %s", e.First, e.Other, e.Why)
}

// LabelsError reports that answers differ in the labels that the server adds to each
// series: another server has answered, or the server's config has changed.
type LabelsError struct{ Was, Is string }

func (e *LabelsError) Error() string {
	return fmt.Sprintf("the external labels of the server changed while it was read, from {%s} to {%s}", e.Was, e.Is)
}

// LostError says that the server did not answer again and again.
type LostError struct {
	Tries int // in a row
	Err   error
}

func (e *LostError) Error() string {
	return fmt.Sprintf("the server does not answer as it should (%d tries): %v", e.Tries, e.Err)
}

func (e *LostError) Unwrap() error { return e.Err }

// ExitCode is that of any error: nothing of a dump can be gone on with.
func (e *LostError) ExitCode() int { return 1 }

// Hint returns what to do about it.
func (e *LostError) Hint() string {
	return "is the server alive, and does it have memory left? Try again, or take less at once: a shorter range, --match, --concurrency 1"
}

// FrameError says that what came is not what the protocol says.
type FrameError struct{ Reason string }

func (e *FrameError) Error() string { return "the answer is damaged: " + e.Reason }

// tooMuch is an error that a smaller window may not have.
type tooMuch struct{ err error }

func (e *tooMuch) Error() string { return e.err.Error() }
func (e *tooMuch) Unwrap() error { return e.err }

// broken is an error that another try may not have.
type broken struct {
	err   error
	after time.Duration // the server asks for a pause; 0: it does not
	cut   bool          // the answer had begun or the connection ended
}

func (e *broken) Error() string { return e.err.Error() }
func (e *broken) Unwrap() error { return e.err }

// limits are what servers say about too much.
var limits = regexp.MustCompile(`(?i)limit|exceed|too (many|large|big|long)|time[d ]*out|deadline|out of memory|maximum|max-`)

// statusError reads an answer that is not a success.
func statusError(resp *http.Response, body, where string) error {
	said := strings.TrimSpace(body)
	if strings.HasPrefix(said, "<") { // a page of a proxy
		said = ""
	}
	if len(said) > 500 {
		said = said[:500] + "…"
	}
	what := fmt.Sprintf("%s: %s", where, resp.Status)
	if said != "" {
		what += ": " + said
	}
	err := fmt.Errorf("%s", what)
	switch code := resp.StatusCode; {
	case code == http.StatusUnauthorized:
		return &ServerError{What: what, Code: 11, Tip: "the server asks who you are: --basic-auth-user with --basic-auth-password-file, --bearer-token-file, or --header"}
	case code == http.StatusForbidden:
		return &ServerError{What: what, Code: 11, Tip: "the server does not allow it to these credentials"}
	case code/100 == 3:
		to := resp.Header.Get("Location")
		return &ServerError{What: what, Code: 10, Tip: fmt.Sprintf("it sends to %q: give the URL that it means, redirects are not followed", to)}
	case code == http.StatusNotFound, code == http.StatusMethodNotAllowed, strings.Contains(said, "unsupported path"): // VictoriaMetrics' 400
		return &ServerError{What: what, Code: 10, Tip: "the URL is that of the server with its path prefix (--web.route-prefix, or /prometheus for Mimir), without /api/v1/read; agents and Thanos Query do not have remote read"}
	case code == http.StatusTooManyRequests:
		return &broken{err: err, after: retryAfter(resp)}
	case code == http.StatusRequestEntityTooLarge, code == http.StatusUnprocessableEntity, code == http.StatusGatewayTimeout, code == http.StatusRequestTimeout:
		return &tooMuch{err}
	case code == http.StatusServiceUnavailable && retryAfter(resp) > 0:
		return &broken{err: err, after: retryAfter(resp)}
	case limits.MatchString(said):
		return &tooMuch{err}
	case code/100 == 5:
		return &broken{err: err}
	}
	if resp.StatusCode/100 == 2 {
		return &AnswerError{What: "empty: " + resp.Status}
	}
	return &ServerError{What: what}
}
