package kube

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	ktest "k8s.io/client-go/testing"
	"sigs.k8s.io/yaml"
)

const (
	restrictedOperator = `
securityContext: {runAsNonRoot: true, runAsUser: 1000, runAsGroup: 2000, fsGroup: 2000}
containers:
- name: prometheus
  image: quay.io/prometheus/prometheus:v3.14.0-distroless
  args: [--storage.tsdb.path=/prometheus]
  env: [{name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]
  volumeMounts: [{name: db, mountPath: /prometheus, subPath: prometheus-db}]
volumes: [{name: db, persistentVolumeClaim: {claimName: db-prom-0}}]
`
	distroless = `containers: [{name: prometheus, image: "quay.io/prometheus/prometheus:v3.14.0-distroless", args: [--storage.tsdb.path=/prometheus]}]`
	rootful    = `
containers:
- name: prometheus
  image: prom/prometheus
  args: [--storage.tsdb.path=/prometheus]
  securityContext: {runAsUser: 0, capabilities: {drop: [NET_RAW]}}
`
)

func spec(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestDebugSpec(t *testing.T) {
	const drop = `"capabilities":{"drop":["ALL"]}`
	const tail = `"allowPrivilegeEscalation":false,"seccompProfile":{"type":"RuntimeDefault"}`
	for _, c := range []struct {
		name, pod string
		change    func(*corev1.Pod)
		o         HelperOptions
		security  string
		mounts    string
		target    string
		dirs      string
	}{
		{
			name: "a subPath is mounted with all of its volume, to be read", pod: restrictedOperator,
			security: `{` + drop + `,"runAsUser":1000,"runAsGroup":2000,"runAsNonRoot":true,` + tail + `}`,
			mounts:   `[{"name":"db","readOnly":true,"mountPath":"/promdump"}]`, dirs: "[/promdump/prometheus-db]",
		},
		{
			name: "restore writes", pod: restrictedOperator, o: HelperOptions{Write: true},
			security: `{` + drop + `,"runAsUser":1000,"runAsGroup":2000,"runAsNonRoot":true,` + tail + `}`,
			mounts:   `[{"name":"db","mountPath":"/promdump"}]`, dirs: "[/promdump/prometheus-db]",
		},
		{
			name: "an expanded subPath", pod: strings.Replace(restrictedOperator, "subPath: prometheus-db", `subPathExpr: "$(POD)/db"`, 1),
			security: `{` + drop + `,"runAsUser":1000,"runAsGroup":2000,"runAsNonRoot":true,` + tail + `}`,
			mounts:   `[{"name":"db","readOnly":true,"mountPath":"/promdump"}]`, dirs: "[/promdump/p/db]",
		},
		{
			name: "no volume: the server's own filesystem, as its image's user", pod: distroless,
			security: `{` + drop + `,"runAsUser":65532,"runAsNonRoot":true,` + tail + `}`,
			mounts:   "null", target: "prometheus", dirs: "[/proc/1/root/prometheus]",
		},
		{
			name: "the user that is seen", pod: distroless, change: func(p *corev1.Pod) {
				p.Status.ContainerStatuses[0].User = &corev1.ContainerUser{Linux: &corev1.LinuxContainerUser{UID: 7, GID: 8}}
			},
			security: `{` + drop + `,"runAsUser":7,"runAsGroup":8,"runAsNonRoot":true,` + tail + `}`,
			mounts:   "null", target: "prometheus", dirs: "[/proc/1/root/prometheus]",
		},
		{
			name: "the user that is asked for", pod: distroless, o: HelperOptions{User: new(int64(5))},
			security: `{` + drop + `,"runAsUser":5,"runAsNonRoot":true,` + tail + `}`,
			mounts:   "null", target: "prometheus", dirs: "[/proc/1/root/prometheus]",
		},
		{
			// With fewer capabilities than the server it could not look into it.
			name: "root", pod: rootful,
			security: `{"capabilities":{"drop":["NET_RAW"]},"runAsUser":0,` + tail + `}`,
			mounts:   "null", target: "prometheus", dirs: "[/proc/1/root/prometheus]",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			var change []func(*corev1.Pod)
			if c.change != nil {
				change = append(change, c.change)
			}
			p := podOf(t, "p", c.pod, change...)
			target, err := newTarget(p, Query{})
			if err != nil {
				t.Fatal(err)
			}
			e, dirs, _, err := debugSpec(p, target, c.o)
			if err != nil {
				t.Fatal(err)
			}
			if got := spec(t, e.SecurityContext); got != c.security {
				t.Errorf("security %s\nnot      %s", got, c.security)
			}
			if got := spec(t, e.VolumeMounts); got != c.mounts {
				t.Errorf("mounts %s", got)
			}
			if e.TargetContainerName != c.target || fmt.Sprint(dirs) != c.dirs || e.Image != DefaultImage || e.ImagePullPolicy != corev1.PullIfNotPresent {
				t.Errorf("%+v, %s", e, dirs)
			}
		})
	}
}

