package kube

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/pager"

	"github.com/promdump/promdump/internal/suggest"
)

// Query says which pod is meant. The zero Query means any Prometheus in the
// namespace.
type Query struct {
	Pod           string // a pod's name or TYPE/NAME: see [Types]
	Selector      string // of labels
	AllNamespaces bool
	Container     string // instead of what the pod's spec tells
	DataDir       string // instead of what the pod's spec tells
}

// Types are what a pod can be named by. A prometheus is the operator's resource.
func Types() []string {
	return []string{"pod", "statefulset", "deployment", "daemonset", "replicaset", "prometheus"}
}

var kinds = map[string]string{
	"pod": "pod", "pods": "pod", "po": "pod",
	"statefulset": "statefulset", "statefulsets": "statefulset", "sts": "statefulset",
	"deployment": "deployment", "deployments": "deployment", "deploy": "deployment",
	"daemonset": "daemonset", "daemonsets": "daemonset", "ds": "daemonset",
	"replicaset": "replicaset", "replicasets": "replicaset", "rs": "replicaset",
	"prometheus": "prometheus", "prometheuses": "prometheus", "prom": "prometheus",
}

// want is a Query taken apart.
type want struct {
	Query
	kind, name string // kind is empty when anything will do
	namespace  string // empty: all
	selector   labels.Selector
}

func (c *Client) parse(q Query) (want, error) {
	w := want{Query: q, namespace: c.Namespace, selector: labels.Everything()}
	if q.AllNamespaces {
		w.namespace = metav1.NamespaceAll
	}
	if q.Pod != "" {
		kind, name, typed := strings.Cut(q.Pod, "/")
		if !typed {
			kind, name = "pod", q.Pod
		}
		kind, _, _ = strings.Cut(strings.ToLower(kind), ".") // statefulset.apps
		w.kind, w.name = kinds[kind], name
		if w.kind == "" || name == "" {
			return w, &QueryError{Reason: fmt.Sprintf("%q names no pod", q.Pod), tip: "a name, or TYPE/NAME with one of the types " + strings.Join(Types(), ", ")}
		}
	}
	if q.Selector != "" {
		s, err := labels.Parse(q.Selector)
		if err != nil {
			return w, &QueryError{Reason: fmt.Sprintf("labels %q: %v", q.Selector, err), tip: "for example: -l app.kubernetes.io/name=prometheus"}
		}
		w.selector = s
	}
	return w, nil
}

// what names what was asked for.
func (w want) what() string {
	switch {
	case w.kind == "pod":
		return "pod " + w.name
	case w.kind != "":
		return "pod of " + w.kind + " " + w.name
	case w.Selector != "":
		return "pod with labels " + w.Selector
	}
	return "Prometheus"
}

// matches tells whether a pod is one that was named.
func (w want) matches(p *corev1.Pod) bool {
	if !w.selector.Matches(labels.Set(p.Labels)) {
		return false
	}
	return w.kind == "" || slices.Contains(namesOf(p, w.kind), w.name)
}

// namesOf are the names of the resources of a kind that a pod belongs to. The pod
// itself tells them: reading a Deployment would need a permission more.
func namesOf(p *corev1.Pod, kind string) []string {
	var names []string
	switch kind {
	case "pod":
		names = append(names, p.Name)
	case "prometheus":
		for _, label := range []string{"operator.prometheus.io/name", "prometheus"} {
			if n := p.Labels[label]; n != "" {
				names = append(names, n)
			}
		}
	case "deployment":
		if o := metav1.GetControllerOf(p); o != nil && o.Kind == "ReplicaSet" {
			if n, ok := strings.CutSuffix(o.Name, "-"+p.Labels["pod-template-hash"]); ok {
				names = append(names, n)
			}
		}
	default:
		if o := metav1.GetControllerOf(p); o != nil && strings.ToLower(o.Kind) == kind {
			names = append(names, o.Name)
		}
	}
	return names
}

// of is all that a pod belongs to, as a Query takes it.
func of(p *corev1.Pod) []string {
	var all []string
	for _, kind := range Types()[1:] { // the first is the pod itself
		for _, name := range slices.Compact(namesOf(p, kind)) {
			all = append(all, kind+"/"+name)
		}
	}
	return all
}

