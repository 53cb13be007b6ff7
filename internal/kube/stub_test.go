package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/remotecommand"
	"k8s.io/client-go/rest"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"
	"k8s.io/streaming/pkg/httpstream/wsstream"
)

// stub is as much of an API server as streams need, with both of their protocols.
type stub struct {
	url    string
	server *httptest.Server
	conns  conns

	mu     sync.Mutex
	run    func(*process) // what every command does
	pod    *corev1.Pod    // every pod; nil: there is none
	refuse map[string]int // status by protocol: websocket, spdy
	asked  []string       // protocols, in order
	hung   chan struct{}
	done   chan struct{}
	query  map[string][]string // of the last stream
}

// process is a command at the far side.
type process struct {
	in       io.Reader
	out, err io.Writer
	end      func(metav1.Status)            // tells how the command ended
	stream   func(string) httpstream.Stream // of port forwarding, by type
}

func newStub(t *testing.T) *stub {
	s := &stub{refuse: map[string]int{}, done: make(chan struct{})}
	s.server = httptest.NewUnstartedServer(s)
	s.conns.Listener, s.server.Listener = s.server.Listener, &s.conns
	s.server.Config.BaseContext = func(net.Listener) context.Context { return quiet(t.Context()) }
	s.server.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.server.Start()
	s.url = s.server.URL
	t.Cleanup(func() {
		close(s.done)
		s.conns.cut()
		s.server.Close()
	})
	return s
}

func newTLSStub(t *testing.T) *stub {
	s := newStub(t)
	tls := httptest.NewUnstartedServer(s)
	tls.Config.ErrorLog = s.server.Config.ErrorLog
	tls.StartTLS()
	t.Cleanup(tls.Close)
	s.url = tls.URL
	return s
}

func (s *stub) client(t *testing.T) *Client {
	t.Helper()
	c, err := newClient(&rest.Config{Host: s.url}, "mon")
	if err != nil {
		t.Fatal(err)
	}
	c.times = times{grace: 100 * time.Millisecond, poll: time.Millisecond, dial: 2 * time.Second}
	return c
}

// conns are all connections of a server.
type conns struct {
	net.Listener
	mu  sync.Mutex
	all []net.Conn
}

func (c *conns) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all = append(c.all, conn)
	return conn, err
}

// cut resets all connections.
func (c *conns) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.all {
		if tcp, ok := conn.(*net.TCPConn); ok {
			tcp.SetLinger(0)
			tcp.Close()
		}
	}
}

// hang makes the server take requests and never answer.
func (s *stub) hang() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hung = make(chan struct{})
}

func (s *stub) protocols() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.asked, " ")
}

func (s *stub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	protocol := ""
	switch {
	case httpstream.IsUpgradeRequest(r) && strings.EqualFold(r.Header.Get("Upgrade"), "websocket"):
		protocol = "websocket"
	case httpstream.IsUpgradeRequest(r):
		protocol = "spdy"
	}
	s.mu.Lock()
	hung, refused, run, pod := s.hung, s.refuse[protocol], s.run, s.pod
	if protocol != "" {
		s.asked, s.query = append(s.asked, protocol), r.URL.Query()
	}
	s.mu.Unlock()
	switch {
	case hung != nil:
		<-s.done
	case refused != 0:
		status(w, refused)
	case protocol == "websocket":
		serveWebSocket(w, r, run)
	case protocol == "spdy":
		serveSPDY(w, r, run)
	case pod == nil:
		status(w, http.StatusNotFound)
	default:
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(pod)
	}
}

