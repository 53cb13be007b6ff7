package kube

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/promdump/promdump/internal/retry"
)

// class is what an error must be, whichever request meets it.
type class struct {
	kind   string
	advice retry.Advice
	text   []string // in the message
	hint   []string
}

func (want class) check(t *testing.T, what string, err error) {
	t.Helper()
	if err == nil {
		t.Errorf("%s: no error", what)
		return
	}
	if got := strings.TrimPrefix(fmt.Sprintf("%T", err), "*kube."); got != want.kind || retry.Of(err) != want.advice {
		t.Errorf("%s: %s with advice %d, not %s with %d: %v", what, got, retry.Of(err), want.kind, want.advice, err)
		return
	}
	hint := err.(interface{ Hint() string }).Hint()
	for _, s := range want.text {
		if !strings.Contains(err.Error(), s) {
			t.Errorf("%s: %q is not in %q", what, s, err)
		}
	}
	for _, s := range want.hint {
		if !strings.Contains(hint, s) {
			t.Errorf("%s: %q is not in the hint %q", what, s, hint)
		}
	}
	if strings.ContainsAny(err.Error(), "\n<") {
		t.Errorf("%s: a page in %q", what, err)
	}
}

var onNode = Target{Namespace: "mon", Pod: "p", UID: "uid of p", Container: "prometheus", Node: "n1"}

// requests are a plain request, a command and a port: each has other dialers.
var requests = map[string]func(context.Context, *Client) error{
	"get": func(ctx context.Context, c *Client) error {
		_, err := c.Find(ctx, Query{Pod: "p"})
		return err
	},
	"exec": func(ctx context.Context, c *Client) error {
		return c.Exec(ctx, onNode, []string{"sh"}, Streams{Out: io.Discard})
	},
	"forward": func(ctx context.Context, c *Client) error {
		_, err := c.Dial(ctx, onNode, 9090)
		return err
	},
}

// checkAll makes each of the requests, or those that are named.
func checkAll(t *testing.T, what string, c *Client, want class, only ...string) {
	t.Helper()
	for name, do := range requests {
		if len(only) > 0 && !strings.Contains(strings.Join(only, " "), name) {
			continue
		}
		quickly(t, func() { want.check(t, what+", "+name, do(t.Context(), c)) })
	}
}

func clientOf(t *testing.T, config *rest.Config) *Client {
	t.Helper()
	c, err := newClient(config, "mon")
	if err != nil {
		t.Fatal(err)
	}
	c.times = times{grace: 100 * time.Millisecond, poll: time.Millisecond, dial: 2 * time.Second}
	return c
}

// tlsServer is a real server with a certificate of its own.
func tlsServer(t *testing.T, h http.Handler) *httptest.Server {
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

func insecure(host string) *rest.Config {
	return &rest.Config{Host: host, TLSClientConfig: rest.TLSClientConfig{Insecure: true}}
}

func TestCertificates(t *testing.T) {
	s := tlsServer(t, http.NotFoundHandler())
	ca := pemOf(s.Certificate())
	checkAll(t, "unknown authority", clientOf(t, &rest.Config{Host: s.URL}),
		class{"CertificateError", retry.No, []string{"x509:"}, []string{"--certificate-authority"}})
	checkAll(t, "another name", clientOf(t, &rest.Config{Host: s.URL, TLSClientConfig: rest.TLSClientConfig{CAData: ca, ServerName: "other.test"}}),
		class{"CertificateError", retry.No, nil, []string{"--tls-server-name"}})
	plainServer := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(plainServer.Close)
	checkAll(t, "no TLS", clientOf(t, insecure(strings.Replace(plainServer.URL, "http:", "https:", 1))),
		class{"CertificateError", retry.No, nil, []string{"does not speak TLS"}})
}

func TestNoServer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	checkAll(t, "refused", clientOf(t, insecure("https://"+l.Addr().String())),
		class{"UnreachableError", retry.AfterSuccess, []string{"connection refused"}, []string{"nothing listens"}})
	noNames(t)
	checkAll(t, "no such host", clientOf(t, insecure("https://api.test:6443")),
		class{"UnreachableError", retry.AfterSuccess, []string{"no such host"}, []string{"VPN", "--context"}})
}

