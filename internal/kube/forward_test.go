package kube

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

func TestPortForward(t *testing.T) {
	s := newStub(t)
	s.refuse["websocket"] = http.StatusForbidden
	s.run = func(p *process) {
		data := p.stream(corev1.StreamTypeData)
		if port := data.Headers().Get(corev1.PortHeader); port != "9090" {
			t.Errorf("port %s", port)
		}
		io.Copy(data, data)
		data.Close()
		p.stream(corev1.StreamTypeError).Close()
	}
	addr, stop, err := s.client(t).PortForward(t.Context(), target, 9090)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(addr, "127.0.0.1:") {
		t.Error(addr)
	}
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(conn, "hello")
	conn.(*net.TCPConn).CloseWrite()
	if got, err := io.ReadAll(conn); string(got) != "hello" {
		t.Errorf("%q, %v", got, err)
	}
	stop()
	stop()
	if _, err := net.Dial("tcp", addr); err == nil {
		t.Error("it still listens")
	}
}

func TestPortForwardEndsWithContext(t *testing.T) {
	s := newStub(t)
	s.refuse["websocket"] = http.StatusForbidden
	s.run = func(*process) {}
	ctx, cancel := context.WithCancel(t.Context())
	addr, stop, err := s.client(t).PortForward(ctx, target, 9090)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	quickly(t, stop)
	if _, err := net.Dial("tcp", addr); err == nil {
		t.Error("it still listens")
	}
}

func TestPortForwardRefused(t *testing.T) {
	for _, c := range []struct {
		websocket, spdy int
		want            string
	}{
		{403, 403, "*kube.PermissionError"},
		{401, 0, "*kube.LoginError"},
		{404, 0, "*kube.GoneError"},
		{500, 500, "*kube.StreamError"},
	} {
		s := newStub(t)
		s.pod = podOf(t, "p", plain)
		s.refuse["websocket"], s.refuse["spdy"] = c.websocket, c.spdy
		_, _, err := s.client(t).PortForward(t.Context(), target, 9090)
		if got := fmt.Sprintf("%T", err); got != c.want {
			t.Errorf("%+v: %s %v", c, got, err)
		}
	}
}

func TestPortForwardHung(t *testing.T) {
	s := newStub(t)
	s.hang()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	quickly(t, func() {
		if _, _, err := s.client(t).PortForward(ctx, target, 9090); err != context.DeadlineExceeded {
			t.Errorf("%T %v", err, err)
		}
	})
}
