package kube

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// proxied names the requests that a child of TestProxyOfEnvironment makes.
const proxied = "PROMDUMP_TEST_PROXIED"

// tunnels is a proxy that connects every name to one server.
type tunnels struct {
	url *url.URL

	mu    sync.Mutex
	asked []string // HOST:PORT and the login, of each CONNECT
}

func newTunnels(t *testing.T, to string) *tunnels {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &tunnels{url: &url.URL{Scheme: "http", Host: l.Addr().String(), User: url.UserPassword("bob", "secret")}}
	var group sync.WaitGroup
	t.Cleanup(func() {
		l.Close()
		group.Wait()
	})
	group.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			group.Go(func() { p.serve(conn, to) })
		}
	})
	return p
}

func (p *tunnels) serve(conn net.Conn, to string) {
	defer conn.Close()
	in := bufio.NewReader(conn)
	r, err := http.ReadRequest(in)
	if err != nil || r.Method != http.MethodConnect {
		fmt.Fprint(conn, "HTTP/1.1 400 Bad Request\r\n\r\n")
		return
	}
	p.mu.Lock()
	p.asked = append(p.asked, r.Host+" "+r.Header.Get("Proxy-Authorization"))
	p.mu.Unlock()
	server, err := net.Dial("tcp", to)
	if err != nil {
		fmt.Fprint(conn, "HTTP/1.1 502 Bad Gateway\r\n\r\n")
		return
	}
	defer server.Close()
	fmt.Fprint(conn, "HTTP/1.1 200 OK\r\n\r\n")
	go func() {
		_, _ = io.Copy(server, in)
		server.Close()
	}()
	_, _ = io.Copy(conn, server)
}

// All kinds of requests go by the proxy that the environment names, which alone knows the
// API server's name, and a proxy that refuses is named with the variable that sets it. The
// standard library reads the environment once, so that each case is a process of its own.
func TestProxyOfEnvironment(t *testing.T) {
	if names := os.Getenv(proxied); names != "" {
		proxiedRequests(t, strings.Fields(names))
		return
	}
	s := newTLSStub(t)
	s.pod = podOf(t, "p", plain)
	s.run = func(p *process) {
		if p.out != nil {
			io.WriteString(p.out, "x")
			p.end(success())
			return
		}
		p.stream(corev1.StreamTypeData).Close()
		p.stream(corev1.StreamTypeError).Close()
	}
	through := newTunnels(t, strings.TrimPrefix(s.url, "https://"))
	for _, c := range []struct {
		name, requests string
		websocket      int // status; 0: it works
		proxy          *url.URL
		env            []string
		want           string // in each answer
		connects       int    // at least; 0: none
	}{
		{"WebSocket", "get exec", 0, through.url, nil, "done", 2},
		{"SPDY", "get exec forward", http.StatusForbidden, through.url, nil, "done", 3},
		{"a proxy that wants a login", "get exec forward", 0, connectProxy(t, "407 Proxy Authentication Required"), nil, "*kube.ProxyError, in HTTPS_PROXY", 0},
		{"NO_PROXY", "get exec forward", 0, through.url, []string{"NO_PROXY=api.test"}, "*kube.UnreachableError", 0},
	} {
		s.mu.Lock()
		s.refuse["websocket"] = c.websocket
		s.mu.Unlock()
		through.mu.Lock()
		through.asked = nil
		through.mu.Unlock()
		cmd := exec.Command(os.Args[0], "-test.run=^TestProxyOfEnvironment$", "-test.v")
		cmd.Env = append(os.Environ(), append(c.env, proxied+"="+c.requests, "HTTPS_PROXY="+c.proxy.String())...)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v: %s", c.name, err, out)
		}
		for _, name := range strings.Fields(c.requests) {
			if !strings.Contains(string(out), name+": "+c.want) {
				t.Errorf("%s: no %q in %s", c.name, name+": "+c.want, out)
			}
		}
		through.mu.Lock()
		const login = "api.test:6443 Basic Ym9iOnNlY3JldA==" // bob:secret
		if n := len(through.asked); n < c.connects || n > 0 && c.connects == 0 || slices.ContainsFunc(through.asked, func(a string) bool { return a != login }) {
			t.Errorf("%s: the proxy was asked for %q", c.name, through.asked)
		}
		through.mu.Unlock()
	}
}

// proxiedRequests makes the requests and prints what came of each.
func proxiedRequests(t *testing.T, names []string) {
	noNames(t)
	for _, name := range names {
		c := clientOf(t, insecure("https://api.test:6443"))
		err := func() error {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			return requests[name](ctx, c)
		}()
		text := "done"
		if err != nil {
			text = fmt.Sprintf("%T", err)
			if h, ok := err.(interface{ Hint() string }); ok && strings.Contains(h.Hint(), "in HTTPS_PROXY") {
				text += ", in HTTPS_PROXY"
			}
			text += fmt.Sprintf(" (%v)", err)
		}
		fmt.Printf("%s: %s\n", name, text)
	}
}
