package kube

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/gorilla/websocket"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/promdump/promdump/internal/retry"
)

// StreamError reports a stream that broke, or did not begin for a reason that is not
// known. Trying again may help.
type StreamError struct {
	Doing string
	Err   error
	Age   time.Duration // of the stream when it broke; 0: it did not begin
}

func (e *StreamError) Error() string { return fmt.Sprintf("%s: %v", e.Doing, e.Err) }
func (e *StreamError) Unwrap() error { return e.Err }

// Retry implements [retry.Of].
func (e *StreamError) Retry() retry.Advice { return retry.Yes }

// Cut reports whether the connection ended, rather than the command in the container.
func (e *StreamError) Cut() bool {
	closed, isClosed := errors.AsType[*websocket.CloseError](e.Err)
	return e.Age > 0 && (isClosed && closed.Code != websocket.CloseNormalClosure ||
		errors.Is(e.Err, io.ErrUnexpectedEOF) || errors.Is(e.Err, io.EOF) ||
		errors.Is(e.Err, syscall.ECONNRESET) || errors.Is(e.Err, syscall.ETIMEDOUT) || errors.Is(e.Err, syscall.EPIPE))
}

// Hint returns what may have cut the connection; empty if it was not cut.
func (e *StreamError) Hint() string {
	if !e.Cut() {
		return ""
	}
	return fmt.Sprintf("the connection was cut after %v: if that time is always the same, "+
		"a load balancer, proxy or VPN before the API server has a time limit for streams", e.Age.Round(time.Second))
}

// UpgradeError reports that something between this machine and the API server lets
// through neither protocol of streams.
type UpgradeError struct {
	Server   string
	Proxy    string   // that requests go by; may be empty
	Gateway  string   // what the answers say of their sender; may be empty
	Location string   // where the sender wants the request instead; may be empty
	Refused  []string // for each protocol

	stripped bool   // the API server got the request without its upgrade
	role     string // that would allow the protocol which was not refused by the gateway
}

func (e *UpgradeError) Error() string {
	return fmt.Sprintf("neither WebSocket nor SPDY comes through to the API server %s: %s",
		e.Server, strings.Join(e.Refused, "; "))
}

// ExitCode is that of the command.
func (e *UpgradeError) ExitCode() int { return codeFailed }

// Retry implements [retry.Of].
func (e *UpgradeError) Retry() retry.Advice { return retry.No }

// Hint returns what to do about it.
func (e *UpgradeError) Hint() string {
	who := "a proxy or gateway before the API server"
	if e.Gateway != "" {
		who += " (" + e.Gateway + ")"
	}
	who += by(e.Proxy)
	switch {
	case e.role != "":
		return who + " refuses SPDY; over WebSocket the cluster does not allow it: " +
			"a cluster administrator grants that with kubectl apply -f - and this:\n" + e.role
	case e.Location != "":
		return who + " sends the request to " + e.Location + ": log in there, or take the address of the API server itself with --server"
	case e.stripped:
		return who + " drops the header Upgrade, so that no stream can begin, and kubectl exec also fails: " +
			"it must pass on \"Upgrade: websocket\" and \"Connection: Upgrade\" over HTTP/1.1; " +
			"--server or --context takes another way to the cluster"
	}
	return who + " refuses streams, and kubectl exec also fails: it must allow WebSocket " +
		"(\"Upgrade: websocket\" over HTTP/1.1) or SPDY; " +
		"NO_PROXY goes around a proxy, --server or --context take another way to the cluster"
}

// NodeError reports that the API server does not come through to the kubelet of a
// node, over which all streams to its pods go.
type NodeError struct {
	Node     string
	NotReady string // why the node is not ready, as the cluster says; empty: it is, or that is not known
	Err      error  // as the API server words it

	refuses bool // the kubelet answers, and refuses the API server
	lasting bool
}

func (e *NodeError) Error() string {
	text := fmt.Sprintf("the API server cannot reach the kubelet of node %s: %v", e.Node, e.Err)
	if e.refuses {
		text = fmt.Sprintf("the kubelet of node %s refuses the API server: %v", e.Node, e.Err)
	}
	if e.NotReady != "" {
		text += " (the node is not ready: " + e.NotReady + ")"
	}
	return text
}
func (e *NodeError) Unwrap() error { return e.Err }

// ExitCode is that of the command.
func (e *NodeError) ExitCode() int { return codeFailed }

// Retry implements [retry.Of]. A kubelet that restarts is back long before its node
// counts as not ready.
func (e *NodeError) Retry() retry.Advice {
	switch {
	case e.lasting:
		return retry.No
	case e.NotReady != "":
		return retry.AfterSuccess
	}
	return retry.Yes
}

