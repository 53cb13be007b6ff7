package kube

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/streaming/pkg/httpstream/wsstream"
)

// The protocols of streams.
const (
	webSocket = "WebSocket"
	spdyName  = "SPDY"
)

// attempt is one request that was to begin a stream.
type attempt struct {
	protocol string
	status   int         // HTTP status of the answer; 0: none came
	header   http.Header // of the answer; nil over WebSocket, where client-go drops it
	err      error       // nil: the stream began; an *apierrors.StatusError: an API server refuses it
}

// attempts records how the requests for one stream went. client-go returns the error
// of the last one only, over SPDY as text without the status, and the errors of the
// stream itself look the same: an API server that cannot reach a kubelet sends
// "dial tcp …", as the dialer on this machine does.
type attempts struct {
	mu    sync.Mutex
	all   []attempt
	began time.Time
}

// watch returns a copy of a config whose requests are recorded.
func (a *attempts) watch(config *rest.Config) *rest.Config {
	config = rest.CopyConfig(config)
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { return &recorder{next, a} })
	return config
}

// list returns the first attempt of each protocol, WebSocket's before SPDY's, whatever
// their order was. SPDY's client follows redirects.
func (a *attempts) list() []attempt {
	firsts := a.firsts()
	slices.SortStableFunc(firsts, func(x, y attempt) int { return strings.Compare(y.protocol, x.protocol) })
	return firsts
}

func (a *attempts) firsts() (firsts []attempt) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, one := range a.all {
		if !slices.ContainsFunc(firsts, func(f attempt) bool { return f.protocol == one.protocol }) {
			firsts = append(firsts, one)
		}
	}
	return firsts
}

// begun reports whether a stream began. Later errors come from behind the API server,
// or say that the connection broke.
func (a *attempts) begun() bool {
	all := a.firsts()
	return len(all) > 0 && all[len(all)-1].err == nil
}

// spdyRefused reports whether SPDY was refused in a way that WebSocket may not be. What
// cannot be connected to, or has no such pod, has neither, and an API server that does not
// come through to a kubelet does not either.
func (a *attempts) spdyRefused() bool {
	all := a.firsts()
	if len(all) == 0 || all[0].err == nil {
		return false
	}
	err := all[0].err
	s, ok := errors.AsType[*apierrors.StatusError](err)
	if ok && (apierrors.IsNotFound(s) || apierrors.IsUnauthorized(s) || s.ErrStatus.Code/100 == 5) {
		return false
	}
	return all[0].status != 0 || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET)
}

// age is that of the stream; 0: none began.
func (a *attempts) age() time.Duration {
	if !a.begun() {
		return 0
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return time.Since(a.began)
}

type recorder struct {
	next http.RoundTripper
	to   *attempts
}

// WrappedRoundTripper lets client-go find the TLS configuration below.
func (r *recorder) WrappedRoundTripper() http.RoundTripper { return r.next }

func (r *recorder) RoundTrip(req *http.Request) (*http.Response, error) {
	at := attempt{protocol: spdyName}
	if len(req.Header[wsstream.WebSocketProtocolHeader]) > 0 {
		at.protocol = webSocket
	}
	resp, err := r.next.RoundTrip(req)
	switch {
	case err != nil:
		at.err = upgradeCause(err)
		at.status = handshakeStatus(at.err)
	case resp.StatusCode != http.StatusSwitchingProtocols:
		at.status, at.header = resp.StatusCode, resp.Header
		at.err = refusalOf(resp)
	}
	r.to.mu.Lock()
	defer r.to.mu.Unlock()
	r.to.all, r.to.began = append(r.to.all, at), time.Now()
	return resp, err
}

// refusal is the answer of something that is not an API server, or of a kubelet.
type refusal struct {
	status string // like "403 Forbidden"
	text   string
}

func (e *refusal) Error() string { return join(e.status, e.text) }

const maxRefusal = 64 << 10 // as client-go reads

// refusalOf reads an answer that does not begin a stream, and leaves it to be read.
func refusalOf(resp *http.Response) error {
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxRefusal))
	_ = resp.Body.Close()
	resp.Body = io.NopCloser(bytes.NewReader(body))
	if err != nil {
		return &refusal{status: resp.Status}
	}
	var s metav1.Status
	if json.Unmarshal(body, &s) == nil && s.Kind == "Status" && s.Status == metav1.StatusFailure {
		return &apierrors.StatusError{ErrStatus: s}
	}
	return &refusal{resp.Status, oneLine(string(body))}
}

// oneLine is the first line of an answer for a person, or "" if it is a page.
func oneLine(text string) string {
	text = firstLine(text)
	if strings.HasPrefix(text, "<") {
		return ""
	}
	const longest = 200
	if len(text) > longest {
		text = text[:longest] + "…"
	}
	return text
}

// handshake matches how client-go words an answer that is not a Status:
// fmt.Errorf("%w (%s)", err, resp.Status), client-go/transport/websocket/roundtripper.go:136.
// It has no type for it.
var handshake = regexp.MustCompile(`^websocket: bad handshake \((\d{3}) ?([^)]*)\)(?:: ([^\n]*))?`)

// handshakeStatus is the HTTP status of a WebSocket handshake that failed, or 0.
func handshakeStatus(err error) int {
	if s, ok := errors.AsType[*apierrors.StatusError](err); ok {
		return int(s.ErrStatus.Code)
	}
	m := handshake.FindStringSubmatch(err.Error())
	if m == nil {
		return 0
	}
	n, _ := strconv.Atoi(m[1])
	return n
}

// String is what a person should know of an attempt that failed.
func (a attempt) String() string {
	text := a.err.Error()
	if m := handshake.FindStringSubmatch(text); m != nil {
		text = join(strings.TrimSpace(m[1]+" "+m[2]), oneLine(m[3]))
	} else if s, ok := errors.AsType[*apierrors.StatusError](a.err); ok {
		text = fmt.Sprintf("%d %s", s.ErrStatus.Code, s.ErrStatus.Message)
	} else if a.status == 0 {
		text = rootOf(a.err)
	}
	return a.protocol + ": " + text
}
