package kube

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/streaming/pkg/httpstream"
)

// PortForward makes a port of the target's pod reachable on this machine's
// loopback, at addr, until stop is called or ctx ends. That the port is closed in
// the pod shows at the first connection, and that ends the forwarding: then ask
// for another one.
func (c *Client) PortForward(ctx context.Context, t Target, port int) (addr string, stop func(), err error) {
	addr, stop, err = c.forward(ctx, t, port)
	if err == nil {
		return addr, stop, nil
	}
	if err = c.explain(ctx, err, ToForward); known(err) || expired(ctx) != nil {
		return "", nil, err
	}
	if gone := c.gone(ctx, t); gone != nil {
		return "", nil, gone
	}
	if apierrors.IsNotFound(err) {
		return "", nil, &GoneError{Namespace: t.Namespace, Pod: t.Pod, Reason: err.Error()}
	}
	return "", nil, &StreamError{Doing: fmt.Sprintf("forward port %d of pod %s", port, t), Err: err}
}

func (c *Client) forward(ctx context.Context, t Target, port int) (addr string, stop func(), err error) {
	d, err := c.dialer(t)
	if err != nil {
		return "", nil, err
	}
	ctx, cancel := context.WithCancel(quiet(ctx))
	defer func() {
		if err != nil {
			cancel()
		}
	}()
	ready := make(chan struct{})
	f, err := portforward.NewOnAddressesForStreamingWithContext(ctx, d, []string{"127.0.0.1"}, []string{fmt.Sprintf(":%d", port)}, ready, io.Discard, io.Discard)
	if err != nil {
		return "", nil, err
	}
	end := &ending{done: make(chan struct{})}
	go end.wait(f.ForwardPorts)
	late := time.NewTimer(c.times.dial)
	defer late.Stop()
	select {
	case <-ready:
		ports, err := f.GetPorts()
		if err != nil {
			return "", nil, err
		}
		return fmt.Sprintf("127.0.0.1:%d", ports[0].Local), func() { cancel(); <-end.done }, nil
	case <-end.done:
		if d.err != nil {
			return "", nil, d.err // the forwarder keeps just its text
		}
		return "", nil, end.err
	case <-late.C:
		return "", nil, errors.New("no answer from the API server")
	case <-ctx.Done():
		return "", nil, ctx.Err()
	}
}

// ending is of something that goes on elsewhere.
type ending struct {
	done chan struct{}
	err  error // once it is done
}

func (e *ending) wait(f func() error) {
	e.err = f()
	close(e.done)
}

// keepingDialer keeps the error of a dialer.
type keepingDialer struct {
	httpstream.Dialer
	err error // once Dial has returned
}

func (d *keepingDialer) Dial(protocols ...string) (httpstream.Connection, string, error) {
	conn, protocol, err := d.Dialer.Dial(protocols...)
	d.err = err
	return conn, protocol, err
}

func (c *Client) dialer(t Target) (*keepingDialer, error) {
	u := c.streamURL(t, "portforward", nil)
	transport, upgrader, err := spdy.RoundTripperFor(c.streams)
	if err != nil {
		return nil, err
	}
	plain := spdy.NewDialerForStreaming(upgrader, &http.Client{Transport: transport}, "POST", u)
	socket, err := portforward.NewSPDYOverWebsocketDialerForStreamingWithLogger(logr.Discard(), u, c.streams)
	if err != nil {
		return nil, err
	}
	return &keepingDialer{Dialer: portforward.NewFallbackDialerForStreaming(socket, plain, otherProtocol)}, nil
}
