package kube

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
)

// Where many bytes go through, SPDY is first, and what refused it once is not asked again.
func TestExecMuch(t *testing.T) {
	for _, c := range []struct {
		name  string
		codes map[string]int // refused with
		want  string
		fails bool
	}{
		{"both", nil, "spdy spdy", false},
		{"SPDY is refused", map[string]int{"spdy": http.StatusForbidden}, "spdy websocket websocket", false},
		{"SPDY is not known", map[string]int{"spdy": http.StatusBadRequest}, "spdy websocket websocket", false},
		{"the pod is not found", map[string]int{"spdy": http.StatusNotFound}, "spdy spdy", true},
		{"the kubelet is not reached", map[string]int{"spdy": http.StatusInternalServerError}, "spdy spdy", true},
		{"the login is refused", map[string]int{"spdy": http.StatusUnauthorized}, "spdy spdy", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStub(t)
			s.pod = podOf(t, "p", plain)
			for protocol, code := range c.codes {
				s.refuse[protocol] = code
			}
			s.run = func(p *process) {
				io.WriteString(p.out, "x")
				p.end(success())
			}
			client := s.client(t)
			for range 2 {
				var out bytes.Buffer
				err := client.Exec(t.Context(), target, []string{"cat"}, Streams{Out: &out, Much: true})
				if c.fails != (err != nil) || !c.fails && out.String() != "x" {
					t.Errorf("%v, %q", err, out.String())
				}
			}
			if got := s.protocols(); got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}

// client-go takes a connection that broke for a command that ended well, over SPDY.
func TestExecMuchCut(t *testing.T) {
	s := newStub(t)
	s.pod = podOf(t, "p", plain)
	s.run = func(p *process) {
		io.WriteString(p.out, "half")
		s.conns.cut()
	}
	err := s.client(t).Exec(t.Context(), target, []string{"cat"}, Streams{Out: io.Discard, Much: true})
	e, ok := errors.AsType[*StreamError](err)
	if !ok || !e.Cut() || !strings.Contains(e.Hint(), "load balancer") {
		t.Errorf("%T %v", err, err)
	}
}
