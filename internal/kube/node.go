package kube

import (
	"context"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Architecture is that of the target's machine as Go names it, and empty where it
// is not permitted to look at nodes.
func (c *Client) Architecture(ctx context.Context, t Target) (string, error) {
	if t.Node == "" {
		return "", nil
	}
	n, err := c.core.Nodes().Get(ctx, t.Node, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return "", nil
	}
	if err != nil {
		err = c.explain(ctx, fmt.Errorf("get node %s: %w", t.Node, err), ToFind)
		if _, ok := errors.AsType[*PermissionError](err); ok {
			return "", nil
		}
		return "", err
	}
	return n.Status.NodeInfo.Architecture, nil
}
