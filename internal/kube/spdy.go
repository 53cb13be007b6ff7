package kube

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync/atomic"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/httpstream" //nolint:staticcheck // client-go's interfaces have its types
	"k8s.io/apimachinery/pkg/util/remotecommand"
	"k8s.io/client-go/rest"
	executors "k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
)

// errNoStatus is of a stream over SPDY whose connection broke.
var errNoStatus = fmt.Errorf("the connection broke: %w", io.ErrUnexpectedEOF)

// spdyStatus watches the stream over which a Status comes when a command has ended. Where
// a connection breaks, client-go returns no error over SPDY, as if the command had ended
// well (client-go/tools/remotecommand/errorstream.go:47).
type spdyStatus struct {
	sends atomic.Bool // the server sends one
	came  atomic.Bool
}

// missing reports whether a stream over SPDY ended without its Status.
func (s *spdyStatus) missing(tries *attempts) bool {
	return tries.begun() && s.sends.Load() && !s.came.Load()
}

func newSPDY(config *rest.Config, u *url.URL) (executors.Executor, *spdyStatus, error) {
	transport, upgrader, err := spdy.RoundTripperFor(config)
	if err != nil {
		return nil, nil, err
	}
	status := &spdyStatus{}
	e, err := executors.NewSPDYExecutorForTransports(transport, &statusUpgrader{upgrader, status}, http.MethodPost, u)
	return e, status, err
}

type statusUpgrader struct {
	spdy.Upgrader
	status *spdyStatus
}

// NewConnection implements spdy.Upgrader.
func (u *statusUpgrader) NewConnection(resp *http.Response) (httpstream.Connection, error) {
	conn, err := u.Upgrader.NewConnection(resp)
	if err != nil {
		return nil, err
	}
	switch resp.Header.Get(httpstream.HeaderProtocolVersion) {
	case remotecommand.StreamProtocolV4Name, remotecommand.StreamProtocolV5Name: // before: only of a failure
		u.status.sends.Store(true)
	}
	return &statusConnection{conn, u.status}, nil
}

type statusConnection struct {
	httpstream.Connection
	status *spdyStatus
}

// CreateStream implements httpstream.Connection.
func (c *statusConnection) CreateStream(h http.Header) (httpstream.Stream, error) {
	s, err := c.Connection.CreateStream(h)
	if err != nil || h.Get(corev1.StreamType) != corev1.StreamTypeError {
		return s, err
	}
	return &statusStream{s, c.status}, nil
}

type statusStream struct {
	httpstream.Stream
	status *spdyStatus
}

// Read implements io.Reader.
func (s *statusStream) Read(p []byte) (int, error) {
	n, err := s.Stream.Read(p)
	if n > 0 {
		s.status.came.Store(true)
	}
	return n, err
}