// noNames makes a real name server answer that there is no such name, whatever the
// resolver of this machine does.
func noNames(t *testing.T) {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for b := make([]byte, 512); ; {
			n, from, err := pc.ReadFrom(b)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(b[:n]) != nil {
				continue
			}
			m.Response, m.RCode, m.Additionals = true, dnsmessage.RCodeNameError, nil
			if answer, err := m.Pack(); err == nil {
				pc.WriteTo(answer, from)
			}
		}
	}()
	usual := net.DefaultResolver
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", pc.LocalAddr().String())
	}}
	t.Cleanup(func() {
		net.DefaultResolver = usual
		pc.Close()
	})
}

// A real proxy refuses CONNECT, each in its own words, or is down.
func TestForwardProxy(t *testing.T) {
	for status, want := range map[string]class{
		"407 Proxy Authentication Required": {"ProxyError", retry.No, []string{"407", "127.0.0.1"}, []string{"USER:PASSWORD", "proxy-url of the kubeconfig"}},
		"403 Forbidden":                     {"ProxyError", retry.No, []string{"403 Forbidden"}, []string{"NO_PROXY"}},
		"407 authenticationrequired":        {"ProxyError", retry.AfterSuccess, []string{"authenticationrequired"}, []string{"NO_PROXY"}},
		"503 Service Unavailable":           {"ProxyError", retry.AfterSuccess, []string{"503"}, []string{"NO_PROXY"}},
	} {
		p := connectProxy(t, status)
		config := insecure("https://api.test:6443")
		config.Proxy = http.ProxyURL(p)
		checkAll(t, status, clientOf(t, config), want)
		if strings.Contains(p.Redacted(), "secret") {
			t.Fatal("the password is shown")
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	config := insecure("https://api.test:6443")
	config.Proxy = http.ProxyURL(&url.URL{Scheme: "http", Host: l.Addr().String()})
	checkAll(t, "down", clientOf(t, config), class{"ProxyError", retry.AfterSuccess, []string{"cannot be reached", "refused"}, []string{"is it up?"}})
}

// connectProxy answers each CONNECT with a status line.
func connectProxy(t *testing.T, status string) *url.URL {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conn.Read(make([]byte, 4096))
			fmt.Fprintf(conn, "HTTP/1.1 %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", status)
			conn.Close()
		}
	}()
	return &url.URL{Scheme: "http", Host: l.Addr().String(), User: url.UserPassword("bob", "secret")}
}

// The real exec plugin of client-go, whose program fails or is not there.
func TestLoginProgram(t *testing.T) {
	s := tlsServer(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { status(w, http.StatusUnauthorized) }))
	program := func(command string) *Client {
		config := insecure(s.URL)
		config.ExecProvider = &clientcmdapi.ExecConfig{
			Command: command, APIVersion: "client.authentication.k8s.io/v1", InteractiveMode: clientcmdapi.NeverExecInteractiveMode,
		}
		return clientOf(t, config)
	}
	script := func(text string) string {
		file := filepath.Join(t.TempDir(), "login")
		if err := os.WriteFile(file, []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		return file
	}
	checkAll(t, "fails", program(script("exit 3")),
		class{"CredentialsError", retry.AfterSuccess, []string{"login program", "exit code 3"}, []string{"log in again", "users[].user.exec"}})
	checkAll(t, "is not there", program("promdump-test-no-such-program"),
		class{"CredentialsError", retry.No, []string{"promdump-test-no-such-program"}, []string{"PATH"}})
	token := `echo '{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{"token":"old"}}'`
	checkAll(t, "gives an old token", program(script(token)), class{"LoginError", retry.AfterSuccess, nil, []string{"log in again"}})
	static := insecure(s.URL)
	static.BearerToken = "old"
	checkAll(t, "a static token", clientOf(t, static), class{"LoginError", retry.No, nil, []string{"log in again"}})
}

// gatewayTo is a real reverse proxy before a stub, that ends TLS.
func gatewayTo(t *testing.T, s *stub, h func(w http.ResponseWriter, r *http.Request, behind http.Handler)) *Client {
	u, err := url.Parse(s.url)
	if err != nil {
		t.Fatal(err)
	}
	behind := httputil.NewSingleHostReverseProxy(u)
	g := tlsServer(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h(w, r, behind) }))
	return clientOf(t, insecure(g.URL))
}

