package kube

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/streaming/pkg/httpstream"
)

// UnreachableError says that the API server does not answer.
type UnreachableError struct {
	Server string
	Err    error
}

func (e *UnreachableError) Error() string {
	return fmt.Sprintf("the API server %s cannot be reached: %s", e.Server, rootOf(e.Err))
}
func (e *UnreachableError) Unwrap() error { return e.Err }

// ExitCode is that of the command.
func (e *UnreachableError) ExitCode() int { return codeFailed }

// Hint says what to do about it.
func (e *UnreachableError) Hint() string {
	text := e.Err.Error()
	switch {
	case strings.Contains(text, "x509:") || strings.Contains(text, "tls:"):
		return "its certificate is not the one that the kubeconfig expects; --certificate-authority FILE and --tls-server-name NAME tell another"
	case strings.Contains(text, "no such host"):
		return "the kubeconfig names a host that is not known here: is the VPN on? --context takes another cluster"
	case strings.Contains(text, "getting credentials"):
		return "the program that the kubeconfig names for logging in failed; kubectl get pods runs it too"
	}
	return "is the cluster up, and the VPN or proxy on? kubectl cluster-info asks the same server; --context takes another"
}

// rootOf is the part of an error of the network that says something to a person.
func rootOf(err error) string {
	var op *net.OpError
	var u *url.Error
	switch {
	case errors.As(err, &op):
		return op.Error()
	case errors.As(err, &u):
		return u.Err.Error()
	}
	return err.Error()
}

// explain turns what client-go gives into an error of ours where there is one.
// What is not known stays as it is.
func (c *Client) explain(ctx context.Context, err error, a Access) error {
	if e := expired(ctx); e != nil {
		return e
	}
	err = upgradeCause(err)
	text := err.Error()
	status := isStatus(err)
	switch {
	case apierrors.IsUnauthorized(err), !status && strings.HasSuffix(text, ": Unauthorized"):
		return &LoginError{Err: err}
	case apierrors.IsForbidden(err), !status && forbidden.MatchString(text):
		return denied(text, a)
	case !status && unreachable(err):
		return &UnreachableError{Server: c.Server, Err: err}
	}
	return err
}

// upgradeCause finds what the API server answered when it refused to begin a
// stream: that error does not unwrap.
func upgradeCause(err error) error {
	u, ok := errors.AsType[*httpstream.UpgradeFailureError](err)
	if !ok {
		return err
	}
	if isStatus(u.Cause) {
		return u.Cause
	}
	return err
}

// isStatus tells an answer of the API server from everything else.
func isStatus(err error) bool {
	_, ok := errors.AsType[*apierrors.StatusError](err)
	return ok
}

// unreachable tells an API server that does not answer from a connection that broke
// and from an answer.
func unreachable(err error) bool {
	if _, ok := errors.AsType[*url.Error](err); ok {
		return true
	}
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op.Op == "dial"
	}
	// The dialers of streams keep just the text.
	text := err.Error()
	return slices.ContainsFunc([]string{"dial tcp", "no such host", "TLS handshake timeout", "x509: "}, func(s string) bool {
		return strings.Contains(text, s)
	})
}
