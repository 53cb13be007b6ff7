package kube

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os/exec"
	"reflect"
	"regexp"
	"strings"
	"syscall"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/rest"

	"github.com/promdump/promdump/internal/retry"
)

// UnreachableError reports that the API server does not answer.
type UnreachableError struct {
	Server string
	Err    error
}

func (e *UnreachableError) Error() string {
	return fmt.Sprintf("the API server %s cannot be reached: %s", e.Server, rootOf(e.Err))
}
func (e *UnreachableError) Unwrap() error { return e.Err }

// ExitCode is that of the command.
func (e *UnreachableError) ExitCode() int { return codeFailed }

// Retry implements [retry.Of].
func (e *UnreachableError) Retry() retry.Advice { return retry.AfterSuccess }

// Hint returns what to do about it.
func (e *UnreachableError) Hint() string {
	dns, isDNS := errors.AsType[*net.DNSError](e.Err)
	timeout, isNet := errors.AsType[net.Error](e.Err)
	switch {
	case isDNS && dns.IsNotFound:
		return "the kubeconfig names a host that is not known here: is the VPN on? --context takes another cluster"
	case isDNS:
		return "the name server did not answer: is the network up, and the VPN on?"
	case errors.Is(e.Err, syscall.ECONNREFUSED):
		return "nothing listens there: is the cluster up, the port right, and the VPN on? " +
			"kubectl cluster-info asks the same server; --context takes another"
	case isNet && timeout.Timeout():
		return "no answer came in time: is the VPN on, and does a firewall let it through? " +
			"kubectl cluster-info asks the same server"
	}
	return "is the cluster up, and the VPN or proxy on? kubectl cluster-info asks the same server; --context takes another"
}

// CertificateError reports that this machine and the API server do not trust each
// other: no TLS connection comes about.
type CertificateError struct {
	Server string
	Proxy  string // that is in between; may be empty
	Err    error
}

func (e *CertificateError) Error() string {
	return fmt.Sprintf("no secure connection to the API server %s: %s", e.Server, rootOf(e.Err))
}
func (e *CertificateError) Unwrap() error { return e.Err }

// ExitCode is that of the command.
func (e *CertificateError) ExitCode() int { return codeFailed }

// Retry implements [retry.Of].
func (e *CertificateError) Retry() retry.Advice { return retry.No }

// Hint returns what to do about it.
func (e *CertificateError) Hint() string {
	_, unknown := errors.AsType[x509.UnknownAuthorityError](e.Err)
	_, name := errors.AsType[x509.HostnameError](e.Err)
	invalid, isInvalid := errors.AsType[x509.CertificateInvalidError](e.Err)
	_, alert := errors.AsType[tls.AlertError](e.Err)
	switch {
	case unknown && e.Proxy != "":
		return "the kubeconfig does not know who signed the certificate: the proxy " + e.Proxy + " may sign its own; " +
			"--certificate-authority FILE names the authority, NO_PROXY goes around the proxy"
	case unknown:
		return "the kubeconfig does not know who signed the certificate: --certificate-authority FILE names the authority; " +
			"a cluster that was made anew has another, so get its kubeconfig again"
	case name:
		return "the certificate is for another name: --tls-server-name NAME says which"
	case isInvalid && invalid.Reason == x509.Expired:
		return "the certificate of the API server has expired, or the clock of this machine is wrong"
	case alert:
		return "the API server, or a proxy before it, refuses TLS with this client: " +
			"is the client certificate of the kubeconfig its own?"
	case notTLS(e.Err):
		return "it does not speak TLS: is the scheme http://, or the port another one?"
	}
	return "its certificate is not the one that the kubeconfig expects; " +
		"--certificate-authority FILE and --tls-server-name NAME tell another"
}

func notTLS(err error) bool {
	_, record := errors.AsType[tls.RecordHeaderError](err)
	return record || errors.Is(err, http.ErrSchemeMismatch)
}