func isStream(r *http.Request) bool {
	return strings.HasSuffix(r.URL.Path, "/exec") || strings.HasSuffix(r.URL.Path, "/portforward")
}

// Gateways refuse both protocols in many ways, and each is final at once.
func TestGateway(t *testing.T) {
	const page = "<html><body>\n<h1>Blocked</h1></body></html>"
	for _, code := range []int{200, 400, 403, 404, 405, 501} {
		s := newStub(t)
		s.pod = podOf(t, "p", plain)
		c := gatewayTo(t, s, func(w http.ResponseWriter, r *http.Request, behind http.Handler) {
			if isStream(r) {
				w.Header().Set("Server", "shield/2")
				w.WriteHeader(code)
				io.WriteString(w, page)
				return
			}
			behind.ServeHTTP(w, r)
		})
		checkAll(t, fmt.Sprint(code), c, class{"UpgradeError", retry.No,
			[]string{fmt.Sprintf("WebSocket: %d", code), fmt.Sprintf("SPDY: %d", code)}, []string{"proxy or gateway", "shield/2", "WebSocket", "SPDY"}},
			"exec", "forward")
	}
	t.Run("redirect", func(t *testing.T) {
		c := gatewayTo(t, newStub(t), func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
			if isStream(r) {
				http.Redirect(w, r, "/login?next=x", http.StatusFound)
				return
			}
			io.WriteString(w, page)
		})
		checkAll(t, "redirect", c, class{"UpgradeError", retry.No, []string{"302"}, []string{"/login", "--server"}}, "exec", "forward")
	})
	t.Run("cuts", func(t *testing.T) {
		c := gatewayTo(t, newStub(t), func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
			if strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
				http.Error(w, "no", http.StatusForbidden)
				return
			}
			panic(http.ErrAbortHandler)
		})
		checkAll(t, "cuts", c, class{"UpgradeError", retry.No, []string{"WebSocket: 403 Forbidden, no", "SPDY: "}, nil}, "exec", "forward")
	})
	t.Run("no stream", func(t *testing.T) {
		c := gatewayTo(t, newStub(t), func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
			w.WriteHeader(http.StatusForbidden)
			io.WriteString(w, page)
		})
		checkAll(t, "no stream", c, class{"GatewayError", retry.AfterSuccess, []string{"is not a Kubernetes API server", "403 Forbidden"}, []string{"proxy or gateway"}}, "get")
	})
}

// A login page is an answer of success.
func TestLoginPage(t *testing.T) {
	s := tlsServer(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		io.WriteString(w, "<html>Log in</html>")
	}))
	checkAll(t, "page", clientOf(t, insecure(s.URL)),
		class{"GatewayError", retry.AfterSuccess, []string{"is not a Kubernetes API server", "text/html"}, []string{"logged in"}}, "get")
}

// Where the gateway refuses SPDY and RBAC refuses WebSocket, RBAC can be changed.
func TestGatewayAndRole(t *testing.T) {
	s := newStub(t)
	s.refuse["websocket"] = http.StatusForbidden
	c := gatewayTo(t, s, func(w http.ResponseWriter, r *http.Request, behind http.Handler) {
		if strings.EqualFold(r.Header.Get("Upgrade"), "SPDY/3.1") {
			http.Error(w, "no", http.StatusForbidden)
			return
		}
		behind.ServeHTTP(w, r)
	})
	checkAll(t, "both", c, class{"UpgradeError", retry.No, nil, []string{"refuses SPDY", "kind: Role", "pods/exec"}}, "exec")
}

// What an API server answers behind a gateway that drops Upgrade. e2e/kube has a real one.
func TestUpgradeDropped(t *testing.T) {
	s := tlsServer(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		writeStatus(w, metav1.Status{
			Status: metav1.StatusFailure, Code: 400, Reason: metav1.StatusReasonBadRequest, Message: "Upgrade request required",
		})
	}))
	checkAll(t, "dropped", clientOf(t, insecure(s.URL)),
		class{"UpgradeError", retry.No, []string{"400 Upgrade request required"}, []string{"drops the header Upgrade"}}, "exec", "forward")
}

