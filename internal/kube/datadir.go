package kube

import (
	"fmt"
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// dataDir is where the data dir is, or may be.
type dataDir struct {
	dir        string // empty: one of the candidates
	from       string
	candidates []string
}

// findDataDir finds the data dir as a container sees it.
func findDataDir(p *corev1.Pod, c *corev1.Container, given string) dataDir {
	if given != "" {
		return dataDir{dir: given, from: "given", candidates: []string{given}}
	}
	if dir := pathOf(c); path.IsAbs(dir) {
		return dataDir{dir: dir, from: "--" + pathFlag, candidates: []string{dir}}
	}
	if _, own := flagOf(commandLine(c), pathFlag); !own {
		if d, ok := shared(p, c); ok {
			return d
		}
	}
	candidates := candidatesOf(c)
	return dataDir{candidates: candidates, from: "not in the pod's spec"}
}

// pathOf is the data dir that a container's command line names, absolute if it can
// be known.
func pathOf(c *corev1.Container) string {
	dir, ok := flagOf(commandLine(c), pathFlag)
	if !ok || dir == "" || strings.Contains(dir, "$") {
		return ""
	}
	if !path.IsAbs(dir) && c.WorkingDir != "" {
		dir = path.Join(c.WorkingDir, dir)
	}
	return path.Clean(dir)
}

// shared finds the data dir of the pod's Prometheus in another container that
// mounts the same volume. A Thanos sidecar may have the shell that the server's
// image has not.
func shared(p *corev1.Pod, c *corev1.Container) (dataDir, bool) {
	server, err := choose(p, "")
	if err != nil || server.Name == c.Name {
		return dataDir{}, false
	}
	dir := pathOf(server)
	if !path.IsAbs(dir) {
		return dataDir{}, false
	}
	m := mountOf(server, dir)
	if m == nil {
		return dataDir{}, false
	}
	rest, _ := below(dir, m.MountPath)
	for _, own := range c.VolumeMounts {
		if own.Name != m.Name || own.SubPathExpr != m.SubPathExpr {
			continue
		}
		in, ok := below(path.Join("/", m.SubPath, rest), path.Join("/", own.SubPath))
		if ok {
			found := path.Join(own.MountPath, in)
			return dataDir{dir: found, from: fmt.Sprintf("volume %s, shared with container %s", m.Name, server.Name), candidates: []string{found}}, true
		}
	}
	return dataDir{}, false
}

// usual are the data dirs of the usual images.
var usual = []string{"/prometheus", "/data", "/prometheus/data", "/opt/bitnami/prometheus/data"}

// candidatesOf lists directories that may be the data dir, likely ones first.
func candidatesOf(c *corev1.Container) []string {
	var likely, mounted []string
	dir := pathOf(c)
	if dir == "" && len(commandLine(c)) > 0 {
		dir = "data" // Prometheus' own default; the image's arguments do not count then
	}
	if dir != "" {
		likely = append(likely, path.Join("/", c.WorkingDir, dir))
		if c.WorkingDir == "" {
			likely[0] = path.Join("/prometheus", dir) // where the usual image works
		}
	}
	for _, m := range c.VolumeMounts {
		mount := path.Clean(m.MountPath)
		switch {
		case slices.Contains(usual, mount):
			likely = append(likely, mount)
		case !m.ReadOnly && !strings.HasPrefix(mount, "/etc/") && !strings.HasPrefix(mount, "/var/run/secrets/") && mount != "/tmp":
			mounted = append(mounted, mount, path.Join(mount, "data"))
		}
	}
	var all []string
	for _, d := range slices.Concat(likely, usual[:2], mounted, usual[2:]) {
		if !slices.Contains(all, d) {
			all = append(all, d)
		}
	}
	return all
}