// status answers as an API server does when it refuses.
func status(w http.ResponseWriter, code int) {
	st := metav1.Status{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: metav1.StatusFailure, Code: int32(code)}
	switch code {
	case http.StatusForbidden:
		st.Reason, st.Message = metav1.StatusReasonForbidden, `pods "p" is forbidden: User "bob" cannot create resource "pods/exec" in API group "" in the namespace "mon"`
	case http.StatusUnauthorized:
		st.Reason, st.Message = metav1.StatusReasonUnauthorized, "Unauthorized"
	case http.StatusNotFound:
		st.Reason, st.Message = metav1.StatusReasonNotFound, `pods "p" not found`
	default:
		st.Reason, st.Message = metav1.StatusReasonInternalError, "something is wrong"
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	json.NewEncoder(w).Encode(st)
}

func serveWebSocket(w http.ResponseWriter, r *http.Request, run func(*process)) {
	q := r.URL.Query()
	channels := make([]wsstream.ChannelType, 5)
	channels[remotecommand.StreamErr] = wsstream.WriteChannel
	for name, c := range map[string]struct {
		id   int
		kind wsstream.ChannelType
	}{
		"stdin":  {remotecommand.StreamStdIn, wsstream.ReadChannel},
		"stdout": {remotecommand.StreamStdOut, wsstream.WriteChannel},
		"stderr": {remotecommand.StreamStdErr, wsstream.WriteChannel},
	} {
		if q.Get(name) == "true" {
			channels[c.id] = c.kind
		}
	}
	conn := wsstream.NewConn(map[string]wsstream.ChannelProtocolConfig{remotecommand.StreamProtocolV5Name: {Binary: true, Channels: channels}})
	_, streams, err := conn.Open(w, r)
	if err != nil {
		return
	}
	defer conn.Close()
	run(&process{
		in: streams[remotecommand.StreamStdIn], out: streams[remotecommand.StreamStdOut], err: streams[remotecommand.StreamStdErr],
		end: func(s metav1.Status) { json.NewEncoder(streams[remotecommand.StreamErr]).Encode(s) },
	})
}

func serveSPDY(w http.ResponseWriter, r *http.Request, run func(*process)) {
	q := r.URL.Query()
	want := 1
	for _, name := range []string{"stdin", "stdout", "stderr"} {
		if q.Get(name) == "true" {
			want++
		}
	}
	forward := strings.HasSuffix(r.URL.Path, "/portforward")
	if forward {
		want = 2
		httpstream.Handshake(r, w, []string{"portforward.k8s.io"})
	} else {
		httpstream.Handshake(r, w, []string{remotecommand.StreamProtocolV4Name})
	}
	got := make(chan httpstream.Stream, 10)
	conn := spdy.NewResponseUpgrader().UpgradeResponse(w, r, func(s httpstream.Stream, _ <-chan struct{}) error {
		got <- s
		return nil
	})
	if conn == nil {
		return
	}
	defer conn.Close()
	streams := map[string]httpstream.Stream{}
	for len(streams) < want {
		select {
		case s := <-got:
			streams[s.Headers().Get(corev1.StreamType)] = s
		case <-conn.CloseChan():
			return
		}
	}
	run(&process{
		in: streams[corev1.StreamTypeStdin], out: streams[corev1.StreamTypeStdout], err: streams[corev1.StreamTypeStderr],
		end:    func(s metav1.Status) { json.NewEncoder(streams[corev1.StreamTypeError]).Encode(s) },
		stream: func(name string) httpstream.Stream { return streams[name] },
	})
	// Ending the connection at once would lose what is on its way.
	if !forward {
		for _, s := range streams {
			s.Close()
		}
	}
	<-conn.CloseChan()
}

func success() metav1.Status { return metav1.Status{Status: metav1.StatusSuccess} }

func exitCode(code int) metav1.Status {
	return metav1.Status{Status: metav1.StatusFailure, Reason: remotecommand.NonZeroExitCodeReason, Details: &metav1.StatusDetails{
		Causes: []metav1.StatusCause{{Type: remotecommand.ExitCodeCauseType, Message: fmt.Sprint(code)}},
	}}
}

func failure(message string) metav1.Status {
	return metav1.Status{Status: metav1.StatusFailure, Reason: metav1.StatusReasonInternalError, Message: message}
}
