package kube

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/streaming/pkg/httpstream"
)

// Dial connects to a port of the target's pod. Each connection is a forwarding of
// its own and nothing listens on this machine: one that is lost takes no other with
// it, and the next one is made anew.
func (c *Client) Dial(ctx context.Context, t Target, port int) (net.Conn, error) {
	tries := &attempts{}
	conn, err := c.dialPort(ctx, tries.watch(c.streams), t, port)
	if err == nil {
		return conn, nil
	}
	return nil, c.explainStream(ctx, t, fmt.Sprintf("forward port %d of pod %s", port, t), tries, err, ToForward)
}

func (c *Client) dialPort(ctx context.Context, config *rest.Config, t Target, port int) (net.Conn, error) {
	d, err := c.dialer(config, t)
	if err != nil {
		return nil, err
	}
	type result struct {
		conn httpstream.Connection
		err  error
	}
	done := make(chan result, 1)
	go func() {
		conn, _, err := d.Dial(portforward.PortForwardProtocolV1Name)
		done <- result{conn, err}
	}()
	ctx, cancel := context.WithTimeout(ctx, c.times.dial)
	defer cancel()
	select {
	case r := <-done:
		if r.err != nil {
			return nil, r.err
		}
		p, err := newPortConn(r.conn, port)
		if err != nil {
			return nil, errors.Join(err, r.conn.Close())
		}
		return p, nil
	case <-ctx.Done():
		go func() {
			if r := <-done; r.err == nil {
				_ = r.conn.Close()
			}
		}()
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return nil, errors.New("no answer from the API server")
		}
		return nil, ctx.Err()
	}
}

func (c *Client) dialer(config *rest.Config, t Target) (httpstream.Dialer, error) {
	u := c.streamURL(t, "portforward", nil)
	transport, upgrader, err := spdy.RoundTripperFor(config)
	if err != nil {
		return nil, err
	}
	plain := spdy.NewDialerForStreaming(upgrader, &http.Client{Transport: transport}, "POST", u)
	socket, err := portforward.NewSPDYOverWebsocketDialerForStreamingWithLogger(logr.Discard(), u, config)
	if err != nil {
		return nil, err
	}
	return portforward.NewFallbackDialerForStreaming(socket, plain, otherProtocol), nil
}

// portConn is one connection to a port. The pipe in it has what streams have not:
// deadlines.
type portConn struct {
	net.Conn
	forward httpstream.Connection

	mu  sync.Mutex
	err error // what the far side says of the port
}

func newPortConn(forward httpstream.Connection, port int) (*portConn, error) {
	headers := http.Header{}
	headers.Set(corev1.StreamType, corev1.StreamTypeError)
	headers.Set(corev1.PortHeader, strconv.Itoa(port))
	headers.Set(corev1.PortForwardRequestIDHeader, "0")
	said, err := forward.CreateStream(headers)
	if err != nil {
		return nil, fmt.Errorf("make the stream for errors: %w", err)
	}
	_ = said.Close() // our half: we say nothing there
	headers.Set(corev1.StreamType, corev1.StreamTypeData)
	data, err := forward.CreateStream(headers)
	if err != nil {
		return nil, fmt.Errorf("make the stream for data: %w", err)
	}
	near, far := net.Pipe()
	p := &portConn{Conn: near, forward: forward}
	told := make(chan struct{})
	go func() {
		defer close(told)
		text, _ := io.ReadAll(io.LimitReader(said, 4<<10))
		if len(text) > 0 {
			p.fail(errors.New(strings.TrimSpace(string(text))))
			_ = far.Close()
		}
	}()
	go func() {
		_, _ = io.Copy(data, far)
		_ = data.Close()
	}()
	go func() {
		_, err := io.Copy(far, data)
		select { // a connection that is lost ends as one that was closed does
		case <-forward.CloseChan():
			p.fail(errors.New("lost connection to pod"))
		case <-told:
		default:
			if err != nil {
				p.fail(err)
			}
		}
		_ = far.Close()
	}()
	return p, nil
}

func (p *portConn) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err == nil {
		p.err = err
	}
}

// Read gives why the connection ended, where that is known.
func (p *portConn) Read(b []byte) (int, error) {
	n, err := p.Conn.Read(b)
	if err == io.EOF {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.err != nil {
			err = fmt.Errorf("forwarded port: %w", p.err)
		}
	}
	return n, err
}

func (p *portConn) Close() error {
	return errors.Join(p.Conn.Close(), p.forward.Close())
}
