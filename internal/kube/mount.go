package kube

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// label marks the pods that are ours.
const label = "app.kubernetes.io/managed-by=promdump"

// lifetime is how long a pod of ours lives at most, if all else fails.
const lifetime = 6 * 60 * 60 // seconds

// Mount makes a pod that mounts the claim that the target's data dir lies on,
// read-only and on the same machine, and waits until it runs. The target's server
// need not run.
func (c *Client) Mount(ctx context.Context, t Target, o HelperOptions) (*Helper, error) {
	p, err := c.podOf(ctx, t, ToMount)
	if err != nil {
		return nil, err
	}
	spec, dirs, err := mountSpec(p, t, o)
	if err != nil {
		return nil, err
	}
	c.sweep(ctx, t.Namespace)
	what := fmt.Sprintf("pod %s/%s", spec.Namespace, spec.Name)
	o.Tell(fmt.Sprintf("making %s (image %s) with claim %s, read-only: it is removed at the end of this command",
		what, spec.Spec.Containers[0].Image, spec.Spec.Volumes[0].PersistentVolumeClaim.ClaimName))
	made, err := c.core.Pods(t.Namespace).Create(ctx, spec, metav1.CreateOptions{})
	if apierrors.IsInvalid(err) {
		return nil, &HelperError{What: what, Reason: "the cluster refuses it: " + err.Error(), tip: "--via debug needs no pod of its own"}
	} else if err != nil {
		return nil, c.explain(ctx, fmt.Errorf("make %s: %w", what, err), ToMount)
	}
	k := kitOf(spec.Spec.Containers[0].Image)
	h := &Helper{Agent: k.agent, kit: k, client: c, let: func() {}, remove: func(ctx context.Context) error {
		now := int64(0)
		o := metav1.NewPreconditionDeleteOptions(string(made.UID))
		o.GracePeriodSeconds = &now
		err := c.core.Pods(made.Namespace).Delete(ctx, made.Name, *o)
		if err == nil || apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
			return nil
		}
		return c.explain(ctx, err, ToMount)
	}}
	h.Target = Target{Namespace: made.Namespace, Pod: made.Name, UID: string(made.UID), Node: t.Node, Image: spec.Spec.Containers[0].Image}.as(helperName, dirs)
	_, err = c.await(ctx, what, helperName, func(ctx context.Context) (*corev1.Pod, *corev1.ContainerStatus, error) {
		p, err := c.podOf(ctx, h.Target, ToMount)
		if err != nil {
			return nil, nil, err
		}
		return p, statusOf(p.Status.ContainerStatuses, helperName), nil
	})
	if err != nil {
		if rerr := h.End(ctx); rerr != nil {
			o.Tell(rerr.Error())
		}
		return nil, err
	}
	c.hold(ctx, h)
	return h, nil
}

const helperName = "promdump"