// pods gives the pods that a query names, whatever they look like, and all that
// were seen on the way.
func (c *Client) pods(ctx context.Context, w want) (found, seen []*corev1.Pod, err error) {
	if w.kind == "pod" && !w.AllNamespaces {
		// Get is a smaller permission than list.
		p, err := c.core.Pods(w.namespace).Get(ctx, w.name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
			// What is there instead is nice to know, no more.
			seen, _ = c.listed(ctx, w.namespace, metav1.ListOptions{})
			return nil, seen, nil
		case err != nil:
			return nil, nil, c.explain(ctx, fmt.Errorf("get pod %s/%s: %w", w.namespace, w.name, err), ToFind)
		case !w.selector.Matches(labels.Set(p.Labels)):
			return nil, nil, nil
		}
		return []*corev1.Pod{p}, nil, nil
	}
	seen, err = c.listed(ctx, w.namespace, metav1.ListOptions{LabelSelector: w.Selector})
	if err != nil {
		return nil, nil, c.explain(ctx, err, ToFind)
	}
	for _, p := range seen {
		if w.matches(p) {
			found = append(found, p)
		}
	}
	return found, seen, nil
}

// listed lists pods, a page at a time.
func (c *Client) listed(ctx context.Context, namespace string, o metav1.ListOptions) ([]*corev1.Pod, error) {
	var pods []*corev1.Pod
	page := pager.New(func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
		return c.core.Pods(namespace).List(ctx, o)
	})
	err := page.EachListItem(ctx, o, func(o runtime.Object) error {
		if p, ok := o.(*corev1.Pod); ok {
			pods = append(pods, p)
		}
		return nil
	})
	if err != nil && namespace == "" {
		return nil, fmt.Errorf("list pods of all namespaces: %w", err)
	} else if err != nil {
		return nil, fmt.Errorf("list pods of namespace %s: %w", namespace, err)
	}
	return pods, nil
}

// aside bounds what is asked just to say more in an error.
const aside = 5 * time.Second

// notFound says what is there instead of what was asked for.
func (c *Client) notFound(ctx context.Context, w want, seen []*corev1.Pod) error {
	e := &NotFoundError{What: w.what(), Namespace: w.namespace, Usual: w.kind == ""}
	ctx, cancel := context.WithTimeout(ctx, aside)
	defer cancel()
	if w.namespace != "" && len(seen) == 0 {
		if err := c.noNamespace(ctx, w.namespace); err != nil {
			return err
		}
	}
	if w.name != "" {
		var names []string
		for _, p := range seen {
			names = append(names, namesOf(p, w.kind)...)
		}
		slices.Sort(names)
		e.Near = suggest.Nearest(w.name, slices.Compact(names))
		if w.kind != "pod" {
			for i, n := range e.Near {
				e.Near[i] = w.kind + "/" + n
			}
		}
	}
	if w.namespace != "" {
		e.Elsewhere = c.elsewhere(ctx, w)
	}
	return e
}

// noNamespace is an error if the namespace is known not to exist.
func (c *Client) noNamespace(ctx context.Context, name string) error {
	if _, err := c.core.Namespaces().Get(ctx, name, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		return nil
	}
	e := &NotFoundError{What: "namespace " + name}
	if l, err := c.core.Namespaces().List(ctx, metav1.ListOptions{}); err == nil {
		var names []string
		for _, n := range l.Items {
			names = append(names, n.Name)
		}
		e.Near = suggest.Nearest(name, names)
	}
	return e
}

// elsewhere finds in other namespaces, where that is allowed, what would have been
// found. It asks for little: a cluster can have very many pods.
func (c *Client) elsewhere(ctx context.Context, w want) []string {
	o := metav1.ListOptions{LabelSelector: w.Selector}
	switch {
	case w.kind == "pod":
		o.FieldSelector = "metadata.name=" + w.name
	case w.Selector == "":
		o.LabelSelector = "app.kubernetes.io/name=prometheus"
	}
	pods, err := c.listed(ctx, metav1.NamespaceAll, o)
	if err != nil {
		return nil
	}
	var names []string
	for _, p := range pods {
		if w.matches(p) && (w.kind != "" || looksLike(p)) {
			names = append(names, p.Namespace+"/"+p.Name)
		}
	}
	slices.Sort(names)
	return names[:min(len(names), 5)]
}