func writeStatus(w http.ResponseWriter, s metav1.Status) {
	s.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(int(s.Code))
	json.NewEncoder(w).Encode(s)
}

func pemOf(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

// A load balancer without a server behind it, and an API server that stops.
func TestUnavailable(t *testing.T) {
	for _, code := range []int{429, 502, 503, 504} {
		s := newStub(t)
		s.pod = podOf(t, "p", plain)
		c := gatewayTo(t, s, func(w http.ResponseWriter, r *http.Request, behind http.Handler) {
			if isStream(r) {
				w.Header().Set("Retry-After", "7")
				http.Error(w, "The apiserver is shutting down, please try again later.", code)
				return
			}
			behind.ServeHTTP(w, r)
		})
		checkAll(t, fmt.Sprint(code), c, class{"UnavailableError", retry.Yes, []string{fmt.Sprint(code), "shutting down"}, []string{"/readyz"}}, "exec", "forward")
		err := c.Exec(t.Context(), target, []string{"sh"}, Streams{Out: io.Discard})
		if d := retry.After(err); d != 7*time.Second {
			t.Errorf("%d: a pause of %v", code, d)
		}
	}
	s := tlsServer(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		writeStatus(w, metav1.Status{
			Status: metav1.StatusFailure, Code: 503, Reason: metav1.StatusReasonServiceUnavailable,
			Message: "apiserver is shutting down", Details: &metav1.StatusDetails{RetryAfterSeconds: 3},
		})
	}))
	c := clientOf(t, insecure(s.URL))
	checkAll(t, "a Status", c, class{"UnavailableError", retry.Yes, []string{"shutting down"}, nil})
	if d := retry.After(c.Exec(t.Context(), target, []string{"sh"}, Streams{Out: io.Discard})); d != 3*time.Second {
		t.Errorf("a pause of %v", d)
	}
}

// The API server's words of a kubelet that is not there. e2e/kube has a real one.
func TestKubeletDown(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	kubelet := l.Addr().String()
	l.Close()
	ready, gateway := corev1.ConditionTrue, false
	s := tlsServer(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if gateway && strings.HasPrefix(r.Header.Get("Upgrade"), "SPDY/") {
			http.Error(w, "no such upgrade", http.StatusForbidden)
			return
		}
		if isStream(r) {
			_, err := net.Dial("tcp", kubelet)
			writeStatus(w, metav1.Status{Status: metav1.StatusFailure, Code: 500, Message: fmt.Sprintf("error dialing backend: %v", err)})
			return
		}
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(corev1.Node{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Node"}, Status: corev1.NodeStatus{
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: ready, Reason: "NodeStatusUnknown", Message: "Kubelet stopped posting node status."}},
		}})
	}))
	c := clientOf(t, insecure(s.URL))
	text, hint := []string{"kubelet of node n1", kubelet, "connection refused"}, []string{"kubectl describe node n1"}
	checkAll(t, "restarts", c, class{"NodeError", retry.Yes, text, hint}, "exec", "forward")
	gateway = true
	checkAll(t, "restarts behind a gateway without SPDY", c, class{"NodeError", retry.Yes, text, hint}, "exec")
	gateway = false
	ready = corev1.ConditionUnknown
	checkAll(t, "is not ready", c, class{"NodeError", retry.AfterSuccess, append(text, "not ready: NodeStatusUnknown"), hint}, "exec", "forward")
}

// A kubelet that has just started does not know its pods yet, and says so over one
// protocol, where a gateway refuses the other.
func TestKubeletStarts(t *testing.T) {
	for _, only := range []string{"websocket", "SPDY/3.1"} {
		s := tlsServer(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch upgrade := r.Header.Get("Upgrade"); {
			case strings.EqualFold(upgrade, only):
				http.Error(w, "pod does not exist", http.StatusNotFound)
			case upgrade != "":
				http.Error(w, "no such upgrade", http.StatusForbidden)
			default:
				w.Header().Set("Content-Type", "application/json")
				json.NewEncoder(w).Encode(podOf(t, "p", plain))
			}
		}))
		checkAll(t, only, clientOf(t, insecure(s.URL)),
			class{"GoneError", retry.Unknown, []string{"pod does not exist"}, nil}, "exec", "forward")
	}
}

