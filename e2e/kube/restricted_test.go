//go:build linux

package kube

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/promdump/promdump/internal/tsdbtest"
)

// A namespace that lets nothing through but what is harmless, and a data dir on
// the container's own filesystem, where it can be seen from within the pod alone.
func TestRestricted(t *testing.T) {
	c := booted(t)
	ns := namespace(t)
	p := startPod(t, "stack", podOptions{quiet: true, namespace: ns, edit: func(pod object) {
		spec := pod["spec"].(object)
		server := spec["containers"].([]any)[0].(object)
		delete(spec, "volumes")
		delete(server, "volumeMounts")
		server["securityContext"].(object)["readOnlyRootFilesystem"] = false
	}})
	root := startPod(t, "bb", podOptions{quiet: true, namespace: ns, edit: func(pod object) {
		pod["spec"].(object)["containers"].([]any)[0].(object)["securityContext"] = object{"runAsUser": 0}
	}})
	begin := time.Now().Add(-4 * time.Hour).Truncate(time.Hour)
	p.fill(begin, begin.Add(30*time.Minute))
	kubectl(t, "label", "namespace", ns, "pod-security.kubernetes.io/enforce=restricted")
	dump := func(pod *pod, way string) (result, string) {
		file := filepath.Join(t.TempDir(), "dump.tar")
		return plugin(t, c.config, "--via", way, "--image", tools, "-n", ns, "-p", pod.name, "--min-time", "0", "--force", "-t", file), file
	}
	served := map[string]tsdbtest.Served{}
	for _, way := range []string{"debug", "remote-read"} {
		r, file := dump(p, way)
		if r.code != 0 {
			t.Fatalf("%s: exit %d: %s", way, r.code, r.stderr)
		}
		t.Logf("%s:\n%s", way, r.stderr)
		served[way] = inDump(t, file)
	}
	if n := served["debug"].Count(); n < fillSeries*60 {
		t.Errorf("%d samples", n)
	}
	if diff := tsdbtest.Diff(served["remote-read"], served["debug"]); diff != "" {
		t.Error(diff)
	}
	r, _ := dump(p, "pvc")
	if r.code != 12 || !strings.Contains(r.stderr, "lies on no PersistentVolumeClaim") || !strings.Contains(r.stderr, "--via debug") {
		t.Errorf("no claim: exit %d: %s", r.code, r.stderr)
	}
	t.Log(r.stderr)

	// What would look into a root's files is not let in.
	r, _ = dump(root, "debug")
	if r.code != 11 || !strings.Contains(r.stderr, "violates PodSecurity") || !strings.Contains(r.stderr, "a policy of the cluster refuses it") || strings.Contains(r.stderr, "kind: Role") {
		t.Errorf("root: exit %d: %s", r.code, r.stderr)
	}
	t.Log(r.stderr)
	if got := kubectl(t, "-n", ns, "get", "pod", root.name, "-o", "jsonpath={.spec.ephemeralContainers}"); got != "" {
		t.Errorf("it has %s", got)
	}
	ended(t, p, soon)
	p.unharmed(nil)
	root.unharmed(nil)
}