func TestDebugRefused(t *testing.T) {
	yes := true
	crashed := inState(corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}}, nil)
	for _, c := range []struct {
		name, pod string
		change    func(*corev1.Pod)
		want      string
	}{
		{"over", restrictedOperator, func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }, "the pod has ended"},
		{"another PID 1", distroless, func(p *corev1.Pod) { p.Spec.ShareProcessNamespace = &yes }, "its filesystem cannot be told"},
		{"the host's PID 1", distroless, func(p *corev1.Pod) { p.Spec.HostPID = true }, "its filesystem cannot be told"},
		{"gone with its container", distroless, crashed, "that went with the container"},
	} {
		p := podOf(t, "p", c.pod, c.change)
		target, err := newTarget(p, Query{})
		if err != nil {
			t.Fatal(err)
		}
		_, _, _, err = debugSpec(p, target, HelperOptions{})
		if message, hint, code := told(err); !strings.Contains(message, c.want) || code != 12 || hint == "" {
			t.Errorf("%s: %s, %s, %d", c.name, message, hint, code)
		}
	}
	// On a volume a server that is down is as good as one that runs.
	p := podOf(t, "p", restrictedOperator, crashed)
	target, _ := newTarget(p, Query{})
	if _, _, _, err := debugSpec(p, target, HelperOptions{}); err != nil {
		t.Error(err)
	}
}

// patched makes a cluster that takes ephemeral containers and gives them a state.
func patched(t *testing.T, p *corev1.Pod, state corev1.ContainerState, refusal error) (*Client, *[]corev1.EphemeralContainer) {
	t.Helper()
	c, f := fakeClient(p)
	var added []corev1.EphemeralContainer
	f.PrependReactor("patch", "pods", func(a ktest.Action) (bool, runtime.Object, error) {
		if refusal != nil {
			return true, nil, refusal
		}
		patch := a.(ktest.PatchAction)
		if patch.GetSubresource() != "ephemeralcontainers" {
			t.Errorf("patches %q", patch.GetSubresource())
		}
		var body struct{ Spec corev1.PodSpec }
		if err := yaml.UnmarshalStrict(patch.GetPatch(), &body); err != nil {
			t.Error(err)
		}
		added = append(added, body.Spec.EphemeralContainers...)
		next := p.DeepCopy()
		next.Spec.EphemeralContainers = added
		for _, e := range added {
			next.Status.EphemeralContainerStatuses = append(next.Status.EphemeralContainerStatuses, corev1.ContainerStatus{Name: e.Name, State: state})
		}
		return true, next, f.Tracker().Update(corev1.SchemeGroupVersion.WithResource("pods"), next, p.Namespace)
	})
	return c, &added
}

func TestDebugDoesNotStart(t *testing.T) {
	waits := func(reason, message string) corev1.ContainerState {
		return corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}
	}
	forbidden := func(text string) error {
		return &apierrors.StatusError{ErrStatus: metav1.Status{Status: metav1.StatusFailure, Code: 403, Reason: metav1.StatusReasonForbidden, Message: text}}
	}
	for _, c := range []struct {
		name    string
		state   corev1.ContainerState
		refusal error
		code    int
		message string
		hint    string
	}{
		{"no such image", waits("ImagePullBackOff", "Back-off pulling image \"x\""), nil, 12, "ImagePullBackOff, Back-off pulling", "--image"},
		{"no shell", corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Reason: "StartError", ExitCode: 128, Message: "exec: \"sh\": not found"}}, nil, 12, "StartError, exit code 128", "must have sh"},
		{"root only", waits("CreateContainerConfigError", "container has runAsNonRoot and image will run as root"), nil, 12, "runAsNonRoot", "--run-as-user"},
		{"too late", waits("ContainerCreating", ""), nil, 12, "it does not run after", "describe pod"},
		{"no right", waits("", ""), forbidden(`pods "p" is forbidden: User "bob" cannot patch resource "pods/ephemeralcontainers" in API group "" in the namespace "mon"`), 11, "bob may not patch pods/ephemeralcontainers", "kind: Role"},
		{"Pod Security", waits("", ""), forbidden(`pods "p" is forbidden: violates PodSecurity "restricted:latest": runAsUser=0`), 11, "violates PodSecurity", "a policy of the cluster refuses it"},
	} {
		p := podOf(t, "p", restrictedOperator)
		client, _ := patched(t, p, c.state, c.refusal)
		client.times.start = 100 * time.Millisecond
		target, _ := newTarget(p, Query{})
		var told1 []string
		_, err := client.Debug(t.Context(), target, HelperOptions{Tell: func(s string) { told1 = append(told1, s) }})
		if message, hint, code := told(err); code != c.code || !strings.Contains(message, c.message) || !strings.Contains(hint, c.hint) {
			t.Errorf("%s: %s\n%s\n%d", c.name, message, hint, code)
		}
		if len(told1) != 1 || !strings.Contains(told1[0], "stays in the pod's spec until the pod is deleted") {
			t.Errorf("%s: it says %q before it starts", c.name, told1)
		}
	}
}

