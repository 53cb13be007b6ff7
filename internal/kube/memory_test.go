package kube

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

func limited(name, memory string) corev1.Container {
	c := corev1.Container{Name: name}
	if memory != "" {
		c.Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse(memory)}
	}
	return c
}

func memoryPod(containers ...corev1.Container) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "mon", Name: "p", UID: "f188c951-e1e0-4392-a3a9-fe0699d9388d"}}
	p.Spec.NodeName, p.Spec.Containers = "n", containers
	return p
}

// The kubelet of e2e/rig gives a pod of one container with 256 MiB a cgroup with the
// same limit, which TestShortMemory sees.
func TestPodLimit(t *testing.T) {
	const mib = 1 << 20
	always := corev1.ContainerRestartPolicyAlways
	for name, c := range map[string]struct {
		pod  *corev1.Pod
		want int64
	}{
		"one":            {memoryPod(limited("prometheus", "256Mi")), 256 * mib},
		"two":            {memoryPod(limited("prometheus", "256Mi"), limited("b", "50Mi")), 306 * mib},
		"one has none":   {memoryPod(limited("prometheus", "256Mi"), limited("b", "")), 0},
		"none":           {memoryPod(limited("prometheus", "")), 0},
		"an init larger": {withInit(memoryPod(limited("prometheus", "256Mi")), limited("i", "1Gi")), 1024 * mib},
		"an init has none": {
			withInit(memoryPod(limited("prometheus", "256Mi")), limited("i", "")), 0,
		},
		"a sidecar": {func() *corev1.Pod {
			s := limited("s", "100Mi")
			s.RestartPolicy = &always
			return withInit(memoryPod(limited("prometheus", "256Mi")), s)
		}(), 356 * mib},
		"of the pod itself": {func() *corev1.Pod {
			p := memoryPod(limited("prometheus", ""))
			p.Spec.Resources = &corev1.ResourceRequirements{Limits: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("300Mi")}}
			return p
		}(), 300 * mib},
		"changed while it runs": {func() *corev1.Pod {
			p := memoryPod(limited("prometheus", "256Mi"))
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "prometheus", Resources: &corev1.ResourceRequirements{
				Limits: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("128Mi")},
			}}}
			return p
		}(), 128 * mib},
	} {
		if got := podLimit(c.pod); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}

func withInit(p *corev1.Pod, c ...corev1.Container) *corev1.Pod {
	p.Spec.InitContainers = c
	return p
}

// testdata/summary.json is what the kubelet of e2e/rig answered (cut to one pod).
func TestMemory(t *testing.T) {
	summary, err := os.ReadFile("testdata/summary.json")
	if err != nil {
		t.Fatal(err)
	}
	const metrics = `{"kind":"PodMetrics","containers":[{"name":"prometheus","usage":{"cpu":"1n","memory":"200Mi"}},{"name":"b","usage":{"memory":"10Mi"}}]}`
	const mib = 1 << 20
	for _, c := range []struct {
		name             string
		pod              *corev1.Pod
		summary, metrics string
		want             Memory
		asked            int
	}{
		{"no limit: nobody else is asked", memoryPod(limited("prometheus", "")), string(summary), metrics, Memory{Free: -1, PodFree: -1}, 1},
		{"the kubelet", memoryPod(limited("prometheus", "256Mi")), string(summary), metrics,
			Memory{Limit: 256 * mib, PodLimit: 256 * mib, Free: 243298304, PodFree: 242311168, From: "the kubelet"}, 2},
		{"the metrics API", memoryPod(limited("prometheus", "256Mi"), limited("b", "50Mi")), "", metrics,
			Memory{Limit: 256 * mib, PodLimit: 306 * mib, Free: 56 * mib, PodFree: 96 * mib, From: "the metrics API"}, 3},
		{"neither", memoryPod(limited("prometheus", "256Mi")), "", "", Memory{Limit: 256 * mib, PodLimit: 256 * mib, Free: -1, PodFree: -1}, 3},
		{"neither says what is expected", memoryPod(limited("prometheus", "256Mi")), "<html>", `{"containers":7}`, Memory{Limit: 256 * mib, PodLimit: 256 * mib, Free: -1, PodFree: -1}, 3},
		{"killed before", func() *corev1.Pod {
			p := memoryPod(limited("prometheus", "256Mi"))
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "prometheus", LastTerminationState: corev1.ContainerState{
				Terminated: &corev1.ContainerStateTerminated{Reason: "OOMKilled", ExitCode: 137},
			}}}
			return p
		}(), "", "", Memory{Limit: 256 * mib, PodLimit: 256 * mib, Free: -1, PodFree: -1, OOMKilled: true}, 3},
	} {
		asked := 0
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked++
			w.Header().Set("Content-Type", "application/json")
			answer := ""
			switch {
			case strings.HasPrefix(r.URL.Path, "/api/v1/nodes/n/proxy/stats/summary"):
				answer = c.summary
			case r.URL.Path == "/apis/metrics.k8s.io/v1beta1/namespaces/mon/pods/p":
				answer = c.metrics
			case r.URL.Path == "/api/v1/namespaces/mon/pods/p":
				b, err := json.Marshal(c.pod)
				if err != nil {
					t.Error(err)
				}
				answer = string(b)
			}
			if answer == "" {
				status(w, http.StatusForbidden)
				return
			}
			fmt.Fprint(w, answer)
		}))
		client, err := newClient(&rest.Config{Host: server.URL}, "mon")
		if err != nil {
			t.Fatal(err)
		}
		got, err := client.Memory(t.Context(), Target{Namespace: "mon", Pod: "p", Container: "prometheus"})
		if err != nil || got != c.want || asked != c.asked {
			t.Errorf("%s: %+v, %v after %d requests, want %+v after %d", c.name, got, err, asked, c.want, c.asked)
		}
		server.Close()
	}
}