// untrusted reports whether TLS is what failed.
func untrusted(err error) bool {
	_, verify := errors.AsType[*tls.CertificateVerificationError](err)
	_, unknown := errors.AsType[x509.UnknownAuthorityError](err)
	_, name := errors.AsType[x509.HostnameError](err)
	_, invalid := errors.AsType[x509.CertificateInvalidError](err)
	_, alert := errors.AsType[tls.AlertError](err)
	return verify || unknown || name || invalid || alert || notTLS(err)
}

// ProxyError reports that a proxy between this machine and the API server cannot be
// reached, or refuses to connect to it.
type ProxyError struct {
	Server string
	Proxy  string // without its password
	From   string // where the proxy is set
	Status int    // of the answer to CONNECT, if its text is the usual one; 0: not known
	Err    error
}

func (e *ProxyError) Error() string {
	if e.refuses() {
		said := rootOf(e.Err)
		if e.Status != 0 {
			said = fmt.Sprintf("%d %s", e.Status, http.StatusText(e.Status))
		}
		return fmt.Sprintf("the proxy %s does not connect to the API server %s: %s", e.Proxy, e.Server, said)
	}
	return fmt.Sprintf("the proxy %s to the API server %s cannot be reached: %s", e.Proxy, e.Server, rootOf(e.Err))
}
func (e *ProxyError) Unwrap() error { return e.Err }

// ExitCode is that of the command.
func (e *ProxyError) ExitCode() int { return codeFailed }

func (e *ProxyError) refuses() bool {
	_, network := errors.AsType[*net.OpError](e.Err)
	return !network
}

// Retry implements [retry.Of].
func (e *ProxyError) Retry() retry.Advice {
	if e.Status/100 == 4 && e.Status != http.StatusTooManyRequests && e.Status != http.StatusRequestTimeout {
		return retry.No
	}
	return retry.AfterSuccess
}

// Hint returns what to do about it.
func (e *ProxyError) Hint() string {
	switch {
	case e.Status == http.StatusProxyAuthRequired:
		return "the proxy requires a login: set it as http://USER:PASSWORD@HOST:PORT in " + e.From
	case e.refuses():
		return "the proxy is set by " + e.From + "; if the API server needs no proxy, name its host in NO_PROXY"
	}
	return "the proxy is set by " + e.From + ": is it up? If the API server needs none, name its host in NO_PROXY"
}

// CredentialsError reports that the program which the kubeconfig names for logging in
// gave no credentials.
type CredentialsError struct {
	Command string
	Missing bool // there is no such program
	Err     error
}

func (e *CredentialsError) Error() string {
	return fmt.Sprintf("the login program of the kubeconfig, %s, failed: %s", e.Command, firstLine(e.Err.Error()))
}
func (e *CredentialsError) Unwrap() error { return e.Err }

// ExitCode is that of the command.
func (e *CredentialsError) ExitCode() int { return codeNotPermitted }

// Retry implements [retry.Of]. The network that a login program needs may be the one
// that took the stream with it.
func (e *CredentialsError) Retry() retry.Advice {
	if e.Missing {
		return retry.No
	}
	return retry.AfterSuccess
}

// Hint returns what to do about it.
func (e *CredentialsError) Hint() string {
	if e.Missing {
		return "install it, or put it into PATH: users[].user.exec of the kubeconfig names it, and kubectl runs it too"
	}
	return "log in again with it; kubectl get pods runs the same program (users[].user.exec of the kubeconfig)"
}

// LoginError reports that the cluster does not accept the credentials.
type LoginError struct {
	Err       error
	Refreshed bool // they come from a program or a file, so that the next may be accepted
}

func (e *LoginError) Error() string {
	return fmt.Sprintf("the cluster does not accept your credentials: %v", e.Err)
}
func (e *LoginError) Unwrap() error { return e.Err }

// ExitCode is that of the command.
func (e *LoginError) ExitCode() int { return codeNotPermitted }