// Hint returns what to do about it.
func (e *NodeError) Hint() string {
	if e.lasting {
		return fmt.Sprintf("kubectl logs and kubectl exec also fail on node %s: ask a cluster administrator to fix it "+
			"(kubectl get csr, the kubelet's certificate, the rights of the API server to it)", e.Node)
	}
	return fmt.Sprintf("kubectl logs and kubectl exec also fail there; see kubectl describe node %s", e.Node)
}

// WebhookError reports that an admission webhook of the cluster did not answer the API
// server, which therefore refuses the request.
type WebhookError struct{ Err error }

func (e *WebhookError) Error() string {
	return "the cluster cannot decide whether it is allowed: " + e.Err.Error()
}
func (e *WebhookError) Unwrap() error { return e.Err }

// ExitCode is that of the command.
func (e *WebhookError) ExitCode() int { return codeFailed }

// Retry implements [retry.Of].
func (e *WebhookError) Retry() retry.Advice { return retry.AfterSuccess }

// Hint returns what to do about it.
func (e *WebhookError) Hint() string {
	return "an admission webhook of the cluster does not work: ask a cluster administrator to fix it; " +
		"kubectl get validatingwebhookconfigurations names them"
}

// The texts of Kubernetes that mean a class of errors. They come without a type: over
// WebSocket all that client-go gives of a Status is its message
// (client-go/tools/remotecommand/v4.go:124).
var (
	// apimachinery/pkg/util/proxy/upgradeaware.go:500
	dialingBackend = regexp.MustCompile(`error dialing backend: (.+)`)

	// The API server is SPDY's client where it translates from WebSocket:
	// client-go/transport/spdy/spdy.go:113 behind apiserver/pkg/util/proxy/streamtranslator.go:134.
	sendingToKubelet = regexp.MustCompile(`error sending request: (?:Get|Post) "[^"]*": (.+)`)

	// kubernetes/pkg/kubelet/server/server.go:388 and :426
	kubeletRefuses = regexp.MustCompile(`(?:^|: )(Unauthorized|Forbidden \(user=.+)$`)

	// kubernetes/pkg/util/node/node.go:44
	noAddress = regexp.MustCompile(`no preferred addresses found.*`)

	// Of the kubelet's certificate, or the API server's: neither is renewed by waiting.
	backendTLS = regexp.MustCompile(`x509: |tls: `)

	// apiserver/pkg/admission/plugin/webhook/errors/statuserror.go:29
	webhookDenies = regexp.MustCompile(`admission webhook ".*" denied the request`)

	// apiserver/pkg/util/webhook/error.go:36
	webhookFails = regexp.MustCompile(`failed calling webhook ".*`)
)

// notUpgraded is what an API server answers to a request for a stream that came without
// "Connection: Upgrade": apimachinery/pkg/util/proxy/upgradeaware.go:218.
const notUpgraded = "Upgrade request required"

// nodeError explains what an API server reports about a kubelet; nil if it reports nothing.
func (c *Client) nodeError(ctx context.Context, t Target, text string, begun bool) error {
	e := &NodeError{Node: t.Node}
	switch {
	case dialingBackend.MatchString(text):
		e.Err = errors.New(dialingBackend.FindStringSubmatch(text)[1])
	case begun && sendingToKubelet.MatchString(text):
		e.Err = errors.New(sendingToKubelet.FindStringSubmatch(text)[1])
	case noAddress.MatchString(text):
		e.Err, e.lasting = errors.New(noAddress.FindString(text)), true
	case begun && kubeletRefuses.MatchString(text), strings.Contains(text, "Forbidden (user="):
		e.Err, e.lasting, e.refuses = errors.New(kubeletRefuses.FindStringSubmatch(text)[1]), true, true
	default:
		return nil
	}
	e.lasting = e.lasting || backendTLS.MatchString(e.Err.Error())
	e.NotReady = c.notReady(ctx, t.Node)
	return e
}

// notReady is why a node is not ready, if that is so and may be known.
func (c *Client) notReady(ctx context.Context, node string) string {
	ctx, cancel := context.WithTimeout(quiet(ctx), aside)
	defer cancel()
	n := &corev1.Node{}
	if err := c.core.RESTClient().Get().MaxRetries(0).Resource("nodes").Name(node).Do(ctx).Into(n); err != nil {
		return ""
	}
	for _, s := range n.Status.Conditions {
		if s.Type == corev1.NodeReady && s.Status != corev1.ConditionTrue {
			return join(s.Reason, firstLine(s.Message))
		}
	}
	return ""
}

