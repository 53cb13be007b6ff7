package kube

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/streaming/pkg/httpstream"
)

// times are how long is waited for what. Tests wait less.
type times struct {
	grace time.Duration // for a stream that was cancelled to let go
	poll  time.Duration // between two looks at a pod that restarts
	dial  time.Duration // for a port to be forwarded
	start time.Duration // for a container of ours to run
}

var usualTimes = times{grace: time.Second, poll: time.Second, dial: 30 * time.Second, start: 3 * time.Minute}

// Streams are those of a command. Each may be nil. Out and Err may be written to at
// the same time.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer

	// Much is set where many bytes go through: SPDY goes first then. It costs this machine
	// and the API server about as much as WebSocket, and the kubelet a third: the runtime
	// speaks SPDY only, and something on the way translates WebSocket, frame by frame.
	Much bool
}

// Exec runs a command in the target's container until it ends, or until ctx does:
// then it returns soon, whatever the connection does, and what is still under way
// no longer reaches Out and Err. A Read of In that has begun may outlive it.
//
// Out has to take what comes: over WebSocket, client-go gives up a stream that stood
// still for a minute, for whatever reason.
//
// That it gives no error says nothing about what went through the streams. All types of
// errors but a [StreamError] are certain; that one may be anything. [retry.Of] says of
// each whether another Exec can succeed.
func (c *Client) Exec(ctx context.Context, t Target, command []string, s Streams) error {
	tries := &attempts{}
	executor, status, err := c.executor(tries, t, command, s)
	if err != nil {
		return fmt.Errorf("run %s in pod %s: %w", command[0], t, err)
	}
	in, out, errs := newGate(s.In, nil), newGate(nil, s.Out), newGate(nil, s.Err)
	o := remotecommand.StreamOptions{}
	if s.In != nil {
		o.Stdin = in
	}
	if s.Out != nil {
		o.Stdout = out
	}
	if s.Err != nil {
		o.Stderr = errs
	}
	done := make(chan error, 1)
	go func() { done <- executor.StreamWithContext(quiet(ctx), o) }()
	select {
	case err = <-done:
	case <-ctx.Done():
		select {
		case err = <-done:
		case <-time.After(c.times.grace):
		}
	}
	if err == nil && status.missing(tries) {
		err = errNoStatus
	}
	in.shut(0)
	out.shut(c.times.grace)
	errs.shut(c.times.grace)
	if e := expired(ctx); e != nil {
		return e
	}
	return c.ended(ctx, t, command[0], tries, err)
}

// quiet keeps client-go from writing to stderr what its caller is told anyway.
func quiet(ctx context.Context) context.Context {
	return logr.NewContext(ctx, logr.Discard())
}

// executor speaks WebSocket, and SPDY where that is refused: by a proxy, by an old
// API server, or by rules that allow create but not get. For many bytes it is the other
// way round, unless SPDY was refused before.
func (c *Client) executor(tries *attempts, t Target, command []string, s Streams) (remotecommand.Executor, *spdyStatus, error) {
	u := c.streamURL(t, "exec", &corev1.PodExecOptions{
		Container: t.Container, Command: command,
		Stdin: s.In != nil, Stdout: s.Out != nil, Stderr: s.Err != nil,
	})
	config := tries.watch(c.streams)
	spdy, status, err := newSPDY(config, u)
	if err != nil {
		return nil, nil, err
	}
	socket, err := remotecommand.NewWebSocketExecutor(config, "GET", u.String())
	if err != nil {
		return nil, nil, err
	}
	first, second, other := socket, spdy, otherProtocol
	if s.Much && !c.noSPDY.Load() {
		first, second = spdy, socket
		other = func(error) bool {
			if !tries.spdyRefused() {
				return false
			}
			c.noSPDY.Store(true)
			return true
		}
	}
	executor, err := remotecommand.NewFallbackExecutor(first, second, other)
	return executor, status, err
}

func (c *Client) streamURL(t Target, sub string, options *corev1.PodExecOptions) *url.URL {
	r := c.core.RESTClient().Post().Resource("pods").Namespace(t.Namespace).Name(t.Pod).SubResource(sub)
	if options != nil {
		r = r.VersionedParams(options, scheme.ParameterCodec)
	}
	return r.URL()
}

// otherProtocol tells whether the other protocol may do what this one could not.
func otherProtocol(err error) bool {
	if cause := upgradeCause(err); apierrors.IsNotFound(cause) || apierrors.IsUnauthorized(cause) {
		return false
	}
	return httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err)
}

// gate lets a stream through until it is shut. client-go goes on reading and
// writing when its caller has long left.
type gate struct {
	turn chan struct{} // held by who writes
	open chan struct{} // closed when the gate is shut
	r    io.Reader
	w    io.Writer
}

func newGate(r io.Reader, w io.Writer) *gate {
	return &gate{turn: make(chan struct{}, 1), open: make(chan struct{}), r: r, w: w}
}

func (g *gate) isShut() bool {
	select {
	case <-g.open:
		return true
	default:
		return false
	}
}

func (g *gate) Read(p []byte) (int, error) {
	if g.isShut() {
		return 0, io.EOF
	}
	return g.r.Read(p)
}

func (g *gate) Write(p []byte) (int, error) {
	g.turn <- struct{}{}
	defer func() { <-g.turn }()
	if g.isShut() {
		return 0, io.ErrClosedPipe
	}
	return g.w.Write(p)
}

// shut waits a while for a Write that has begun.
func (g *gate) shut(wait time.Duration) {
	close(g.open)
	select {
	case g.turn <- struct{}{}:
		<-g.turn
	default:
		select {
		case g.turn <- struct{}{}:
			<-g.turn
		case <-time.After(wait):
		}
	}
}

// expired is ctx's error. A connection can notice the deadline before ctx does.
func expired(ctx context.Context) error {
	if end, ok := ctx.Deadline(); ok && ctx.Err() == nil && !time.Now().Before(end) {
		return context.DeadlineExceeded
	}
	return ctx.Err()
}

// known tells an error that has its place already.
func known(err error) bool {
	_, ok := errors.AsType[interface {
		error
		ExitCode() int
	}](err)
	return ok
}
