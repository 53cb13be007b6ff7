package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/promdump/promdump/internal/retry"
)

// Memory is what the cluster knows about the memory of a container, and of its pod,
// without a command in it.
type Memory struct {
	// Limit is that of the container in bytes; 0: it has none.
	Limit int64

	// PodLimit is that of the pod's cgroup in bytes, which every container that is
	// added to the pod shares; 0: there is none. The kubelet sets it where all
	// containers have a limit, to their sum.
	PodLimit int64

	// Free and PodFree are what was left below these limits at the last measurement,
	// which is up to a minute old; negative: not known. From names who measured.
	Free, PodFree int64
	From          string

	// Grown is how much the container may have added since then, in bytes, if it grows as
	// it did from its start on: a server that has just started takes its memory quickly.
	Grown int64

	OOMKilled bool // the kernel killed the container's last run for lack of memory
}

// Memory asks the API server for the limits of a target, and if there are any, the
// kubelet and the metrics API for the use. Neither is necessary, and both are often
// not permitted.
func (c *Client) Memory(ctx context.Context, t Target) (Memory, error) {
	m := Memory{Free: -1, PodFree: -1}
	p, err := c.core.Pods(t.Namespace).Get(ctx, t.Pod, metav1.GetOptions{})
	if err != nil {
		return m, c.explain(ctx, fmt.Errorf("get pod %s: %w", t, err), ToExec)
	}
	m.Limit, m.PodLimit = limitOf(p, t.Container), podLimit(p)
	var started time.Time
	for _, s := range p.Status.ContainerStatuses {
		if s.Name != t.Container {
			continue
		}
		if end := s.LastTerminationState.Terminated; end != nil {
			m.OOMKilled = end.Reason == oomKilled
		}
		if s.State.Running != nil {
			started = s.State.Running.StartedAt.Time
		}
	}
	if m.Limit == 0 && m.PodLimit == 0 {
		return m, nil
	}
	ctx, cancel := context.WithTimeout(quiet(ctx), aside)
	defer cancel()
	if at, ok := c.kubeletMemory(ctx, &m, p, t.Container, started); ok {
		m.From, m.Grown = "the kubelet", m.grown(started, at, time.Now())
	} else if at, ok := m.fromMetrics(c.raw(ctx, "/apis/metrics.k8s.io/v1beta1/namespaces/"+p.Namespace+"/pods/"+p.Name, "", ""), t.Container); ok {
		m.From, m.Grown = "the metrics API", m.grown(started, at, time.Now())
	}
	return m, nil
}

// youngest is until when a container may not have been measured yet.
const youngest = 30 * time.Second

// kubeletMemory asks the kubelet. A container that has just started is measured within
// seconds, and is waited for.
func (c *Client) kubeletMemory(ctx context.Context, m *Memory, p *corev1.Pod, container string, started time.Time) (at time.Time, ok bool) {
	const tries = 4
	for try := 1; ; try++ {
		b := c.raw(ctx, "/api/v1/nodes/"+p.Spec.NodeName+"/proxy/stats/summary", "only_cpu_and_memory", "true")
		if at, ok = m.fromKubelet(b, p, container); ok || b == nil || try == tries || time.Since(started) > youngest {
			return at, ok
		}
		if retry.Sleep(ctx, c.times.poll) != nil {
			return at, false
		}
	}
}

// oldest is the age of a measurement that is not known, or is not believed.
const oldest = time.Minute

// grown is how much a container may have added since it was measured, at the rate at which
// it grew from its start on, and at most as much as it used: the begin is the fastest part.
func (m *Memory) grown(started, measured, now time.Time) int64 {
	if m.Limit == 0 || m.Free < 0 || started.IsZero() || measured.IsZero() {
		return 0
	}
	age := min(max(0, now.Sub(measured)), oldest) // two clocks
	lived := max(time.Second, measured.Sub(started))
	used := m.Limit - m.Free
	return min(used, int64(float64(used)*float64(age)/float64(lived)))
}

// oomKilled is what the kubelet calls it.
const oomKilled = "OOMKilled"