// answered explains a Status of the API server; nil: it has no class.
func (c *Client) answered(err error, a Access) error {
	s, ok := errors.AsType[*apierrors.StatusError](err)
	if !ok {
		return nil
	}
	text := s.ErrStatus.Message
	foreign := apierrors.HasStatusCause(s, metav1.CauseTypeUnexpectedServerResponse)
	delay, _ := apierrors.SuggestsClientDelay(s)
	switch {
	case apierrors.IsUnauthorized(s):
		return &LoginError{Err: err, Refreshed: c.refreshed()}
	case passing(int(s.ErrStatus.Code)):
		return &UnavailableError{Server: c.Server, Err: err, after: time.Duration(delay) * time.Second}
	case foreign && s.ErrStatus.Code/100 != 5 && !apierrors.IsNotFound(s):
		return &GatewayError{Server: c.Server, Proxy: c.proxy.String(), Said: saidBy(s), Err: err}
	case webhookFails.MatchString(text):
		return &WebhookError{Err: errors.New(webhookFails.FindString(text))}
	case apierrors.IsForbidden(s), webhookDenies.MatchString(text):
		return denied(err.Error(), a)
	}
	return nil
}

// passing reports whether a status is one of a server, or a load balancer, that takes
// requests again later.
func passing(status int) bool {
	return slices.Contains([]int{
		http.StatusRequestTimeout, http.StatusTooManyRequests,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout,
	}, status)
}

// refused explains why a stream did not begin. What has no class is nil: then the text
// of the error may say more.
func (c *Client) refused(ctx context.Context, t Target, tries []attempt, err error, a Access) error {
	if len(tries) == 0 {
		return c.unreached(err) // it did not leave this machine
	}
	last := tries[len(tries)-1]
	_, page := errors.AsType[*refusal](last.err)
	foreign := page || errors.Is(last.err, websocket.ErrBadHandshake)
	text := last.err.Error()
	switch {
	case strings.Contains(text, notUpgraded):
		return c.upgradeError(tries, a)
	case isStatus(last.err):
		if e := c.answered(last.err, a); e != nil {
			return e
		}
		if s, _ := errors.AsType[*apierrors.StatusError](last.err); apierrors.IsNotFound(s) && s.ErrStatus.Details != nil && s.ErrStatus.Details.Kind == "nodes" {
			return &NodeError{Node: t.Node, Err: errors.New("the cluster has no such node any more"), lasting: true}
		}
		return c.nodeError(ctx, t, text, false)
	case last.status == 0 && (len(tries) == 1 || !errors.Is(tries[0].err, websocket.ErrBadHandshake)):
		return c.network(last.err)
	case noCommand(text) != "":
		return nil // the kubelet answers, past the API server
	case strings.Contains(text, "Forbidden (user="):
		return c.nodeError(ctx, t, text, false)
	case passing(last.status):
		return &UnavailableError{Server: c.Server, Err: errors.New(strings.TrimPrefix(last.String(), last.protocol+": ")), after: retryAfter(last.header)}
	case last.status == http.StatusUnauthorized:
		return &LoginError{Err: last.err, Refreshed: c.refreshed()}
	case foreign || last.status == 0:
		if e := c.answeredFirst(ctx, t, tries, err, a); e != nil {
			return e
		}
		return c.upgradeError(tries, a)
	}
	return nil
}

// answeredFirst explains what an API server answered over the first protocol, where a
// gateway refuses the second one. nil: it does not say why. A right that is missing is
// a part of the [UpgradeError].
func (c *Client) answeredFirst(ctx context.Context, t Target, tries []attempt, err error, a Access) error {
	first := tries[0]
	if len(tries) == 1 || !isStatus(first.err) || strings.Contains(first.err.Error(), notUpgraded) {
		return nil
	}
	e := c.refused(ctx, t, tries[:1], err, a)
	if _, right := errors.AsType[*PermissionError](e); right {
		return nil
	}
	return e
}

func (c *Client) upgradeError(tries []attempt, a Access) *UpgradeError {
	e := &UpgradeError{Server: c.Server, Proxy: c.proxy.String()}
	for _, t := range tries {
		e.Refused = append(e.Refused, t.String())
		e.stripped = e.stripped || strings.Contains(t.err.Error(), notUpgraded)
		if p, ok := errors.AsType[*PermissionError](c.answered(t.err, a)); ok && p.Verb != "" {
			e.role = p.Role(a)
		}
		if t.header == nil {
			continue
		}
		e.Location = t.header.Get("Location")
		e.Gateway = join(t.header.Get("Server"), t.header.Get("Via"))
	}
	return e
}

// retryAfter is the pause that an answer asks for, in whole seconds as servers send it.
func retryAfter(h http.Header) time.Duration {
	d, err := time.ParseDuration(h.Get("Retry-After") + "s")
	if err != nil || d < 0 {
		return 0
	}
	return d
}
