package kube

import (
	"cmp"
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// List gives everything that looks like a Prometheus, running or not, in order of
// namespace and name. Pods that were named need not look like one.
func (c *Client) List(ctx context.Context, q Query) ([]Target, error) {
	w, err := c.parse(q)
	if err != nil {
		return nil, err
	}
	pods, seen, err := c.pods(ctx, w)
	if err != nil {
		return nil, err
	}
	var targets []Target
	for _, p := range likely(w, pods) {
		t, err := newTarget(p, q)
		if err != nil && q.Container != "" && w.kind == "" {
			continue // the container tells which pods are meant
		}
		targets = append(targets, t)
	}
	if len(targets) == 0 {
		return nil, c.notFound(ctx, w, seen)
	}
	slices.SortFunc(targets, func(a, b Target) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Pod, b.Pod))
	})
	return targets, nil
}

// likely leaves out what does not look like a Prometheus, unless nothing does and
// the user has said what to take.
func likely(w want, pods []*corev1.Pod) []*corev1.Pod {
	if w.kind == "pod" {
		return pods
	}
	var some []*corev1.Pod
	for _, p := range pods {
		if looksLike(p) {
			some = append(some, p)
		}
	}
	if len(some) == 0 && (w.kind != "" || w.Selector != "") {
		return pods
	}
	return some
}

// Find gives the one container that is meant. It runs.
func (c *Client) Find(ctx context.Context, q Query) (Target, error) {
	w, err := c.parse(q)
	if err != nil {
		return Target{}, err
	}
	pods, seen, err := c.pods(ctx, w)
	if err != nil {
		return Target{}, err
	}
	pods = likely(w, pods)
	// Evicted and finished pods lie around for long.
	left := slices.DeleteFunc(slices.Clone(pods), over)
	if len(left) == 0 {
		left = pods
	}
	switch len(left) {
	case 0:
		return Target{}, c.notFound(ctx, w, seen)
	case 1:
		t, err := newTarget(left[0], q)
		if err != nil {
			return t, err
		}
		if !t.Running {
			return t, &NotRunningError{Target: t}
		}
		return t, nil
	}
	several := &SeveralError{}
	for _, p := range left {
		// One without a container is shown too: it is chosen with -c.
		t, _ := newTarget(p, q)
		several.Targets = append(several.Targets, t)
	}
	slices.SortFunc(several.Targets, func(a, b Target) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Pod, b.Pod))
	})
	return Target{}, several
}

// over tells whether a pod will never run again.
func over(p *corev1.Pod) bool {
	return p.DeletionTimestamp != nil || p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
}