// raw is the answer to a GET, nil if there is none.
func (c *Client) raw(ctx context.Context, path, key, value string) []byte {
	r := c.core.RESTClient().Get().MaxRetries(0).AbsPath(path).SetHeader("Accept", "application/json")
	if key != "" {
		r = r.Param(key, value)
	}
	b, err := r.DoRaw(ctx)
	if err != nil {
		return nil // most users may not ask, and not every cluster has it
	}
	return b
}

// fromKubelet reads a summary of the kubelet's. Its numbers are of the cgroups
// themselves: limits that were changed are in them.
func (m *Memory) fromKubelet(b []byte, p *corev1.Pod, container string) (at time.Time, ok bool) {
	type memory struct {
		Time       time.Time
		WorkingSet *int64 `json:"workingSetBytes"`
		Available  *int64 `json:"availableBytes"`
	}
	var all struct {
		Pods []struct {
			Ref        struct{ UID string } `json:"podRef"`
			Memory     memory
			Containers []struct {
				Name   string
				Memory memory
			}
		}
	}
	if json.Unmarshal(b, &all) != nil {
		return at, false
	}
	free := func(of memory, limit int64) int64 {
		switch {
		case of.Available != nil:
			return *of.Available
		case of.WorkingSet != nil && limit > 0:
			return max(0, limit-*of.WorkingSet)
		}
		return -1
	}
	for _, one := range all.Pods {
		if one.Ref.UID != string(p.UID) {
			continue
		}
		m.PodFree = free(one.Memory, m.PodLimit)
		for _, c := range one.Containers {
			if c.Name == container {
				m.Free, at = free(c.Memory, m.Limit), c.Memory.Time
			}
		}
	}
	return at, m.Free >= 0
}

// fromMetrics reads the metrics API's answer, which has the working sets.
func (m *Memory) fromMetrics(b []byte, container string) (at time.Time, ok bool) {
	var all struct {
		Timestamp  time.Time
		Containers []struct {
			Name  string
			Usage struct{ Memory resource.Quantity }
		}
	}
	if json.Unmarshal(b, &all) != nil {
		return at, false
	}
	used := int64(0)
	for _, c := range all.Containers {
		used += c.Usage.Memory.Value()
		if c.Name == container && m.Limit > 0 {
			m.Free = max(0, m.Limit-c.Usage.Memory.Value())
		}
	}
	if m.PodLimit > 0 && len(all.Containers) > 0 {
		m.PodFree = max(0, m.PodLimit-used)
	}
	return all.Timestamp, m.Free >= 0
}

// limitOf is the memory limit of a container, in bytes: that which is in force, for
// it may be changed while the container runs.
func limitOf(p *corev1.Pod, container string) int64 {
	for _, s := range p.Status.ContainerStatuses {
		if s.Name == container && s.Resources != nil {
			if q, ok := s.Resources.Limits[corev1.ResourceMemory]; ok {
				return q.Value()
			}
		}
	}
	for _, c := range containers(p) {
		if c.Name == container {
			return c.Resources.Limits.Memory().Value()
		}
	}
	return 0
}

// podLimit is the memory limit of a pod's cgroup, in bytes, as the kubelet computes
// it (pkg/kubelet/cm/helpers_linux.go, ResourceConfigForPod): that of the pod, else
// the sum of its containers' if all have one, and at least what its init containers
// may have while they run.
func podLimit(p *corev1.Pod) int64 {
	overhead := p.Spec.Overhead.Memory().Value()
	if p.Spec.Resources != nil {
		if q, ok := p.Spec.Resources.Limits[corev1.ResourceMemory]; ok {
			return q.Value() + overhead
		}
	}
	sum, sidecars, first := int64(0), int64(0), int64(0)
	for _, c := range p.Spec.InitContainers {
		limit := c.Resources.Limits.Memory().Value()
		if limit == 0 {
			return 0
		}
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			sidecars += limit
			first = max(first, sidecars)
			continue
		}
		first = max(first, sidecars+limit)
	}
	for _, c := range p.Spec.Containers {
		limit := limitOf(p, c.Name)
		if limit == 0 {
			return 0
		}
		sum += limit
	}
	return max(sum+sidecars, first) + overhead
}
