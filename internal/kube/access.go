package kube

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/promdump/promdump/internal/retry"
)

// Access is something that a cluster's rules allow or do not.
type Access int

const (
	ToFind    Access = iota // Prometheis, and look at their pods
	ToExec                  // a command in a container: the ways exec and tar
	ToForward               // a port: the way remote-read, and to watch a restore
	ToDebug                 // a debug container, and a command in it
	ToMount                 // a pod with the volume, and a command in it: the way pvc
	ToRestart               // a pod, by deleting it
)

// rule is a rule of RBAC about pods.
type rule struct {
	resource string
	verbs    []string
}

// grants are the smallest rules for an access. That exec wants create is what
// counts. With get it goes over WebSocket, without it over SPDY, which some proxies
// do not let through.
var grants = map[Access]struct {
	name  string
	rules []rule // the first verb of each is the one that must be
}{
	ToFind:    {"promdump-find", []rule{{"pods", []string{"get", "list"}}}},
	ToExec:    {"promdump-exec", []rule{seeing, execing}},
	ToForward: {"promdump-forward", []rule{seeing, {"pods/portforward", []string{"create", "get"}}}},
	ToDebug:   {"promdump-debug", []rule{seeing, {"pods/ephemeralcontainers", []string{"patch"}}, execing}},
	ToMount:   {"promdump-pvc", []rule{{"pods", []string{"create", "get", "list"}}, {"pods", []string{"delete"}}, execing}},
	ToRestart: {"promdump-restart", []rule{{"pods", []string{"delete", "get", "list"}}}},
}

var (
	seeing  = rule{"pods", []string{"get", "list"}}
	execing = rule{"pods/exec", []string{"create", "get"}}
)

// Role is what grants an access to a user in a namespace, or in all if it is "",
// as YAML for kubectl apply.
func Role(a Access, namespace, user string) string {
	g := grants[a]
	kind, meta := "Role", fmt.Sprintf("{name: %s, namespace: %s}", g.name, namespace)
	if namespace == "" {
		kind, meta = "ClusterRole", fmt.Sprintf("{name: %s}", g.name)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "apiVersion: rbac.authorization.k8s.io/v1\nkind: %s\nmetadata: %s\nrules:\n", kind, meta)
	for _, r := range g.rules {
		fmt.Fprintf(&b, "- {apiGroups: [\"\"], resources: [%s], verbs: [%s]}\n", r.resource, strings.Join(r.verbs, ", "))
	}
	fmt.Fprintf(&b, "---\napiVersion: rbac.authorization.k8s.io/v1\nkind: %sBinding\nmetadata: %s\n", kind, meta)
	fmt.Fprintf(&b, "roleRef: {apiGroup: rbac.authorization.k8s.io, kind: %s, name: %s}\n", kind, g.name)
	fmt.Fprintf(&b, "subjects: [%s]\n", subject(user))
	return b.String()
}

func subject(user string) string {
	if sa, ok := strings.CutPrefix(user, "system:serviceaccount:"); ok {
		if namespace, name, ok := strings.Cut(sa, ":"); ok {
			return fmt.Sprintf("{kind: ServiceAccount, name: %q, namespace: %q}", name, namespace)
		}
	}
	return fmt.Sprintf("{apiGroup: rbac.authorization.k8s.io, kind: User, name: %q}", user)
}

// nobody stands in a Role where the user is not known.
const nobody = "YOUR-NAME"

// PermissionError says that the cluster's rules do not allow something.
type PermissionError struct {
	User      string // empty if it is not known
	Verb      string
	Resource  string // pods, pods/exec, ...
	Namespace string // empty: all
	Access    Access // what it was for
	Reason    string // what the cluster says about it, may be empty

	tip string // when no Role would help
}

func (e *PermissionError) Error() string {
	if e.Verb == "" {
		return "not permitted: " + e.Reason
	}
	who, where := "you", "in namespace "+e.Namespace
	if e.User != "" {
		who = e.User
	}
	if e.Namespace == "" {
		where = "in all namespaces"
	}
	return fmt.Sprintf("not permitted: %s may not %s %s %s", who, e.Verb, e.Resource, where)
}

// ExitCode is that of the command.
func (e *PermissionError) ExitCode() int { return codeNotPermitted }

// Retry implements [retry.Of].
func (e *PermissionError) Retry() retry.Advice { return retry.No }

// Hint holds the Role that grants what is missing, as YAML, if it is a Role that is
// missing.
func (e *PermissionError) Hint() string {
	if e.tip != "" {
		return e.tip
	}
	if e.Access == ToFind && e.Namespace == "" {
		return "-n NAMESPACE looks in one; who administers the cluster grants all with kubectl apply -f - and this:\n" + e.Role(e.Access)
	}
	return "who administers the cluster grants it with kubectl apply -f - and this:\n" + e.Role(e.Access)
}

// Role is what grants an access to whom this was refused, see [Role].
func (e *PermissionError) Role(a Access) string {
	return Role(a, e.Namespace, cmp.Or(e.User, nobody))
}

// May asks the cluster whether a target may be used so. A [PermissionError] says
// no. Where the cluster does not tell, the answer is yes: the attempt will show.
func (c *Client) May(ctx context.Context, t Target, a Access) error {
	name := t.Pod
	if a == ToMount {
		name = "" // it is another pod
	}
	for _, r := range grants[a].rules {
		resource, sub, _ := strings.Cut(r.resource, "/")
		review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{
			ResourceAttributes: &authorizationv1.ResourceAttributes{
				Namespace: t.Namespace, Name: name, Verb: r.verbs[0], Resource: resource, Subresource: sub,
			},
		}}
		answer, err := c.authz.SelfSubjectAccessReviews().Create(ctx, review, metav1.CreateOptions{})
		if err != nil {
			err = c.explain(ctx, fmt.Errorf("ask for permission to %s %s: %w", r.verbs[0], r.resource, err), a)
			if _, ok := errors.AsType[*PermissionError](err); ok {
				return nil // not even to ask
			}
			return err
		}
		if !answer.Status.Allowed {
			return &PermissionError{
				User: c.user(ctx), Verb: r.verbs[0], Resource: r.resource, Namespace: t.Namespace,
				Access: a, Reason: answer.Status.Reason,
			}
		}
	}
	return nil
}

// user is the name that the cluster knows us by, if it tells.
func (c *Client) user(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, aside)
	defer cancel()
	r, err := c.authn.SelfSubjectReviews().Create(ctx, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil {
		return ""
	}
	return r.Status.UserInfo.Username
}

// forbidden reads what an API server says when it refuses.
var forbidden = regexp.MustCompile(`User "([^"]*)" cannot (\S+) resource "([^"]*)" in API group "[^"]*"(?: in the namespace "([^"]*)")?`)

// denied makes a PermissionError of such a message. What RBAC has not refused, an
// admission policy has, and no Role helps.
func denied(message string, a Access) *PermissionError {
	m := forbidden.FindStringSubmatch(message)
	if m == nil {
		return &PermissionError{Access: a, Reason: message, tip: "a policy of the cluster refuses it, not a Role: ask who administers it"}
	}
	e := &PermissionError{User: m[1], Verb: m[2], Resource: m[3], Namespace: m[4], Access: a, Reason: message}
	if strings.HasPrefix(e.Verb, "impersonate") {
		e.tip = "leave out --as, or ask who administers the cluster for the right to impersonate"
	}
	return e
}
