package kube

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// DeleteAndWait deletes the target's pod and waits until its successor is ready,
// or ctx ends. A pod that nothing would bring back is not deleted, and neither is
// one whose data dir would go with it.
func (c *Client) DeleteAndWait(ctx context.Context, t Target) (Target, error) {
	if err := mayDelete(t); err != nil {
		return t, err
	}
	before := map[string]bool{t.UID: true}
	// With a Deployment the successor has another name.
	if t.owner.Kind == "ReplicaSet" {
		siblings, err := c.siblings(ctx, t)
		if err != nil {
			return t, err
		}
		for _, p := range siblings {
			before[string(p.UID)] = true
		}
	}
	err := c.core.Pods(t.Namespace).Delete(ctx, t.Pod, *metav1.NewPreconditionDeleteOptions(t.UID))
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return t, &GoneError{Namespace: t.Namespace, Pod: t.Pod, Reason: "it was deleted by someone else just now"}
	} else if err != nil {
		return t, c.explain(ctx, fmt.Errorf("delete pod %s: %w", t, err), ToRestart)
	}
	return c.successor(ctx, t, before)
}

// MayRestart tells why [Client.DeleteAndWait] would not delete the target's pod: it
// would not come back with its data, or the cluster's rules do not allow it.
func (c *Client) MayRestart(ctx context.Context, t Target) error {
	if err := mayDelete(t); err != nil {
		return err
	}
	return c.May(ctx, t, ToRestart)
}

// RestartCommand is what a person types to restart the target's server.
func RestartCommand(t Target) string {
	if mayDelete(t) == nil {
		return fmt.Sprintf("kubectl delete pod -n %s %s", t.Namespace, t.Pod)
	}
	return endCommand(t)
}

func endCommand(t Target) string {
	return fmt.Sprintf("kubectl exec -n %s %s -c %s -- kill 1", t.Namespace, t.Pod, t.Container)
}

func mayDelete(t Target) error {
	e := &RestartError{Target: t, tip: "leave out --restart; afterwards end the server, so that its container is restarted: " + endCommand(t)}
	if !t.Outlived() {
		e.tip = "its data dir is on no volume: give it one"
	}
	switch {
	case t.owner == nil:
		e.Reason = "nothing would bring it back, for it belongs to no controller"
	case t.owner.Kind == "Node":
		e.Reason = "it is a static pod, which is not restarted by deleting it"
	case !t.Lasting:
		e.Reason = fmt.Sprintf("its data dir would be deleted with it (%s)", t.Volume)
	default:
		return nil
	}
	return e
}

// successor waits for a pod that was not there before.
func (c *Client) successor(ctx context.Context, t Target, before map[string]bool) (Target, error) {
	seen := "no new pod yet"
	tick := time.NewTicker(c.times.poll)
	defer tick.Stop()
	for {
		next, err := c.look(ctx, t, before)
		switch {
		case ctx.Err() != nil:
		case err != nil:
			// An API server may be away for a moment; rules do not change in one.
			if _, denied := errors.AsType[*PermissionError](err); denied {
				return t, err
			}
			seen = err.Error()
		case next.Pod != "" && next.Ready:
			return next, nil
		case next.Pod != "":
			seen = fmt.Sprintf("pod %s is not ready: %s", next, join(next.Phase, next.Reason))
		default:
			seen = "no new pod yet"
		}
		select {
		case <-ctx.Done():
			return t, fmt.Errorf("%w: %w", &RestartError{
				Target: t, Reason: "it was deleted, and its successor is not ready: " + seen,
				tip: "watch it: kubectl get pods -w -n " + t.Namespace,
			}, ctx.Err())
		case <-tick.C:
		}
	}
}

// look gives the target's successor as it is now. It may have no name yet.
func (c *Client) look(ctx context.Context, t Target, before map[string]bool) (Target, error) {
	var pods []*corev1.Pod
	if t.owner.Kind == "ReplicaSet" {
		siblings, err := c.siblings(ctx, t)
		if err != nil {
			return Target{}, err
		}
		pods = siblings
	} else {
		p, err := c.core.Pods(t.Namespace).Get(ctx, t.Pod, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return Target{}, nil
		} else if err != nil {
			return Target{}, c.explain(ctx, fmt.Errorf("get pod %s: %w", t, err), ToRestart)
		}
		pods = append(pods, p)
	}
	for _, p := range pods {
		if !before[string(p.UID)] {
			next, err := newTarget(p, Query{Container: t.Container, DataDir: t.DataDir})
			if t.DataDir != "" {
				next.DataDirFrom = t.DataDirFrom
			}
			return next, err
		}
	}
	return Target{}, nil
}

// siblings are the pods of the target's controller.
func (c *Client) siblings(ctx context.Context, t Target) ([]*corev1.Pod, error) {
	all, err := c.listed(ctx, t.Namespace, metav1.ListOptions{})
	if err != nil {
		return nil, c.explain(ctx, err, ToRestart)
	}
	var same []*corev1.Pod
	for _, p := range all {
		if o := metav1.GetControllerOf(p); o != nil && o.UID == t.owner.UID {
			same = append(same, p)
		}
	}
	return same, nil
}