// Retry implements [retry.Of].
func (e *LoginError) Retry() retry.Advice {
	if e.Refreshed {
		return retry.AfterSuccess
	}
	return retry.No
}

// Hint returns what to do about it.
func (e *LoginError) Hint() string {
	return "log in again, or take other credentials with --context, --user or --token; kubectl auth whoami tells who you are"
}

// UnavailableError reports an API server, or a load balancer before it, that does not
// take requests at the moment.
type UnavailableError struct {
	Server string
	Err    error
	after  time.Duration
}

func (e *UnavailableError) Error() string {
	return fmt.Sprintf("the API server %s takes no requests now: %s", e.Server, rootOf(e.Err))
}
func (e *UnavailableError) Unwrap() error { return e.Err }

// ExitCode is that of the command.
func (e *UnavailableError) ExitCode() int { return codeFailed }

// Retry implements [retry.Of].
func (e *UnavailableError) Retry() retry.Advice { return retry.Yes }

// RetryAfter is the pause that the server asks for; 0: it asks for none.
func (e *UnavailableError) RetryAfter() time.Duration { return e.after }

// Hint returns what to do about it.
func (e *UnavailableError) Hint() string {
	return "it starts, stops or has too much to do, or the load balancer before it finds none that runs: " +
		"try again later; kubectl get --raw /readyz asks the same server"
}

// GatewayError reports an answer of something between this machine and the API
// server, to a request that is no stream.
type GatewayError struct {
	Server string
	Proxy  string // may be empty
	Said   string // the answer, for a person
	Err    error
}

func (e *GatewayError) Error() string {
	return fmt.Sprintf("what answers at %s is not a Kubernetes API server: %s", e.Server, e.Said)
}
func (e *GatewayError) Unwrap() error { return e.Err }

// ExitCode is that of the command.
func (e *GatewayError) ExitCode() int { return codeFailed }

// Retry implements [retry.Of].
func (e *GatewayError) Retry() retry.Advice { return retry.AfterSuccess }

// Hint returns what to do about it.
func (e *GatewayError) Hint() string {
	return "a proxy or gateway answers in its place" + by(e.Proxy) +
		": is the server of the kubeconfig right, and are you logged in there? kubectl cluster-info asks the same server"
}

// saidBy is the answer of a gateway, as far as client-go keeps it.
func saidBy(s *apierrors.StatusError) string {
	code := int(s.ErrStatus.Code)
	said := fmt.Sprintf("%d %s", code, http.StatusText(code))
	if d := s.ErrStatus.Details; d != nil {
		for _, c := range d.Causes {
			if c.Type == metav1.CauseTypeUnexpectedServerResponse {
				return join(said, oneLine(c.Message))
			}
		}
	}
	return said
}

// otherFormat matches an answer of success in another format: client-go/rest/request.go:1457,
// which has no type for it.
var otherFormat = regexp.MustCompile(`serializer for (\S+?);?(?: .*)? doesn't exist`)

// gatewayPage explains an answer of success that is no Kubernetes object.
func (c *Client) gatewayPage(err error) error {
	m := otherFormat.FindStringSubmatch(err.Error())
	if m == nil {
		return nil
	}
	return &GatewayError{Server: c.Server, Proxy: c.proxy.String(), Said: "an answer of the type " + m[1], Err: err}
}

func by(proxy string) string {
	if proxy == "" {
		return ""
	}
	return " (requests go by the proxy " + proxy + ")"
}

// proxySetting is the proxy that leads to the API server.
type proxySetting struct {
	url  *url.URL
	from string
}

// String is the proxy's URL without its password; empty: there is none.
func (p proxySetting) String() string {
	if p.url == nil {
		return ""
	}
	return p.url.Redacted()
}

