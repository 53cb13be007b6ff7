package kube

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	ktest "k8s.io/client-go/testing"
)

// controller makes a new pod of each that is deleted, as its like does: not ready
// at first.
func controller(t *testing.T, kind string, ready bool) (c *Client, target Target, deleted *bool) {
	t.Helper()
	old := podOf(t, "p", chart, ownedBy(kind, "prom"))
	sibling := podOf(t, "p2", chart, ownedBy(kind, "prom"))
	other := podOf(t, "o", chart, ownedBy(kind, "other"))
	c, f := fakeClient(old, sibling, other)
	looks := 0
	deleted = new(bool)
	f.PrependReactor("delete", "pods", func(a ktest.Action) (bool, runtime.Object, error) {
		o := a.(ktest.DeleteActionImpl).DeleteOptions
		if o.Preconditions == nil || *o.Preconditions.UID != old.UID {
			t.Errorf("deletes whatever has the name: %+v", o)
		}
		*deleted = true
		return false, nil, nil
	})
	f.PrependReactor("*", "pods", func(a ktest.Action) (bool, runtime.Object, error) {
		if a.GetVerb() != "get" && a.GetVerb() != "list" || !*deleted {
			return false, nil, nil
		}
		looks++
		p := old.DeepCopy()
		p.UID = "uid of the next"
		if kind == "ReplicaSet" {
			p.Name = "p3"
		}
		p.Status.ContainerStatuses[1].Ready = ready && looks > 3
		switch looks {
		case 1:
			return true, nil, errors.New("connection refused")
		case 2:
			// Not there yet, but a pod of someone else's is.
			o := podOf(t, "o2", chart, ownedBy(kind, "other"))
			if err := f.Tracker().Add(o); err != nil {
				t.Error(err)
			}
			return false, nil, nil
		case 3:
			if err := f.Tracker().Add(p); err != nil {
				t.Error(err)
			}
		default:
			if err := f.Tracker().Update(corev1.SchemeGroupVersion.WithResource("pods"), p, "mon"); err != nil {
				t.Error(err)
			}
		}
		return false, nil, nil
	})
	target, err := newTarget(old, Query{})
	if err != nil {
		t.Fatal(err)
	}
	return c, target, deleted
}

func TestDeleteAndWait(t *testing.T) {
	for kind, name := range map[string]string{"StatefulSet": "p", "ReplicaSet": "p3"} {
		c, target, _ := controller(t, kind, true)
		target.DataDir, target.DataDirFrom = "/mine", "given"
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if got := RestartCommand(target); got != "kubectl delete pod -n mon p" {
			t.Error(got)
		}
		next, err := c.DeleteAndWait(ctx, target)
		if err != nil || next.UID != "uid of the next" || next.Pod != name || !next.Ready || next.DataDir != "/mine" || next.DataDirFrom != "given" {
			t.Errorf("%s: %+v, %v", kind, next, err)
		}
	}
}

func TestDeleteAndWaitInVain(t *testing.T) {
	c, target, _ := controller(t, "StatefulSet", false)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err := c.DeleteAndWait(ctx, target)
	if _, ok := errors.AsType[*RestartError](err); !ok || !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "pod mon/p is not ready: Running") {
		t.Errorf("%T %v", err, err)
	}
}

func TestDeleteRefused(t *testing.T) {
	for _, c := range []struct {
		name   string
		target func(*Target)
		want   string
	}{
		{"no controller", func(t *Target) { t.owner = nil }, "restart pod mon/p: nothing would bring it back, for it belongs to no controller"},
		{"static", func(t *Target) { t.owner = &metav1.OwnerReference{Kind: "Node"} }, "restart pod mon/p: it is a static pod, which is not restarted by deleting it"},
		{"emptyDir", func(t *Target) { t.Lasting, t.Volume = false, "emptyDir" }, "restart pod mon/p: its data dir would be deleted with it (emptyDir)"},
	} {
		client, target, deleted := controller(t, "StatefulSet", true)
		c.target(&target)
		_, err := client.DeleteAndWait(t.Context(), target)
		if err == nil || err.Error() != c.want || *deleted {
			t.Errorf("%s: %v, deleted: %v", c.name, err, *deleted)
			continue
		}
		if err := client.MayRestart(t.Context(), target); err == nil || err.Error() != c.want {
			t.Errorf("%s: before anything is done: %v", c.name, err)
		}
		if got := RestartCommand(target); got != "kubectl exec -n mon p -c prometheus-server -- kill 1" {
			t.Errorf("%s: %s", c.name, got)
		}
		if _, hint, _ := told(err); !strings.Contains(hint, "kubectl exec -n mon p -c prometheus-server -- kill 1") {
			t.Errorf("%s: %s", c.name, hint)
		}
	}
}

func TestDeleteForbiddenOrGone(t *testing.T) {
	client, f := fakeClient(podOf(t, "p", chart))
	target := Target{Namespace: "mon", Pod: "p", UID: "uid of p", Lasting: true, owner: &metav1.OwnerReference{Kind: "StatefulSet"}}
	forbid(f, "delete", "pods")
	_, err := client.DeleteAndWait(t.Context(), target)
	if message, hint, code := told(err); code != 11 || message != "not permitted: bob may not delete pods in namespace mon" || !strings.Contains(hint, "[delete, get, list]") {
		t.Errorf("%s\n%s\n%d", message, hint, code)
	}
	client, _ = fakeClient()
	target.UID = string(types.UID("x"))
	if _, err := client.DeleteAndWait(t.Context(), target); err == nil || !strings.Contains(err.Error(), "deleted by someone else") {
		t.Errorf("%v", err)
	}
}