// A container that ended, and may run again, is not the one that was found.
func TestSame(t *testing.T) {
	running := corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}
	ended := func(reason string, code int32) corev1.ContainerState {
		return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Reason: reason, ExitCode: code}}
	}
	was := Target{Namespace: "mon", Pod: "p", UID: "f188c951-e1e0-4392-a3a9-fe0699d9388d", Container: "prometheus", Instance: Instance{ContainerID: "containerd://1", Restarts: 1}}
	for _, c := range []struct {
		name   string
		status *corev1.ContainerStatus
		uid    string
		want   string
	}{
		{"as it was", &corev1.ContainerStatus{ContainerID: "containerd://1", RestartCount: 1, State: running, LastTerminationState: ended("OOMKilled", 137)}, "", ""},
		{"restarted", &corev1.ContainerStatus{ContainerID: "containerd://2", RestartCount: 2, State: running, LastTerminationState: ended("OOMKilled", 137)}, "",
			"the Prometheus container restarted (OOMKilled)"},
		{"another container, with no count", &corev1.ContainerStatus{ContainerID: "containerd://2", RestartCount: 1, State: running}, "",
			"the Prometheus container restarted"},
		{"stopped", &corev1.ContainerStatus{ContainerID: "containerd://1", RestartCount: 1, State: ended("OOMKilled", 137)}, "",
			"the Prometheus container stopped (OOMKilled)"},
		{"waits for its next start", &corev1.ContainerStatus{RestartCount: 2, State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}}, LastTerminationState: ended("", 2)}, "",
			"the Prometheus container stopped (exit code 2)"},
		{"no status", nil, "", ""},
		{"another pod", &corev1.ContainerStatus{ContainerID: "containerd://9", State: running}, "other", "the Prometheus container stopped (its pod was replaced)"},
		{"no pod", nil, "none", "the Prometheus container stopped (its pod was deleted)"},
	} {
		s := newStub(t)
		if s.pod = memoryPod(limited("prometheus", "")); c.uid != "" {
			s.pod.UID = "other"
		}
		if c.status != nil {
			c.status.Name = "prometheus"
			s.pod.Status.ContainerStatuses = []corev1.ContainerStatus{*c.status}
		}
		if c.uid == "none" {
			s.pod = nil
		}
		err := s.client(t).Same(t.Context(), was)
		text := ""
		if err != nil {
			text = err.Error()
		}
		e, typed := errors.AsType[*RestartedError](err)
		if text != c.want || err != nil && (!typed || !e.Stops() || e.ExitCode() != 3) {
			t.Errorf("%s: %q, want %q", c.name, text, c.want)
		}
	}
	s := newStub(t)
	s.refuse[""] = http.StatusInternalServerError // the API server says nothing
	if err := s.client(t).Same(t.Context(), was); err != nil {
		t.Errorf("an API server that fails: %v", err)
	}
}

// What a server may have taken since it was measured depends on how fast it grew.
func TestGrown(t *testing.T) {
	const mib = 1 << 20
	now := time.Date(2026, 11, 28, 8, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		name           string
		used           int64
		lived, old     time.Duration // at the measurement, and since
		want           int64
		unknown, never bool
	}{
		{name: "a day old", used: 1440, lived: 24 * time.Hour, old: time.Minute, want: 1},
		{name: "replays its log", used: 120, lived: time.Minute, old: 15 * time.Second, want: 30},
		{name: "has just started", used: 60, lived: 0, old: 10 * time.Second, want: 60},
		{name: "the clock is ahead", used: 60, lived: time.Minute, old: -time.Hour, want: 0},
		{name: "the clock is behind", used: 60, lived: 2 * time.Minute, old: time.Hour, want: 30},
		{name: "nobody says when", used: 60, lived: time.Minute, unknown: true, want: 0},
		{name: "not running", used: 60, lived: time.Minute, old: time.Minute, never: true, want: 0},
	} {
		m := Memory{Limit: 4096 * mib, Free: (4096 - c.used) * mib}
		at := now.Add(-c.old)
		started := at.Add(-c.lived)
		if c.unknown {
			at = time.Time{}
		}
		if c.never {
			started = time.Time{}
		}
		if got := m.grown(started, at, now); got != c.want*mib {
			t.Errorf("%s: %d bytes, want %d MiB", c.name, got, c.want)
		}
	}
}

// A container that has just started is measured soon, and is waited for; an older one, or a
// kubelet that may not be asked, is not.
func TestNotMeasuredYet(t *testing.T) {
	summary, err := os.ReadFile("testdata/summary.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		age   time.Duration
		asked int // of the kubelet
		free  int64
	}{{time.Second, 3, 243298304}, {time.Hour, 1, -1}} {
		p := memoryPod(limited("prometheus", "256Mi"))
		p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "prometheus", State: corev1.ContainerState{
			Running: &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(time.Now().Add(-c.age))},
		}}}
		asked := 0
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			switch {
			case strings.HasPrefix(r.URL.Path, "/api/v1/nodes/"):
				if asked++; asked < 3 {
					io.WriteString(w, `{"pods":[]}`)
					return
				}
				w.Write(summary)
			case strings.HasPrefix(r.URL.Path, "/apis/"):
				status(w, http.StatusNotFound)
			default:
				json.NewEncoder(w).Encode(p)
			}
		}))
		client := clientOf(t, &rest.Config{Host: server.URL})
		m, err := client.Memory(t.Context(), Target{Namespace: "mon", Pod: "p", Container: "prometheus"})
		if err != nil || m.Free != c.free || asked != c.asked {
			t.Errorf("%v old: %+v, %v after %d requests", c.age, m, err, asked)
		}
		server.Close()
	}
}
