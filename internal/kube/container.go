package kube

import (
	"cmp"
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

const (
	pathFlag         = "storage.tsdb.path"
	defaultContainer = "kubectl.kubernetes.io/default-container"
)

// containers are those that go on running: init containers that are sidecars too.
func containers(p *corev1.Pod) []*corev1.Container {
	var all []*corev1.Container
	for i := range p.Spec.Containers {
		all = append(all, &p.Spec.Containers[i])
	}
	for i := range p.Spec.InitContainers {
		c := &p.Spec.InitContainers[i]
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			all = append(all, c)
		}
	}
	return all
}

// choose finds the container that is asked for, or the one of the Prometheus. A
// command line with the data dir's flag proves more than an annotation, which may
// name a proxy.
func choose(p *corev1.Pod, name string) (*corev1.Container, error) {
	all := containers(p)
	if name != "" {
		if i := slices.IndexFunc(all, func(c *corev1.Container) bool { return c.Name == name }); i >= 0 {
			return all[i], nil
		}
		return nil, noContainer(p, name)
	}
	left := all
	for _, is := range []func(*corev1.Container) bool{
		func(c *corev1.Container) bool { _, ok := flagOf(commandLine(c), pathFlag); return ok },
		func(c *corev1.Container) bool { return c.Name == p.Annotations[defaultContainer] },
		func(c *corev1.Container) bool { return c.Name == "prometheus" || c.Name == "prometheus-server" },
		func(c *corev1.Container) bool { return isPrometheusImage(c.Image) },
	} {
		var some []*corev1.Container
		for _, c := range left {
			if is(c) {
				some = append(some, c)
			}
		}
		if len(some) > 0 {
			left = some
		}
		if len(left) == 1 {
			return left[0], nil
		}
	}
	return nil, noContainer(p, "")
}

func noContainer(p *corev1.Pod, name string) error {
	e := &ContainerError{Namespace: p.Namespace, Pod: p.Name, Container: name}
	for _, c := range containers(p) {
		e.Containers = append(e.Containers, c.Name)
	}
	return e
}

// isPrometheusImage knows prom/prometheus, quay.io/prometheus/prometheus and what
// others name so, not prometheus-operator and the like.
func isPrometheusImage(image string) bool {
	image, _, _ = strings.Cut(image, "@")
	name, _, _ := strings.Cut(path.Base(image), ":")
	return name == "prometheus"
}

// Distroless reports whether the image is known to have neither a shell nor tar. That it
// is not known means nothing: an image that is named by its digest says nothing.
func (t Target) Distroless() bool { return isDistroless(t.Image) }

// isDistroless knows the images of Prometheus without a shell by their tags.
func isDistroless(image string) bool { return strings.Contains(image, "distroless") }

// looksLike tells whether a pod is a Prometheus: by its labels as the usual charts
// and the operator set them, else by an image or a command line.
func looksLike(p *corev1.Pod) bool {
	c, err := choose(p, "")
	if err != nil {
		return false
	}
	// The agent mode has no data dir of use.
	args := commandLine(c)
	if slices.ContainsFunc(args, func(w string) bool { return w == "--agent" || strings.HasPrefix(w, "--storage.agent.path") }) {
		return false
	}
	if features, _ := flagOf(args, "enable-feature"); slices.Contains(strings.Split(features, ","), "agent") {
		return false
	}
	if _, ok := flagOf(args, pathFlag); ok || isPrometheusImage(c.Image) {
		return true
	}
	component := cmp.Or(p.Labels["app.kubernetes.io/component"], p.Labels["component"])
	if component != "" && component != "server" && component != "prometheus" {
		return false
	}
	return cmp.Or(p.Labels["app.kubernetes.io/name"], p.Labels["app"]) == "prometheus"
}
