package kube

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	ktest "k8s.io/client-go/testing"
)

// cluster has one pod of every kind in mon, and some elsewhere.
func cluster(t *testing.T) []runtime.Object {
	const web = `containers: [{name: web, image: nginx}]`
	return []runtime.Object{
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "mon"}},
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "empty"}},
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}},
		podOf(t, "prometheus-k8s-0", operator, ownedBy("StatefulSet", "prometheus-k8s"), labelled("app.kubernetes.io/name", "prometheus", "operator.prometheus.io/name", "k8s", "app.kubernetes.io/instance", "k8s")),
		podOf(t, "prometheus-k8s-1", operator, ownedBy("StatefulSet", "prometheus-k8s"), labelled("app.kubernetes.io/name", "prometheus", "operator.prometheus.io/name", "k8s", "app.kubernetes.io/instance", "k8s")),
		podOf(t, "server-6d4f-x1", chart, ownedBy("ReplicaSet", "server-6d4f"), labelled("app.kubernetes.io/name", "prometheus", "pod-template-hash", "6d4f", "app.kubernetes.io/instance", "c")),
		podOf(t, "server-6d4f-x0", chart, ownedBy("ReplicaSet", "server-6d4f"), labelled("pod-template-hash", "6d4f"), func(p *corev1.Pod) { p.Status.Phase, p.Status.Reason = corev1.PodFailed, "Evicted" }),
		podOf(t, "web-0", web, ownedBy("DaemonSet", "web"), labelled("app", "web", "app.kubernetes.io/instance", "c")),
		podOf(t, "shop/prometheus-0", plain, ownedBy("StatefulSet", "prometheus"), labelled("app.kubernetes.io/name", "prometheus")),
		podOf(t, "shop/web-0", web, labelled("app", "web")),
		podOf(t, "shop/web-1", web, labelled("app", "web")),
	}
}

