package kube

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"path"
	"reflect"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

const (
	ours    = "promdump-"    // begins the names of what is ours
	mounted = "/promdump"    // where a helper has the volume
	foreign = "/proc/1/root" // the server's filesystem, where its PID namespace is shared
)

// Debug adds a debug container to the target's pod, an ephemeral one, and waits
// until it runs; one of ours that runs already and fits is taken instead. The
// target's container need not run where the data dir lies on a volume: the helper
// mounts that itself, read-only unless it is to write. Otherwise it looks into
// the server's filesystem, as the server's user.
func (c *Client) Debug(ctx context.Context, t Target, o HelperOptions) (*Helper, error) {
	h, seen, err := c.debug(ctx, t, o)
	if err != nil || seen == nil {
		return h, err
	}
	// Only in it was to be seen whom the server runs as.
	o.User = seen
	if err := h.End(ctx); err != nil {
		o.Tell(err.Error())
	}
	h, _, err = c.debug(ctx, t, o)
	return h, err
}

func (c *Client) debug(ctx context.Context, t Target, o HelperOptions) (h *Helper, seen *int64, err error) {
	p, err := c.podOf(ctx, t, ToDebug)
	if err != nil {
		return nil, nil, err
	}
	spec, dirs, u, err := debugSpec(p, t, o)
	if err != nil {
		return nil, nil, err
	}
	what := fmt.Sprintf("debug container %s of pod %s", spec.Name, t)
	k := kitOf(spec.Image)
	// Its status may be behind: one that another command has just ended is not there.
	if name := runningLike(p, spec); name != "" && c.Exec(ctx, t.as(name, dirs), k.owners, Streams{Out: io.Discard}) == nil {
		spec.Name = name
		o.Tell(fmt.Sprintf("using debug container %s of pod %s, which runs already", name, t))
	} else {
		o.Tell(fmt.Sprintf("adding debug container %s (image %s) to pod %s: it ends with this command, and stays in the pod's spec until the pod is deleted", spec.Name, spec.Image, t))
		if err := c.addDebug(ctx, t, spec, what); err != nil {
			return nil, nil, err
		}
		_, err := c.await(ctx, what, spec.Name, func(ctx context.Context) (*corev1.Pod, *corev1.ContainerStatus, error) {
			p, err := c.podOf(ctx, t, ToDebug)
			if err != nil {
				return nil, nil, err
			}
			return p, statusOf(p.Status.EphemeralContainerStatuses, spec.Name), nil
		})
		if err != nil {
			return nil, nil, err
		}
	}
	h = &Helper{Target: t.as(spec.Name, dirs), Agent: k.agent, kit: k}
	c.hold(ctx, h)
	if u.guessed {
		seen, err = c.ownerSeen(ctx, h, spec.TargetContainerName != "")
		if err != nil || seen == nil || *seen == *u.uid {
			seen = nil
		}
	}
	return h, seen, nil
}

// as is the target as a container of ours has it.
func (t Target) as(container string, dirs []string) Target {
	t.Container, t.RestartCount, t.Running = container, 0, true
	t.DataDir, t.Candidates, t.Mounts, t.InMemory, t.Instance = "", dirs, nil, nil, Instance{}
	if len(dirs) == 1 {
		t.DataDir = dirs[0]
	}
	return t
}

// podOf gets the target's pod, if it is still that.
func (c *Client) podOf(ctx context.Context, t Target, a Access) (*corev1.Pod, error) {
	p, err := c.core.Pods(t.Namespace).Get(ctx, t.Pod, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return nil, &GoneError{Namespace: t.Namespace, Pod: t.Pod, Reason: "it was deleted"}
	case err != nil:
		return nil, c.explain(ctx, fmt.Errorf("get pod %s: %w", t, err), a)
	case t.UID != "" && string(p.UID) != t.UID:
		return nil, &GoneError{Namespace: t.Namespace, Pod: t.Pod, Reason: "another pod has its name now"}
	}
	return p, nil
}

// addDebug patches the pod as kubectl debug does.
func (c *Client) addDebug(ctx context.Context, t Target, spec *corev1.EphemeralContainer, what string) error {
	body, err := json.Marshal(map[string]any{"spec": map[string]any{"ephemeralContainers": []any{spec}}})
	if err != nil {
		return err
	}
	_, err = c.core.Pods(t.Namespace).Patch(ctx, t.Pod, types.StrategicMergePatchType, body, metav1.PatchOptions{}, "ephemeralcontainers")
	switch {
	case err == nil:
		return nil
	case apierrors.IsNotFound(err):
		return &HelperError{What: what, Reason: "the cluster has no ephemeral containers, or the pod has just gone", tip: "Kubernetes has them since 1.25; " + otherWays}
	case apierrors.IsInvalid(err):
		return &HelperError{What: what, Reason: "the cluster refuses it: " + err.Error(), tip: otherWays}
	}
	return c.explain(ctx, fmt.Errorf("add %s: %w", what, err), ToDebug)
}

const otherWays = "--via remote-read asks the server itself; --via pvc mounts the volume in a pod of its own"

