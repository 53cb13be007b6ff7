package kube

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
)

var target = Target{Namespace: "mon", Pod: "p", UID: "uid of p", Container: "prometheus"}

// both runs a test over each of the protocols.
func both(t *testing.T, f func(*testing.T, *stub)) {
	for _, protocol := range []string{"websocket", "spdy"} {
		t.Run(protocol, func(t *testing.T) {
			s := newStub(t)
			s.pod = podOf(t, "p", plain)
			if protocol == "spdy" {
				s.refuse["websocket"] = http.StatusForbidden // as for who may create, not get
			}
			f(t, s)
		})
	}
}

func TestExec(t *testing.T) {
	both(t, func(t *testing.T, s *stub) {
		s.run = func(p *process) {
			io.Copy(p.out, p.in)
			io.WriteString(p.err, "said")
			p.end(success())
		}
		body := strings.Repeat("0123456789abcdef", 1<<16)
		var out, errs bytes.Buffer
		err := s.client(t).Exec(t.Context(), target, []string{"cat", "-v"}, Streams{In: strings.NewReader(body), Out: &out, Err: &errs})
		if err != nil || out.String() != body || errs.String() != "said" {
			t.Errorf("%v, %d bytes, %q", err, out.Len(), errs.String())
		}
		if got := fmt.Sprint(s.query["command"], s.query["container"], s.query["stdin"]); got != "[cat -v] [prometheus] [true]" {
			t.Error(got)
		}
	})
}

func TestExecWithoutStreams(t *testing.T) {
	both(t, func(t *testing.T, s *stub) {
		s.run = func(p *process) { io.WriteString(p.out, "x"); p.end(exitCode(3)) }
		var out bytes.Buffer
		err := s.client(t).Exec(t.Context(), target, []string{"true"}, Streams{Out: &out})
		if e, ok := errors.AsType[*ExitError](err); !ok || e.Code != 3 || out.String() != "x" {
			t.Errorf("%v, %q", err, out.String())
		}
		if len(s.query["stdin"])+len(s.query["stderr"]) != 0 {
			t.Error(s.query)
		}
	})
}

// What runtimes say, word for word; containerd's and runc's are from a real
// cluster.
func TestExecErrors(t *testing.T) {
	const containerd = "Internal error occurred: error executing command in container: failed to exec in container: failed to start exec \"0ef8\": OCI runtime exec failed: exec failed: unable to start container process: "
	oom := &corev1.ContainerStateTerminated{Reason: "OOMKilled", ExitCode: 137}
	restarted := func(p *corev1.Pod) {
		p.Status.ContainerStatuses[0].RestartCount = 1
		p.Status.ContainerStatuses[0].LastTerminationState.Terminated = oom
	}
	for _, c := range []struct {
		name   string
		says   string
		code   int
		pod    func(*corev1.Pod)
		nopod  bool
		want   string
		reason string
	}{
		{"no such program", containerd + `exec: "tar": executable file not found in $PATH: unknown`, 0, nil, false, "*kube.NoCommandError", "the container cannot run tar: executable file not found in $PATH"},
		{"no such path", containerd + `exec: "/bin/sh": stat /bin/sh: no such file or directory: unknown`, 0, nil, false, "*kube.NoCommandError", "stat /bin/sh: no such file or directory"},
		{"no program", containerd + `exec: "/etc/passwd": permission denied: unknown`, 0, nil, false, "*kube.NoCommandError", "permission denied"},
		{"noexec", containerd + `eaccess /dev/shm/x: permission denied: unknown`, 0, nil, false, "*kube.NoCommandError", "permission denied"},
		{"another machine's", containerd + `exec /a: exec format error: unknown`, 0, nil, false, "*kube.NoCommandError", "exec format error"},
		{"crun", "error executing command in container: time=\"x\" level=error msg=\"exec failed: executable file `sh` not found in $PATH\"", 0, nil, false, "*kube.NoCommandError", "executable file `sh` not found in $PATH"},
		{"container has ended", `unable to upgrade connection: container not found ("prometheus")`, 0, nil, false, "*kube.GoneError", "container not found"},
		{"container was killed", "", 137, restarted, false, "*kube.GoneError", "its container prometheus was restarted after it ended with OOMKilled, exit code 137"},
		{"command was killed", "", 137, nil, false, "*kube.ExitError", "out of memory, or the pod ends"},
		{"command failed", "", 2, restarted, false, "*kube.ExitError", "tar ended with exit code 2"},
		{"pod was deleted", "", 137, nil, true, "*kube.GoneError", "it was deleted"},
		{"pod was replaced", "anything", 0, func(p *corev1.Pod) { p.UID = "other" }, false, "*kube.GoneError", "another pod has its name now"},
		{"pod crashes", "anything", 0, inState(corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}}, oom), false, "*kube.GoneError", "does not run: CrashLoopBackOff, it ended with OOMKilled"},
		{"not known", "anything: no such file or directory", 0, nil, false, "*kube.StreamError", "run tar in pod mon/p: anything"},
	} {
		both(t, func(t *testing.T, s *stub) {
			if c.pod != nil {
				c.pod(s.pod)
			}
			if c.nopod {
				s.pod = nil
			}
			s.run = func(p *process) {
				if c.says != "" {
					p.end(failure(c.says))
				} else {
					p.end(exitCode(c.code))
				}
			}
			err := s.client(t).Exec(t.Context(), target, []string{"tar", "cf"}, Streams{Out: io.Discard})
			if got := fmt.Sprintf("%T", err); got != c.want || !strings.Contains(err.Error(), c.reason) || strings.Contains(err.Error(), "unknown") {
				t.Errorf("%s: %s %v", c.name, got, err)
			}
		})
	}
}