// Over WebSocket the same comes as the text of a stream that has begun. These are the
// texts that a kube-apiserver 1.37 and its kubelets send.
func TestKubeletByText(t *testing.T) {
	const post = `Internal error occurred: error sending request: Post "https://10.0.0.3:10250/exec/mon/p/prometheus?command=sh": `
	for text, want := range map[string]class{
		post + "dial tcp 10.0.0.3:10250: connect: connection refused":                                   {"NodeError", retry.Yes, []string{"kubelet of node n1: dial tcp 10.0.0.3:10250: connect: connection refused"}, nil},
		post + "dial tcp 10.0.0.3:10250: i/o timeout":                                                   {"NodeError", retry.Yes, []string{"i/o timeout"}, nil},
		post + "tls: failed to verify certificate: x509: certificate signed by unknown authority":       {"NodeError", retry.No, []string{"x509:"}, []string{"kubectl get csr"}},
		"error dialing backend: remote error: tls: internal error":                                      {"NodeError", retry.No, nil, []string{"kubectl get csr"}},
		"error dialing backend: No agent available":                                                     {"NodeError", retry.Yes, []string{"No agent available"}, nil},
		"Internal error occurred: unable to upgrade connection: Unauthorized":                           {"NodeError", retry.No, []string{"refuses the API server: Unauthorized"}, []string{"rights of the API server"}},
		"unable to upgrade connection: Forbidden (user=kube, verb=create, resource=nodes, subresource)": {"NodeError", retry.No, []string{"refuses the API server"}, nil},
	} {
		both(t, func(t *testing.T, s *stub) {
			s.run = func(p *process) { p.end(failure(text)) }
			err := s.client(t).Exec(t.Context(), onNode, []string{"sh"}, Streams{Out: io.Discard})
			want.check(t, text, err)
		})
	}
}

// What the API server answers before a stream begins.
func TestStatuses(t *testing.T) {
	for _, c := range []struct {
		status metav1.Status
		want   class
	}{
		{metav1.Status{Code: 400, Message: `admission webhook "deny.exec" denied the request: no exec into production`},
			class{"PermissionError", retry.No, []string{"no exec into production"}, []string{"a policy of the cluster"}}},
		{metav1.Status{Code: 403, Reason: metav1.StatusReasonForbidden, Message: `admission webhook "deny.exec" denied the request: no`},
			class{"PermissionError", retry.No, []string{"deny.exec"}, []string{"a policy of the cluster"}}},
		{metav1.Status{Code: 500, Reason: metav1.StatusReasonInternalError, Message: `Internal error occurred: failed calling webhook "v.test": Post "https://v.test": context deadline exceeded`},
			class{"WebhookError", retry.AfterSuccess, []string{`failed calling webhook "v.test"`}, []string{"validatingwebhookconfigurations"}}},
		{metav1.Status{Code: 404, Reason: metav1.StatusReasonNotFound, Message: `nodes "n1" not found`, Details: &metav1.StatusDetails{Kind: "nodes", Name: "n1"}},
			class{"NodeError", retry.No, []string{"no such node"}, nil}},
		{metav1.Status{Code: 500, Message: "no preferred addresses found; known addresses: []"},
			class{"NodeError", retry.No, []string{"no preferred addresses"}, nil}},
		{metav1.Status{Code: 500, Reason: metav1.StatusReasonInternalError, Message: "etcdserver: request timed out"},
			class{"StreamError", retry.Yes, []string{"etcdserver"}, nil}},
	} {
		c.status.Status = metav1.StatusFailure
		s := tlsServer(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if isStream(r) {
				writeStatus(w, c.status)
				return
			}
			w.Header().Set("Content-Type", "application/json")
			json.NewEncoder(w).Encode(podOf(t, "p", plain))
		}))
		checkAll(t, c.status.Message, clientOf(t, insecure(s.URL)), c.want, "exec", "forward")
	}
}