// debugSpec is the container that is added, and where it has the data dir.
func debugSpec(p *corev1.Pod, t Target, o HelperOptions) (*corev1.EphemeralContainer, []string, user, error) {
	name := ours + strings.ToLower(rand.Text()[:5])
	what := fmt.Sprintf("debug container %s of pod %s", name, t)
	if over(p) {
		return nil, nil, user{}, &HelperError{What: what, Reason: "the pod has ended, nothing starts in it any more", tip: "--via pvc mounts its volume in another pod"}
	}
	server, err := choose(p, t.Container)
	if err != nil {
		return nil, nil, user{}, err
	}
	u := userOf(p, server, statusOf(slices.Concat(p.Status.ContainerStatuses, p.Status.InitContainerStatuses), server.Name))
	if o.User != nil {
		u = user{uid: o.User, gid: u.gid}
	}
	image := cmp.Or(o.Image, DefaultImage)
	spec := &corev1.EphemeralContainer{EphemeralContainerCommon: corev1.EphemeralContainerCommon{
		Name: name, Image: image, ImagePullPolicy: corev1.PullIfNotPresent,
		Command:         kitOf(image).live,
		SecurityContext: restricted(server.SecurityContext, u),
	}}
	if m, dirs := onVolume(p, server, t.Dirs()); m != nil {
		m.MountPath, m.ReadOnly = mounted, m.ReadOnly || !o.Write
		spec.VolumeMounts = []corev1.VolumeMount{*m}
		return spec, dirs, u, nil
	}
	// PID 1 must be the server: in these it is another one's.
	if p.Spec.HostPID || p.Spec.ShareProcessNamespace != nil && *p.Spec.ShareProcessNamespace {
		return nil, nil, u, &HelperError{What: what, Reason: "the data dir lies on no volume, and the pod's processes are not apart, so that its filesystem cannot be told", tip: otherWays}
	}
	if !t.Running {
		return nil, nil, u, &HelperError{What: what, Reason: "the data dir lies on the container's own filesystem, and that went with the container", tip: "when the server runs again, it begins without it"}
	}
	spec.TargetContainerName = server.Name
	var dirs []string
	for _, d := range t.Dirs() {
		dirs = append(dirs, path.Join(foreign, d))
	}
	return spec, dirs, u, nil
}

// onVolume finds the volume that the data dir lies on, and the directories that it
// may be when all of the volume is mounted: an ephemeral container has no subPath.
func onVolume(p *corev1.Pod, c *corev1.Container, all []string) (m *corev1.VolumeMount, dirs []string) {
	for _, d := range all {
		on := mountOf(c, d)
		if on == nil || m != nil && on.Name != m.Name {
			continue
		}
		sub, ok := subPathOf(p, c, on)
		if !ok {
			continue
		}
		if m == nil {
			m = &corev1.VolumeMount{Name: on.Name, ReadOnly: on.ReadOnly}
		}
		rest, _ := below(d, on.MountPath)
		if dir := path.Join(mounted, sub, rest); !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	return m, dirs
}

// subPathOf is the part of a volume that is mounted, if it can be known.
func subPathOf(p *corev1.Pod, c *corev1.Container, m *corev1.VolumeMount) (string, bool) {
	if m.SubPathExpr == "" {
		return m.SubPath, true
	}
	env := environment(c)
	for _, e := range c.Env {
		if e.ValueFrom == nil || e.ValueFrom.FieldRef == nil {
			continue
		}
		switch e.ValueFrom.FieldRef.FieldPath {
		case "metadata.name":
			env[e.Name] = p.Name
		case "metadata.namespace":
			env[e.Name] = p.Namespace
		case "metadata.uid":
			env[e.Name] = string(p.UID)
		case "spec.nodeName":
			env[e.Name] = p.Spec.NodeName
		}
	}
	sub := expand(m.SubPathExpr, env)
	return sub, !strings.Contains(sub, "$(")
}

// runningLike is the name of a container of ours that runs and is the same in all
// that matters; empty: there is none.
func runningLike(p *corev1.Pod, want *corev1.EphemeralContainer) string {
	for _, e := range p.Spec.EphemeralContainers {
		s := statusOf(p.Status.EphemeralContainerStatuses, e.Name)
		if !strings.HasPrefix(e.Name, ours) || s == nil || s.State.Running == nil {
			continue
		}
		if e.Image == want.Image && e.TargetContainerName == want.TargetContainerName && slices.Equal(e.Command, want.Command) &&
			reflect.DeepEqual(e.SecurityContext, want.SecurityContext) && slices.EqualFunc(e.VolumeMounts, want.VolumeMounts, sameMount) {
			return e.Name
		}
	}
	return ""
}

// sameMount leaves out what the API server fills in.
func sameMount(a, b corev1.VolumeMount) bool {
	return a.Name == b.Name && a.MountPath == b.MountPath && a.ReadOnly == b.ReadOnly && a.SubPath == b.SubPath
}

func statusOf(all []corev1.ContainerStatus, name string) *corev1.ContainerStatus {
	for i := range all {
		if all[i].Name == name {
			return &all[i]
		}
	}
	return nil
}

// ownerSeen looks whom the server runs as: who owns PID 1, or the log that it has
// made. nil: that cannot be told.
func (c *Client) ownerSeen(ctx context.Context, h *Helper, shared bool) (*int64, error) {
	look := slices.Clone(h.kit.owners)
	if shared {
		look = append(look, "/proc/1")
	} else {
		for _, d := range h.Target.Dirs() {
			look = append(look, path.Join(d, "wal"))
		}
	}
	var out bytes.Buffer
	err := c.Exec(ctx, h.Target, look, Streams{Out: &out})
	for line := range strings.Lines(out.String()) {
		if words := strings.Fields(line); len(words) > 3 && strings.HasPrefix(words[0], "d") {
			if uid, perr := strconv.ParseInt(words[2], 10, 64); perr == nil {
				return &uid, nil
			}
		}
	}
	return nil, err
}