// proxyOf finds the proxy as client-go does.
func proxyOf(config *rest.Config) proxySetting {
	server, _, err := rest.DefaultServerUrlFor(config)
	if err != nil {
		return proxySetting{}
	}
	choose, from := config.Proxy, "proxy-url of the kubeconfig"
	if choose == nil {
		choose, from = utilnet.NewProxierWithNoProxyCIDR(http.ProxyFromEnvironment), strings.ToUpper(server.Scheme)+"_PROXY"
	}
	u, err := choose(&http.Request{URL: server})
	if err != nil {
		return proxySetting{}
	}
	return proxySetting{u, from}
}

// network explains why no answer came from the API server.
func (c *Client) network(err error) error {
	proxy := c.proxy.String()
	op, isOp := errors.AsType[*net.OpError](err)
	switch {
	case untrusted(err):
		return &CertificateError{Server: c.Server, Proxy: proxy, Err: err}
	case proxy == "":
	case isOp && (op.Op == "dial" || op.Op == "proxyconnect" || strings.HasPrefix(op.Op, "socks")):
		return &ProxyError{Server: c.Server, Proxy: proxy, From: c.proxy.from, Err: err}
	default:
		if status, refused := connectRefused(err); refused {
			return &ProxyError{Server: c.Server, Proxy: proxy, From: c.proxy.from, Status: status, Err: err}
		}
	}
	return &UnreachableError{Server: c.Server, Err: err}
}

// connectRefused reports whether a proxy has refused CONNECT. All three dialers make
// an error of nothing but the reason phrase of the answer: net/http/transport.go:1937,
// gorilla/websocket/proxy.go:101, and with a sentence around it
// k8s.io/streaming/pkg/httpstream/spdy/roundtripper.go:271.
func connectRefused(err error) (status int, refused bool) {
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err
	}
	text := err.Error()
	if _, said, ok := strings.Cut(text, " returned response: "); ok && strings.HasPrefix(text, "CONNECT request to ") {
		_, text, _ = strings.Cut(said, " ")
	}
	for code := http.StatusMultipleChoices; code < 600; code++ {
		if phrase := http.StatusText(code); phrase != "" && strings.EqualFold(phrase, text) {
			return code, true
		}
	}
	// Proxies have phrases of their own. The standard library's errors of this type have
	// the name of a package in front.
	bare := reflect.TypeOf(err) == reflect.TypeOf(io.EOF)
	return 0, bare && err != io.EOF && err != io.ErrUnexpectedEOF && !strings.Contains(text, ": ")
}

// unreached explains an error of a request that got no answer. What is not such an
// error is nil.
func (c *Client) unreached(err error) error {
	_, request := errors.AsType[*url.Error](err)
	_, network := errors.AsType[net.Error](err) // of the dialer, which WebSocket has without a request
	if e := c.loginProgram(err); e != nil {
		return e
	}
	if request || network || untrusted(err) {
		return c.network(err)
	}
	return nil
}

// loginProgram explains an error of the kubeconfig's exec plugin. client-go gives it
// no type: fmt.Errorf("getting credentials: %v", err), plugin/pkg/client/auth/exec/exec.go:369.
func (c *Client) loginProgram(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err
	}
	text, ok := strings.CutPrefix(err.Error(), "getting credentials: ")
	if !ok {
		return nil
	}
	e := &CredentialsError{Err: errors.New(text), Command: "a program"}
	if c.streams != nil && c.streams.ExecProvider != nil {
		e.Command = cmp.Or(c.streams.ExecProvider.Command, e.Command)
		_, missing := exec.LookPath(c.streams.ExecProvider.Command)
		e.Missing = missing != nil
	}
	return e
}

// refreshed reports whether the next request may have other credentials.
func (c *Client) refreshed() bool {
	return c.streams != nil && (c.streams.ExecProvider != nil || c.streams.AuthProvider != nil || c.streams.BearerTokenFile != "")
}

// rootOf returns the part of a network error that helps a user.
func rootOf(err error) string {
	var op *net.OpError
	var u *url.Error
	switch {
	case errors.As(err, &op):
		return op.Error()
	case errors.As(err, &u):
		return u.Err.Error()
	}
	return err.Error()
}