// One of ours that runs is taken again, if it is the same in what matters.
func TestRunningLike(t *testing.T) {
	p := podOf(t, "p", restrictedOperator)
	target, _ := newTarget(p, Query{})
	old, _, _, err := debugSpec(p, target, HelperOptions{})
	if err != nil {
		t.Fatal(err)
	}
	p.Spec.EphemeralContainers = []corev1.EphemeralContainer{*old}
	p.Status.EphemeralContainerStatuses = []corev1.ContainerStatus{{Name: old.Name, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}
	like := func(o HelperOptions) string {
		next, _, _, err := debugSpec(p, target, o)
		if err != nil {
			t.Fatal(err)
		}
		return runningLike(p, next)
	}
	if got := like(HelperOptions{}); got != old.Name {
		t.Errorf("%q", got)
	}
	for _, o := range []HelperOptions{{Write: true}, {Image: "other"}, {User: new(int64(3))}} {
		if got := like(o); got != "" {
			t.Errorf("%+v: %q", o, got)
		}
	}
	p.Status.EphemeralContainerStatuses[0].State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{}}
	if got := like(HelperOptions{}); got != "" {
		t.Errorf("one that has ended: %q", got)
	}
}

func TestMountSpec(t *testing.T) {
	p := podOf(t, "p", restrictedOperator, func(p *corev1.Pod) {
		p.Spec.NodeName = "n1"
		p.Spec.Tolerations = []corev1.Toleration{{Key: "monitoring", Operator: corev1.TolerationOpExists}}
	})
	target, _ := newTarget(p, Query{})
	made, dirs, err := mountSpec(p, target, HelperOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s, c := made.Spec, made.Spec.Containers[0]
	v := s.Volumes[0].PersistentVolumeClaim
	if v.ClaimName != "db-prom-0" || !v.ReadOnly || !c.VolumeMounts[0].ReadOnly || fmt.Sprint(dirs) != "[/promdump/prometheus-db]" {
		t.Errorf("%+v, %+v, %s", v, c.VolumeMounts, dirs)
	}
	if s.NodeName != "n1" || len(s.Tolerations) != 1 || s.RestartPolicy != corev1.RestartPolicyNever || *s.ActiveDeadlineSeconds < 3600 || *s.AutomountServiceAccountToken {
		t.Errorf("%+v", s)
	}
	if *s.SecurityContext.FSGroup != 2000 || *s.SecurityContext.RunAsUser != 1000 || *c.SecurityContext.RunAsUser != 1000 || *c.SecurityContext.RunAsGroup != 2000 {
		t.Errorf("%s %s", spec(t, s.SecurityContext), spec(t, c.SecurityContext))
	}
	p = podOf(t, "p", distroless)
	target, _ = newTarget(p, Query{})
	_, _, err = mountSpec(p, target, HelperOptions{})
	if message, hint, code := told(err); code != 12 || !strings.Contains(message, "no PersistentVolumeClaim (the container's own filesystem)") || !strings.Contains(hint, "--via debug") {
		t.Errorf("%s %s %d", message, hint, code)
	}
}

// A pod that does not start is removed, and so are those that others left.
func TestMountDoesNotStart(t *testing.T) {
	p := podOf(t, "p", restrictedOperator)
	old := podOf(t, "promdump-old", plain, labelled("app.kubernetes.io/managed-by", "promdump"), func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded })
	busy := podOf(t, "promdump-busy", plain, labelled("app.kubernetes.io/managed-by", "promdump"))
	other := podOf(t, "theirs", plain, func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded })
	client, _ := fakeClient(p, old, busy, other)
	client.times.start = 50 * time.Millisecond
	target, _ := newTarget(p, Query{})
	_, err := client.Mount(t.Context(), target, HelperOptions{Tell: func(string) {}})
	if _, ok := errors.AsType[*HelperError](err); !ok || !strings.Contains(err.Error(), "it does not run after") {
		t.Errorf("%T %v", err, err)
	}
	var left []string
	pods, err := client.listed(t.Context(), "mon", metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range pods {
		left = append(left, p.Name)
	}
	slices.Sort(left)
	if got := strings.Join(left, " "); got != "p promdump-busy theirs" {
		t.Errorf("left: %s", got)
	}
}