// mountSpec is the pod that is made, and where it has the data dir. Whether it may
// be there where the original was is left to the original: it tolerates the same.
func mountSpec(p *corev1.Pod, t Target, o HelperOptions) (*corev1.Pod, []string, error) {
	what := fmt.Sprintf("a pod with the volume of pod %s", t)
	server, err := choose(p, t.Container)
	if err != nil {
		return nil, nil, err
	}
	m, dirs := onVolume(p, server, t.Dirs())
	claim := ""
	if m != nil {
		claim = claimOf(p, m.Name)
	}
	if claim == "" {
		return nil, nil, &HelperError{What: what, Reason: fmt.Sprintf("its data dir lies on no PersistentVolumeClaim (%s)", cmp.Or(t.Volume, "it is not known on what")), tip: "--via debug mounts any volume of the pod, and sees the container's own filesystem"}
	}
	u := userOf(p, server, statusOf(slices.Concat(p.Status.ContainerStatuses, p.Status.InitContainerStatuses), server.Name))
	if o.User != nil {
		u = user{uid: o.User, gid: u.gid}
	}
	no, life, grace := false, int64(lifetime), int64(1)
	key, value, _ := strings.Cut(label, "=")
	image := cmp.Or(o.Image, DefaultImage)
	spec := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: t.Namespace, Name: ours + strings.ToLower(rand.Text()[:8]),
			Labels: map[string]string{
				"app.kubernetes.io/name": "promdump", key: value,
				"sidecar.istio.io/inject": "false",
			},
		},
		Spec: corev1.PodSpec{
			NodeName: p.Spec.NodeName, Tolerations: p.Spec.Tolerations, ImagePullSecrets: p.Spec.ImagePullSecrets,
			RestartPolicy: corev1.RestartPolicyNever, ActiveDeadlineSeconds: &life, TerminationGracePeriodSeconds: &grace,
			AutomountServiceAccountToken: &no, EnableServiceLinks: &no, SecurityContext: podSecurity(p.Spec.SecurityContext, u), DNSPolicy: corev1.DNSDefault,
			Containers: []corev1.Container{{
				Name: helperName, Image: image, ImagePullPolicy: corev1.PullIfNotPresent,
				Command: kitOf(image).live, SecurityContext: restricted(server.SecurityContext, u),
				Resources: corev1.ResourceRequirements{
					Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("10m"), corev1.ResourceMemory: resource.MustParse("64Mi")},
					Limits:   corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("256Mi")},
				},
				VolumeMounts: []corev1.VolumeMount{{Name: "data", MountPath: mounted, ReadOnly: true}},
			}},
			Volumes: []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{
				// Also so that nothing is changed to the fsGroup on it.
				PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim, ReadOnly: true},
			}}},
		},
	}
	return spec, dirs, nil
}

// podSecurity keeps what decides who may read the volume. A group without a user
// would keep the pod from being made.
func podSecurity(of *corev1.PodSecurityContext, u user) *corev1.PodSecurityContext {
	s := &corev1.PodSecurityContext{RunAsUser: u.uid, RunAsGroup: u.gid, SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}}
	if of != nil {
		s.FSGroup, s.SupplementalGroups, s.SELinuxOptions = of.FSGroup, of.SupplementalGroups, of.SELinuxOptions
		s.SupplementalGroupsPolicy = of.SupplementalGroupsPolicy
	}
	return s
}

// claimOf is the claim of a pod's volume, or empty.
func claimOf(p *corev1.Pod, volume string) string {
	i := slices.IndexFunc(p.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == volume })
	switch {
	case i < 0:
		return ""
	case p.Spec.Volumes[i].PersistentVolumeClaim != nil:
		return p.Spec.Volumes[i].PersistentVolumeClaim.ClaimName
	case p.Spec.Volumes[i].Ephemeral != nil:
		return p.Name + "-" + volume
	}
	return ""
}

// sweep removes pods of ours that have ended: those of clients that were killed.
// It is no matter if it cannot.
func (c *Client) sweep(ctx context.Context, namespace string) {
	pods, err := c.listed(ctx, namespace, metav1.ListOptions{LabelSelector: label})
	if err != nil {
		return
	}
	for _, p := range pods {
		if strings.HasPrefix(p.Name, ours) && (p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed) {
			_ = c.core.Pods(namespace).Delete(ctx, p.Name, *metav1.NewPreconditionDeleteOptions(string(p.UID)))
		}
	}
}

// trouble is what the cluster's events say of a pod, where one may see them: a
// volume that cannot be mounted is told nowhere else.
func (c *Client) trouble(ctx context.Context, p *corev1.Pod, container string) string {
	if p == nil {
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, aside)
	defer cancel()
	events, err := c.core.Events(p.Namespace).List(ctx, metav1.ListOptions{FieldSelector: "type=Warning,involvedObject.uid=" + string(p.UID)})
	if err != nil {
		return ""
	}
	// Not those of the server, which may have trouble of its own.
	events.Items = slices.DeleteFunc(events.Items, func(e corev1.Event) bool {
		return e.InvolvedObject.FieldPath != "" && !strings.Contains(e.InvolvedObject.FieldPath, "{"+container+"}")
	})
	if len(events.Items) == 0 {
		return ""
	}
	last := slices.MaxFunc(events.Items, func(a, b corev1.Event) int { return a.LastTimestamp.Compare(b.LastTimestamp.Time) })
	return join(last.Reason, firstLine(last.Message))
}
