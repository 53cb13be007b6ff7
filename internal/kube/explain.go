package kube

import (
	"context"
	"errors"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/streaming/pkg/httpstream"
)

// explain turns what client-go returns for a request that is no stream into an error of
// ours where there is one. What is not known stays as it is.
func (c *Client) explain(ctx context.Context, err error, a Access) error {
	if e := expired(ctx); e != nil {
		return e
	}
	if isStatus(err) {
		if e := c.answered(err, a); e != nil {
			return e
		}
		return err
	}
	if e := c.unreached(err); e != nil {
		return e
	}
	if e := c.gatewayPage(err); e != nil {
		return e
	}
	return err
}

// explainStream does so for a stream, and looks at the pod. What has no class is a
// [StreamError].
func (c *Client) explainStream(ctx context.Context, t Target, doing string, tries *attempts, err error, a Access) error {
	if e := expired(ctx); e != nil {
		return e
	}
	text := err.Error()
	if !tries.begun() {
		if said := kubeletSaid(tries.list()); said != "" {
			text = said
		} else if e := c.refused(ctx, t, tries.list(), err, a); e != nil {
			return e
		}
	} else if e := c.nodeError(ctx, t, text, true); e != nil {
		return e
	}
	if gone := c.gone(ctx, t); gone != nil {
		return gone
	}
	if noContainerNow.MatchString(text) {
		return &GoneError{Namespace: t.Namespace, Pod: t.Pod, Reason: text}
	}
	return &StreamError{Doing: doing, Err: err, Age: tries.age()}
}

// kubeletSaid is what a kubelet answered over either protocol about a container that it
// does not run now; empty: no kubelet answered that. It decides, whatever a gateway
// answers over the other protocol.
func kubeletSaid(tries []attempt) string {
	for _, t := range tries {
		if text := t.err.Error(); !isStatus(t.err) && noContainerNow.MatchString(text) {
			return oneLine(text)
		}
	}
	return ""
}

// upgradeCause finds what the API server answered when it refused to begin a
// stream: that error does not unwrap.
func upgradeCause(err error) error {
	u, ok := errors.AsType[*httpstream.UpgradeFailureError](err)
	if !ok {
		return err
	}
	return u.Cause
}

// isStatus tells an answer of the API server from everything else.
func isStatus(err error) bool {
	_, ok := errors.AsType[*apierrors.StatusError](err)
	return ok
}