// That a container was restarted is told once, not with all that fails later.
func TestExecToldOnce(t *testing.T) {
	s := newStub(t)
	s.pod = podOf(t, "p", plain, func(p *corev1.Pod) { p.Status.ContainerStatuses[0].RestartCount = 1 })
	s.run = func(p *process) { p.end(failure("broken")) }
	c := s.client(t)
	for _, want := range []string{"*kube.GoneError", "*kube.StreamError", "*kube.StreamError"} {
		if err := c.Exec(t.Context(), target, []string{"x"}, Streams{Out: io.Discard}); fmt.Sprintf("%T", err) != want {
			t.Errorf("%T %v, want %s", err, err, want)
		}
	}
}

func TestExecRefused(t *testing.T) {
	for _, c := range []struct {
		websocket, spdy int
		want            string
		asked           string
		message         string
	}{
		{403, 403, "*kube.PermissionError", "websocket spdy", "not permitted: bob may not create pods/exec in namespace mon"},
		{401, 0, "*kube.LoginError", "websocket", ""},
		{404, 0, "*kube.GoneError", "websocket", ""},
		{500, 500, "*kube.StreamError", "websocket spdy", ""},
		{400, 404, "*kube.GoneError", "websocket spdy", ""},
		{400, 401, "*kube.LoginError", "websocket spdy", ""},
	} {
		s := newStub(t)
		s.pod = podOf(t, "p", plain)
		s.refuse["websocket"], s.refuse["spdy"] = c.websocket, c.spdy
		err := s.client(t).Exec(t.Context(), target, []string{"x"}, Streams{Out: io.Discard})
		if got := fmt.Sprintf("%T", err); got != c.want || s.protocols() != c.asked || c.message != "" && err.Error() != c.message {
			t.Errorf("%+v: %s %v (%s)", c, got, err, s.protocols())
		}
	}
}

func TestExecCut(t *testing.T) {
	s := newStub(t)
	s.pod = podOf(t, "p", plain)
	s.run = func(p *process) { io.WriteString(p.out, "half"); s.conns.cut() }
	var out bytes.Buffer
	err := s.client(t).Exec(t.Context(), target, []string{"x"}, Streams{Out: &out})
	// What has a place among the exit codes is taken for final.
	e, ok := errors.AsType[*StreamError](err)
	if !ok || known(err) {
		t.Fatalf("%T %v, %q", err, err, out.String())
	}
	if !e.Cut() || !strings.Contains(e.Hint(), "load balancer") {
		t.Errorf("%#v is no cut: %q", e.Err, e.Hint())
	}
}

func TestExecUnreachable(t *testing.T) {
	s := newStub(t)
	c := s.client(t)
	s.server.Close()
	err := c.Exec(t.Context(), target, []string{"x"}, Streams{Out: io.Discard})
	if _, ok := errors.AsType[*UnreachableError](err); !ok {
		t.Errorf("%T %v", err, err)
	}
}

// quickly fails if f takes long.
func quickly(t *testing.T, f func()) {
	t.Helper()
	begun := time.Now()
	f()
	if d := time.Since(begun); d > 2*time.Second {
		t.Errorf("it took %v", d)
	}
}

func TestExecCancel(t *testing.T) {
	both(t, func(t *testing.T, s *stub) {
		ctx, cancel := context.WithCancel(t.Context())
		eof := make(chan error, 1)
		s.run = func(p *process) {
			cancel()
			_, err := io.Copy(io.Discard, p.in)
			eof <- err
		}
		in, feed := io.Pipe()
		defer feed.Close()
		quickly(t, func() {
			if err := s.client(t).Exec(ctx, target, []string{"x"}, Streams{In: in, Out: io.Discard}); err != context.Canceled {
				t.Errorf("%T %v", err, err)
			}
		})
		select {
		case <-eof:
		case <-time.After(5 * time.Second):
			t.Error("stdin of the command goes on")
		}
	})
}

