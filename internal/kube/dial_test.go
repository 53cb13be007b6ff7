package kube

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

func TestDial(t *testing.T) {
	s := newStub(t)
	s.refuse["websocket"] = http.StatusForbidden
	s.run = func(p *process) {
		data := p.stream(corev1.StreamTypeData)
		if port := data.Headers().Get(corev1.PortHeader); port != "9090" {
			t.Errorf("port %s", port)
		}
		b := make([]byte, 5)
		io.ReadFull(data, b)
		data.Write([]byte(strings.ToUpper(string(b))))
		data.Close()
		p.stream(corev1.StreamTypeError).Close()
	}
	client := s.client(t)
	for range 2 { // one has nothing to do with the other
		conn, err := client.Dial(t.Context(), target, 9090)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(conn, "hello")
		if got, err := io.ReadAll(conn); string(got) != "HELLO" || err != nil {
			t.Errorf("%q, %v", got, err)
		}
		conn.SetReadDeadline(time.Now())
		conn.Close()
	}
}

// A port that is closed in the pod says so, and a connection that is lost does not
// look like one that was closed.
func TestDialEnds(t *testing.T) {
	s := newStub(t)
	s.refuse["websocket"] = http.StatusForbidden
	s.run = func(p *process) {
		fmt.Fprint(p.stream(corev1.StreamTypeError), "connection refused in the pod")
		p.stream(corev1.StreamTypeError).Close()
	}
	conn, err := s.client(t).Dial(t.Context(), target, 9090)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(conn); err == nil || !strings.Contains(err.Error(), "connection refused in the pod") {
		t.Errorf("%v", err)
	}
	s.run = func(p *process) {
		p.stream(corev1.StreamTypeData).Write([]byte("begin"))
		io.Copy(io.Discard, p.stream(corev1.StreamTypeData))
	}
	if conn, err = s.client(t).Dial(t.Context(), target, 9090); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(conn, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	s.conns.cut()
	quickly(t, func() {
		if _, err := io.ReadAll(conn); err == nil {
			t.Error("a lost connection ends as one that was closed")
		}
	})
}

func TestDialRefused(t *testing.T) {
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
		_, err := s.client(t).Dial(t.Context(), target, 9090)
		if got := fmt.Sprintf("%T", err); got != c.want {
			t.Errorf("%+v: %s %v", c, got, err)
		}
	}
	s := newStub(t)
	s.hang()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	quickly(t, func() {
		if _, err := s.client(t).Dial(ctx, target, 9090); err != context.DeadlineExceeded {
			t.Errorf("%T %v", err, err)
		}
	})
}
