package kube

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// state is how a container is.
type state struct {
	running, ready bool
	restarts       int32
	phase          string // if it says more than the pod's
	reason         string // for that phase
}

func stateOf(p *corev1.Pod, container string) state {
	of := state{}
	for _, s := range slices.Concat(p.Status.ContainerStatuses, p.Status.InitContainerStatuses, p.Status.EphemeralContainerStatuses) {
		if s.Name != container {
			continue
		}
		of.restarts = s.RestartCount
		last := s.LastTerminationState.Terminated
		switch {
		case s.State.Running != nil:
			of.running, of.ready = !over(p), s.Ready
		case s.State.Terminated != nil:
			of.phase, of.reason = endOf(s.State.Terminated)
		case s.State.Waiting != nil && s.State.Waiting.Reason != "PodInitializing":
			of.phase, of.reason = waiting(s.State.Waiting)
			if last != nil {
				phase, reason := endOf(last)
				of.reason = join(of.reason, fmt.Sprintf("it ended with %s, %s", phase, reason))
			}
		}
	}
	// Terminating and Evicted say more.
	if p.DeletionTimestamp != nil || p.Status.Reason != "" {
		of.phase = ""
	}
	return of
}

// waiting says what a container waits for. In a crash loop the message just
// repeats names.
func waiting(w *corev1.ContainerStateWaiting) (phase, reason string) {
	if w.Reason == "CrashLoopBackOff" {
		return w.Reason, ""
	}
	return w.Reason, firstLine(w.Message)
}

func endOf(t *corev1.ContainerStateTerminated) (phase, reason string) {
	return cmp.Or(t.Reason, "Ended"), fmt.Sprintf("exit code %d", t.ExitCode)
}

// podState is how a pod is, and why it has not come as far as its containers.
func podState(p *corev1.Pod) (phase, reason string) {
	if p.DeletionTimestamp != nil {
		return "Terminating", ""
	}
	if p.Status.Reason != "" {
		return p.Status.Reason, firstLine(p.Status.Message)
	}
	for _, s := range p.Status.InitContainerStatuses {
		name := "init container " + s.Name
		if t := s.State.Terminated; t != nil && t.ExitCode != 0 {
			phase, reason := endOf(t)
			return "Init:" + phase, join(name, reason)
		}
		if w := s.State.Waiting; w != nil && w.Reason != "" && w.Reason != "PodInitializing" {
			phase, reason := waiting(w)
			return "Init:" + phase, join(name, reason)
		}
	}
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
			return c.Reason, firstLine(c.Message)
		}
	}
	return cmp.Or(string(p.Status.Phase), string(corev1.PodPending)), ""
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
	return line
}

func join(a, b string) string {
	if a == "" || b == "" || a == b {
		return cmp.Or(a, b)
	}
	return a + ", " + b
}