func TestFind(t *testing.T) {
	for _, c := range []struct {
		namespace string
		q         Query
		want      string // NAMESPACE/POD CONTAINER, or type and message of the error
		hint      string
		code      int
	}{
		{"mon", Query{Pod: "prometheus-k8s-1"}, "mon/prometheus-k8s-1 prometheus", "", 0},
		{"mon", Query{Pod: "pod/web-0"}, "mon/web-0 web", "", 0},
		{"mon", Query{Pod: "pods/web-0"}, "mon/web-0 web", "", 0},
		{"mon", Query{Pod: "deployment/server"}, "mon/server-6d4f-x1 prometheus-server", "", 0},
		{"mon", Query{Pod: "deploy.apps/server"}, "mon/server-6d4f-x1 prometheus-server", "", 0},
		{"mon", Query{Pod: "rs/server-6d4f"}, "mon/server-6d4f-x1 prometheus-server", "", 0},
		{"mon", Query{Pod: "ds/web"}, "mon/web-0 web", "", 0},
		{"shop", Query{}, "shop/prometheus-0 prometheus", "", 0},
		{"shop", Query{Pod: "statefulset/prometheus"}, "shop/prometheus-0 prometheus", "", 0},
		{"mon", Query{AllNamespaces: true, Pod: "prometheus-0"}, "shop/prometheus-0 prometheus", "", 0},
		{"mon", Query{Selector: "app.kubernetes.io/instance=c"}, "mon/server-6d4f-x1 prometheus-server", "", 0}, // what looks like one is taken
		{"mon", Query{Selector: "app=web"}, "mon/web-0 web", "", 0},                                             // nothing does
		{"mon", Query{Pod: "prometheus-k8s-0", Container: "thanos-sidecar"}, "mon/prometheus-k8s-0 thanos-sidecar", "", 0},

		{"mon", Query{Pod: "prometheus-k8s-0", Container: "thanos"}, `*kube.ContainerError pod mon/prometheus-k8s-0 has no container "thanos"`, "choose with -c: prometheus, config-reloader, thanos-sidecar", 10},
		{"mon", Query{Pod: "sts/prometheus-k8s"}, "*kube.SeveralError 2 pods are meant, choose one", "for example: -n mon -p prometheus-k8s-0", 2},
		{"mon", Query{Pod: "prometheus/k8s"}, "*kube.SeveralError 2 pods are meant, choose one", "for example: -n mon -p prometheus-k8s-0", 2},
		{"mon", Query{}, "*kube.SeveralError 3 pods are meant, choose one", "for example: -n mon -p prometheus-k8s-0", 2},
		{"mon", Query{AllNamespaces: true}, "*kube.SeveralError 4 pods are meant, choose one", "for example: -n mon -p prometheus-k8s-0", 2},
		{"shop", Query{Selector: "app=web"}, "*kube.SeveralError 2 pods are meant, choose one", "for example: -n shop -p web-0", 2},

		{"mon", Query{Pod: "prometheus-k8s"}, "*kube.NotFoundError no pod prometheus-k8s found in namespace mon", "did you mean prometheus-k8s-0 or prometheus-k8s-1?", 10},
		{"mon", Query{Pod: "prometheus-0"}, "*kube.NotFoundError no pod prometheus-0 found in namespace mon", "did you mean prometheus-k8s-0?; there is shop/prometheus-0: -n shop", 10},
		{"mon", Query{Pod: "zzz"}, "*kube.NotFoundError no pod zzz found in namespace mon", "what is there is shown by: kubectl get pods -n mon", 10},
		{"mon", Query{Pod: "sts/prometheus-k9s"}, "*kube.NotFoundError no pod of statefulset prometheus-k9s found in namespace mon", "did you mean statefulset/prometheus-k8s?", 10},
		{"mon", Query{Pod: "prometheus/k9s"}, "*kube.NotFoundError no pod of prometheus k9s found in namespace mon", "did you mean prometheus/k8s?", 10},
		{"empty", Query{}, "*kube.NotFoundError no Prometheus found in namespace empty", "in other namespaces there are: mon/prometheus-k8s-0, mon/prometheus-k8s-1, mon/server-6d4f-x1, shop/prometheus-0 (choose with -n)", 10},
		{"empty", Query{Selector: "app=web"}, "*kube.NotFoundError no pod with labels app=web found in namespace empty", "-n takes another namespace, -A looks in all; -p POD names a pod that does not look like a Prometheus", 10},
		{"empty", Query{Pod: "web-1"}, "*kube.NotFoundError no pod web-1 found in namespace empty", "there is shop/web-1: -n shop", 10},
		{"shopp", Query{Pod: "web-1"}, "*kube.NotFoundError no namespace shopp found", "did you mean shop?", 10},
		{"shopp", Query{}, "*kube.NotFoundError no namespace shopp found", "did you mean shop?", 10},
		{"mon", Query{AllNamespaces: true, Pod: "zzz"}, "*kube.NotFoundError no pod zzz found", "name a pod with -n NAMESPACE -p POD", 10},

		{"mon", Query{Pod: "deploy/web"}, "*kube.NotFoundError no pod of deployment web found in namespace mon", "what is there is shown by: kubectl get pods -n mon", 10},

		{"mon", Query{Pod: "svc/x"}, `*kube.QueryError "svc/x" names no pod`, "a name, or TYPE/NAME with one of the types pod, statefulset, deployment, daemonset, replicaset, prometheus", 2},
		{"mon", Query{Pod: "sts/"}, `*kube.QueryError "sts/" names no pod`, "a name, or TYPE/NAME with one of the types pod, statefulset, deployment, daemonset, replicaset, prometheus", 2},
		{"mon", Query{Pod: "server-6d4f-x0"}, "*kube.NotRunningError container prometheus-server of pod mon/server-6d4f-x0 is not running: Evicted", "why: kubectl describe pod -n mon server-6d4f-x0", 10},
	} {
		client, _ := fakeClient(cluster(t)...)
		client.Namespace = c.namespace
		got, err := client.Find(t.Context(), c.q)
		text, hint, code := got.String()+" "+got.Container, "", 0
		if err != nil {
			text, hint, code = told(err)
			text = fmt.Sprintf("%T %s", err, text)
		}
		if text != c.want || hint != c.hint || code != c.code {
			t.Errorf("%s %+v:\n  %s\n  %s\n  %d\nwant\n  %s\n  %s\n  %d", c.namespace, c.q, text, hint, code, c.want, c.hint, c.code)
		}
	}
}

func TestFindBadSelector(t *testing.T) {
	client, _ := fakeClient(cluster(t)...)
	if _, err := client.Find(t.Context(), Query{Selector: "a in"}); err == nil {
		t.Error("taken")
	} else if _, ok := errors.AsType[*QueryError](err); !ok {
		t.Errorf("%T %v", err, err)
	}
}

