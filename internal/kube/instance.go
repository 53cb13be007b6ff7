package kube

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// Instance is one run of a container, from its start to its end.
type Instance struct {
	ContainerID string
	Restarts    int32
	Started     time.Time
}

// RestartedError reports that a target's container is not the one any more that was
// found: it ended, and may run again.
type RestartedError struct {
	Namespace, Pod, Container string
	Reason                    string // how it ended, such as OOMKilled; empty if it is not known
	Running                   bool   // it was started again
}

func (e *RestartedError) Error() string {
	text := "the Prometheus container restarted"
	if !e.Running {
		text = "the Prometheus container stopped"
	}
	if e.Reason != "" {
		text += " (" + e.Reason + ")"
	}
	return text
}

// ExitCode is that of the command: what it has is incomplete.
func (e *RestartedError) ExitCode() int { return 3 }

// Hint returns what to do about it.
func (e *RestartedError) Hint() string {
	return fmt.Sprintf("its last log lines: kubectl logs -n %s %s -c %s --previous; wait until it serves again",
		e.Namespace, e.Pod, e.Container)
}

// Stops reports that nothing may be run in the container again: its server is starting.
func (e *RestartedError) Stops() bool { return true }

// Same returns a [RestartedError] if the target's container is not the run any more
// that was found. What cannot be found out is no error.
func (c *Client) Same(ctx context.Context, t Target) error {
	ctx, cancel := context.WithTimeout(quiet(ctx), aside)
	defer cancel()
	p, err := c.podOnce(ctx, t)
	e := &RestartedError{Namespace: t.Namespace, Pod: t.Pod, Container: t.Container}
	switch {
	case apierrors.IsNotFound(err):
		e.Reason = "its pod was deleted"
		return e
	case err != nil:
		return nil // an API server that does not answer is no evidence about the container
	case t.UID != "" && string(p.UID) != t.UID:
		e.Reason = "its pod was replaced"
		return e
	}
	s := statusOf(slices.Concat(p.Status.ContainerStatuses, p.Status.InitContainerStatuses), t.Container)
	if s == nil {
		return nil
	}
	now := instanceOf(s)
	e.Running = s.State.Running != nil
	end := cmp.Or(s.State.Terminated, s.LastTerminationState.Terminated)
	if end != nil {
		e.Reason = cmp.Or(end.Reason, fmt.Sprintf("exit code %d", end.ExitCode))
	}
	was := t.Instance
	switch {
	case s.State.Terminated != nil, now.Restarts > was.Restarts:
		return e
	case now.ContainerID != "" && was.ContainerID != "" && now.ContainerID != was.ContainerID:
		return e
	}
	return nil
}

// podOnce asks for the pod of a target once. client-go repeats a GET whose connection breaks
// ten times, a second apart: a caller that retries by itself, or can do without the answer,
// would wait for each of them.
func (c *Client) podOnce(ctx context.Context, t Target) (*corev1.Pod, error) {
	p := &corev1.Pod{}
	err := c.core.RESTClient().Get().MaxRetries(0).Namespace(t.Namespace).Resource("pods").Name(t.Pod).Do(ctx).Into(p)
	return p, err
}

func instanceOf(s *corev1.ContainerStatus) Instance {
	i := Instance{ContainerID: s.ContainerID, Restarts: s.RestartCount}
	if s.State.Running != nil {
		i.Started = s.State.Running.StartedAt.Time
	}
	return i
}
