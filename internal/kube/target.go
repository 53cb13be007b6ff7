package kube

import (
	"net"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Target is a container that holds a Prometheus, or is said to.
type Target struct {
	Namespace, Pod string
	UID            string // of the pod: another pod of the same name has another one
	Node           string
	Owner          string   // KIND/NAME of what brings the pod back when it is deleted; may be empty
	Of             []string // TYPE/NAME of all that it belongs to, as a Query takes them
	Created        time.Time

	Container  string
	Containers []string // all that may be asked for
	Image      string
	Args       []string // its command line as far as the spec has it

	// DataDir is the data dir if it was given or the spec says it. Otherwise it is one
	// of Candidates, the likeliest of which is the first. DataDirFrom tells a person
	// how it is known.
	DataDir     string
	DataDirFrom string
	Candidates  []string
	Volume      string   // what the data dir lies on, as far as that is known
	Lasting     bool     // that volume outlives the pod
	OnVolume    bool     // not on the container's own filesystem
	Claim       string   // the PersistentVolumeClaim of that volume, if it is of one
	Mounts      []string // where the container has volumes that it may write to
	InMemory    []string // those of Mounts whose volumes are in memory

	Port   int    // of the server's HTTP, by its flags or the container's ports
	Prefix string // of its paths; "" or begins with a slash
	TLS    bool   // its own probes use it

	Phase        string // of the pod or, if that says more, the container: Running, CrashLoopBackOff, ...
	Reason       string // for a phase that is not Running; may be empty
	Running      bool   // the container
	Ready        bool   // the container
	Over         bool   // the pod will never run again
	RestartCount int32
	Instance     Instance // the container's run that was found

	owner *metav1.OwnerReference
}

// String is NAMESPACE/POD.
func (t Target) String() string { return t.Namespace + "/" + t.Pod }

// Dirs are the directories to look at for the data dir, in order.
func (t Target) Dirs() []string {
	if t.DataDir != "" {
		return []string{t.DataDir}
	}
	return t.Candidates
}

// Flag is the value of a flag of the server, as far as the spec has it.
func (t Target) Flag(name string) (string, bool) { return flagOf(t.Args, name) }

// newTarget is a pod as a target. Without a container the target has none, and the
// error says why.
func newTarget(p *corev1.Pod, q Query) (Target, error) {
	t := Target{
		Namespace: p.Namespace, Pod: p.Name, UID: string(p.UID), Node: p.Spec.NodeName,
		Of: of(p), Created: p.CreationTimestamp.Time, owner: metav1.GetControllerOf(p),
	}
	if t.owner != nil {
		t.Owner = t.owner.Kind + "/" + t.owner.Name
	}
	t.Phase, t.Reason = podState(p)
	t.Over = over(p)
	all := containers(p)
	for _, c := range all {
		t.Containers = append(t.Containers, c.Name)
	}
	c, err := choose(p, q.Container)
	if err != nil {
		return t, err
	}
	t.Container, t.Image, t.Args = c.Name, c.Image, commandLine(c)
	d := findDataDir(p, c, q.DataDir)
	t.DataDir, t.DataDirFrom, t.Candidates = d.dir, d.from, d.candidates
	t.Volume, t.Lasting = volumeOf(p, c, t.Dirs()[0])
	if m := mountOf(c, t.Dirs()[0]); m != nil {
		t.OnVolume, t.Claim = true, claimOf(p, m.Name)
	}
	t.Mounts = writable(c)
	for _, dir := range t.Mounts {
		if what, _ := volumeOf(p, c, dir); what == inMemory {
			t.InMemory = append(t.InMemory, dir)
		}
	}
	// A sidecar shares the network of the server, but knows nothing of its flags.
	server := c
	if s, err := choose(p, ""); err == nil {
		server = s
	}
	t.Port, t.Prefix = webOf(server)
	t.TLS = tlsOf(server)
	if status := statusOf(slices.Concat(p.Status.ContainerStatuses, p.Status.InitContainerStatuses), c.Name); status != nil {
		t.Instance = instanceOf(status)
	}
	s := stateOf(p, c.Name)
	t.Running, t.Ready, t.RestartCount = s.running, s.ready, s.restarts
	if s.phase != "" {
		t.Phase, t.Reason = s.phase, s.reason
	}
	return t, nil
}

// webOf finds where the server serves: its flag, then the container's ports.
func webOf(c *corev1.Container) (port int, prefix string) {
	args := commandLine(c)
	port = 9090
	for _, p := range c.Ports {
		if slices.Contains([]string{"web", "http-web", "http"}, p.Name) || len(c.Ports) == 1 {
			port = int(p.ContainerPort)
			break
		}
	}
	if v, ok := flagOf(args, "web.listen-address"); ok {
		if _, s, err := net.SplitHostPort(v); err == nil {
			if n, err := strconv.Atoi(s); err == nil {
				port = n
			}
		}
	}
	prefix, ok := flagOf(args, "web.route-prefix")
	if !ok {
		// By default it is the path of the external URL.
		external, _ := flagOf(args, "web.external-url")
		if u, err := url.Parse(external); err == nil {
			prefix = u.Path
		}
	}
	if prefix = strings.Trim(prefix, "/"); prefix != "" {
		prefix = "/" + prefix
	}
	return port, prefix
}

const (
	ownFilesystem = "the container's own filesystem"
	inMemory      = "emptyDir in memory"
)

// Outlived tells whether the data dir is there after a restart of its container
// too.
func (t Target) Outlived() bool { return t.Volume != ownFilesystem }

// tlsOf tells whether the kubelet asks the server over TLS, which is how the
// operator has it: the command line names just a file.
func tlsOf(c *corev1.Container) bool {
	for _, p := range []*corev1.Probe{c.ReadinessProbe, c.LivenessProbe, c.StartupProbe} {
		if p != nil && p.HTTPGet != nil && p.HTTPGet.Scheme == corev1.URISchemeHTTPS {
			return true
		}
	}
	return false
}

// volumeOf tells what a directory of a container lies on, and whether that is
// still there when the pod is deleted.
func volumeOf(p *corev1.Pod, c *corev1.Container, dir string) (what string, lasting bool) {
	m := mountOf(c, dir)
	if m == nil {
		return ownFilesystem, false
	}
	i := slices.IndexFunc(p.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == m.Name })
	if i < 0 {
		return "", false
	}
	switch v := p.Spec.Volumes[i]; {
	case v.PersistentVolumeClaim != nil:
		return "PersistentVolumeClaim " + v.PersistentVolumeClaim.ClaimName, true
	case v.EmptyDir != nil && v.EmptyDir.Medium == corev1.StorageMediumMemory:
		return inMemory, false
	case v.EmptyDir != nil:
		return "emptyDir", false
	case v.Ephemeral != nil:
		return "ephemeral volume", false
	case v.HostPath != nil:
		return "hostPath " + v.HostPath.Path, true
	case v.CSI != nil:
		return "inline CSI volume", false
	default:
		return "volume " + v.Name, true
	}
}

// writable are the mounts that may be written to; those that hold the cluster's own
// data are never.
func writable(c *corev1.Container) (dirs []string) {
	for _, m := range c.VolumeMounts {
		dir := path.Clean(m.MountPath)
		if _, secret := below(dir, "/var/run/secrets"); !secret && !m.ReadOnly {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

// mountOf finds what is mounted where a directory is.
func mountOf(c *corev1.Container, dir string) *corev1.VolumeMount {
	var best *corev1.VolumeMount
	for i := range c.VolumeMounts {
		m := &c.VolumeMounts[i]
		if _, in := below(dir, m.MountPath); in && (best == nil || len(path.Clean(m.MountPath)) > len(path.Clean(best.MountPath))) {
			best = m
		}
	}
	return best
}

// below gives a path relative to one that holds it.
func below(dir, root string) (string, bool) {
	dir, root = path.Clean(dir), path.Clean(root)
	if dir == root {
		return "", true
	}
	return strings.CutPrefix(dir, strings.TrimSuffix(root, "/")+"/")
}