// An API server that takes the connection and says nothing.
func TestExecCancelHung(t *testing.T) {
	for _, refuse := range []bool{false, true} {
		s := newStub(t)
		s.hang()
		c := s.client(t)
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if refuse { // SPDY's dialer does not know of ctx while it waits for the answer
			h := newStub(t)
			h.refuse["websocket"] = 403
			h.server.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
					status(w, 403)
					return
				}
				<-h.done
			})
			c = h.client(t)
		}
		quickly(t, func() {
			if err := c.Exec(ctx, target, []string{"x"}, Streams{Out: io.Discard}); err != context.DeadlineExceeded {
				t.Errorf("%T %v", err, err)
			}
		})
	}
}

// Nothing is written any more once Exec has returned: the caller may use its
// buffer. And a writer that stands still does not keep Exec.
func TestExecGate(t *testing.T) {
	both(t, func(t *testing.T, s *stub) {
		s.run = func(p *process) {
			for {
				if _, err := p.out.Write(make([]byte, 1000)); err != nil {
					return
				}
			}
		}
		c := s.client(t)
		ctx, cancel := context.WithCancel(t.Context())
		var left, late atomic.Bool
		slow := false
		err := c.Exec(ctx, target, []string{"x"}, Streams{Out: writeFunc(func(p []byte) (int, error) {
			if left.Load() {
				late.Store(true)
			}
			cancel()
			time.Sleep(30 * time.Millisecond) // less than the grace
			slow = true                       // the race detector sees it, too
			return len(p), nil
		})})
		left.Store(true)
		if err != context.Canceled || !slow {
			t.Errorf("%v; it waited for the write: %v", err, slow)
		}
		time.Sleep(50 * time.Millisecond)
		if late.Load() {
			t.Error("something was written afterwards")
		}
		ctx, cancel = context.WithCancel(t.Context())
		stuck := make(chan struct{})
		defer close(stuck)
		quickly(t, func() {
			err := c.Exec(ctx, target, []string{"x"}, Streams{Out: writeFunc(func(p []byte) (int, error) {
				cancel()
				<-stuck
				return len(p), nil
			})})
			if err != context.Canceled {
				t.Error(err)
			}
		})
	})
}

// A connection that ends because of ctx's deadline can do so before ctx.
func TestExpired(t *testing.T) {
	if err := expired(earlyCtx{t.Context()}); err != context.DeadlineExceeded {
		t.Error(err)
	}
	if err := expired(t.Context()); err != nil {
		t.Error(err)
	}
}

type earlyCtx struct{ context.Context }

func (earlyCtx) Deadline() (time.Time, bool) { return time.Unix(1, 0), true }

type writeFunc func([]byte) (int, error)

func (f writeFunc) Write(p []byte) (int, error) { return f(p) }

// Whether a pod comes back decides whether it is waited for.
func TestGoneForGood(t *testing.T) {
	evicted := podOf(t, "p", plain, func(p *corev1.Pod) {
		p.Status.Phase, p.Status.Reason = corev1.PodFailed, "Evicted"
		p.Status.Message = "The node was low on resource: memory."
	})
	for owner, comesBack := range map[string]bool{
		"": false, "StatefulSet/prometheus": true, "ReplicaSet/prometheus-5d4f": false, "DaemonSet/p": false, "Other/p": true,
	} {
		s := newStub(t)
		s.run = func(p *process) { p.end(exitCode(137)) }
		own := target
		own.Owner = owner
		for _, pod := range []*corev1.Pod{nil, evicted} {
			s.pod = pod
			err := s.client(t).Exec(t.Context(), own, []string{"sh"}, Streams{Out: io.Discard})
			gone, ok := errors.AsType[*GoneError](err)
			if !ok || gone.Final() == comesBack {
				t.Errorf("owner %q, evicted %v: %v", owner, pod != nil, err)
			}
		}
	}
}

// What is asked of a pod when a stream broke is asked once: a link that resets each
// connection costs no time, and what cannot be found out is no error.
func TestAskedOnce(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var asked atomic.Int32
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			asked.Add(1)
			conn.(*net.TCPConn).SetLinger(0)
			conn.Close()
		}
	}()
	t.Cleanup(func() { l.Close() })
	c := clientOf(t, &rest.Config{Host: "http://" + l.Addr().String()})
	begin := time.Now()
	if err := c.Same(t.Context(), onNode); err != nil {
		t.Error(err)
	}
	if err := c.gone(t.Context(), onNode); err != nil {
		t.Error(err)
	}
	if text := c.notReady(t.Context(), "n1"); text != "" {
		t.Error(text)
	}
	if b := c.raw(t.Context(), "/stats", "", ""); b != nil {
		t.Errorf("%s", b)
	}
	if took := time.Since(begin); asked.Load() != 4 || took > time.Second {
		t.Errorf("%d connections for 4 questions, in %v", asked.Load(), took)
	}
}