func TestList(t *testing.T) {
	for _, c := range []struct {
		q    Query
		want []string
	}{
		{Query{}, []string{"mon/prometheus-k8s-0 prometheus", "mon/prometheus-k8s-1 prometheus", "mon/server-6d4f-x0 prometheus-server", "mon/server-6d4f-x1 prometheus-server"}},
		{Query{AllNamespaces: true, Selector: "app.kubernetes.io/name=prometheus"}, []string{"mon/prometheus-k8s-0 prometheus", "mon/prometheus-k8s-1 prometheus", "mon/server-6d4f-x1 prometheus-server", "shop/prometheus-0 prometheus"}},
		{Query{Container: "thanos-sidecar"}, []string{"mon/prometheus-k8s-0 thanos-sidecar", "mon/prometheus-k8s-1 thanos-sidecar"}},
		{Query{Pod: "web-0"}, []string{"mon/web-0 web"}},
	} {
		client, _ := fakeClient(cluster(t)...)
		targets, err := client.List(t.Context(), c.q)
		var got []string
		for _, x := range targets {
			got = append(got, x.String()+" "+x.Container)
		}
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%+v: %q, %v", c.q, got, err)
		}
	}
	client, _ := fakeClient(cluster(t)...)
	targets, err := client.List(t.Context(), Query{})
	if err != nil {
		t.Fatal(err)
	}
	var of []string
	for _, x := range targets {
		of = append(of, fmt.Sprint(x.Of))
		for _, name := range x.Of { // as Find takes it
			switch found, err := client.List(t.Context(), Query{Pod: name}); {
			case err != nil:
				t.Errorf("%s: %v", name, err)
			case !slices.ContainsFunc(found, func(f Target) bool { return f.Pod == x.Pod }):
				t.Errorf("%s does not name %s", name, x)
			}
		}
	}
	if want := []string{"[statefulset/prometheus-k8s prometheus/k8s]", "[statefulset/prometheus-k8s prometheus/k8s]", "[deployment/server replicaset/server-6d4f]", "[deployment/server replicaset/server-6d4f]"}; !slices.Equal(of, want) {
		t.Errorf("they belong to %q", of)
	}
	client, _ = fakeClient()
	if got, err := client.List(t.Context(), Query{}); len(got) != 0 {
		t.Error(got)
	} else if _, ok := errors.AsType[*NotFoundError](err); !ok {
		t.Errorf("%v", err)
	}
}

// forbid makes the cluster refuse a verb on a resource.
func forbid(f interface {
	PrependReactor(verb, resource string, reaction ktest.ReactionFunc)
}, verb, resource string) {
	f.PrependReactor(verb, resource, func(a ktest.Action) (bool, runtime.Object, error) {
		where := fmt.Sprintf(` in the namespace %q`, a.GetNamespace())
		if a.GetNamespace() == "" {
			where = " at the cluster scope"
		}
		return true, nil, apierrors.NewForbidden(schema.GroupResource{Resource: resource}, "", fmt.Errorf(`User "bob" cannot %s resource %q in API group ""%s`, verb, resource, where))
	})
}

func TestFindForbidden(t *testing.T) {
	for _, c := range []struct {
		verb    string
		q       Query
		message string
		hint    []string
	}{
		{"get", Query{Pod: "x"}, "not permitted: bob may not get pods in namespace mon", []string{"kind: Role\n", "namespace: mon", "[get, list]", `kind: User, name: "bob"`}},
		{"list", Query{}, "not permitted: bob may not list pods in namespace mon", []string{"kind: Role\n"}},
		{"list", Query{AllNamespaces: true}, "not permitted: bob may not list pods in all namespaces", []string{"-n NAMESPACE", "kind: ClusterRole\n", "kind: ClusterRoleBinding\n"}},
	} {
		client, f := fakeClient(cluster(t)...)
		forbid(f, c.verb, "pods")
		_, err := client.Find(t.Context(), c.q)
		message, hint, code := told(err)
		if message != c.message || code != 11 {
			t.Errorf("%+v: %s (%d)", c.q, message, code)
		}
		for _, part := range c.hint {
			if !strings.Contains(hint, part) {
				t.Errorf("%+v: hint without %q:\n%s", c.q, part, hint)
			}
		}
	}
	// Who may only get pods is told that one is not there all the same.
	client, f := fakeClient(cluster(t)...)
	forbid(f, "list", "*")
	forbid(f, "get", "namespaces")
	_, err := client.Find(t.Context(), Query{Pod: "prometheus-k8s"})
	if message, hint, _ := told(err); message != "no pod prometheus-k8s found in namespace mon" || hint != "what is there is shown by: kubectl get pods -n mon" {
		t.Errorf("%s\n%s", message, hint)
	}
}

func TestFindCanceled(t *testing.T) {
	client, f := fakeClient()
	ctx, cancel := context.WithCancel(t.Context())
	f.PrependReactor("list", "pods", func(ktest.Action) (bool, runtime.Object, error) {
		cancel()
		return true, nil, errors.New("anything")
	})
	if _, err := client.Find(ctx, Query{}); err != context.Canceled {
		t.Error(err)
	}
}

func TestNamesOf(t *testing.T) {
	p := podOf(t, "p", plain, ownedBy("StatefulSet", "web-1"), labelled("pod-template-hash", "1"))
	if got := namesOf(p, "deployment"); got != nil {
		t.Errorf("deployment %q", got)
	}
	if got := namesOf(p, "statefulset"); !slices.Equal(got, []string{"web-1"}) {
		t.Errorf("statefulset %q", got)
	}
}
