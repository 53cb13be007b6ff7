//go:build linux

package kube

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/promdump/promdump/internal/tsdbtest"
)

// tools is an image of the rig with a shell.
const tools = "rig.local/tools:1"

// files mounts a directory of this machine into the server's container, and adds
// to its arguments.
func files(dir, at string, args ...any) func(object) {
	return func(pod object) {
		spec := pod["spec"].(object)
		spec["volumes"] = append(spec["volumes"].([]any), object{"name": "files", "hostPath": object{"path": dir, "type": "Directory"}})
		c := spec["containers"].([]any)[0].(object)
		c["volumeMounts"] = append(c["volumeMounts"].([]any), object{"name": "files", "mountPath": at, "readOnly": true})
		c["args"] = append(c["args"].([]any), args...)
	}
}

// readable is a directory that servers in pods can read.
func readable(t *testing.T, content map[string]string) string {
	t.Helper()
	dir, err := os.MkdirTemp(booted(t).dir, "seed-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range content {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// inDump are the samples of a dump file.
func inDump(t *testing.T, file string) tsdbtest.Served {
	t.Helper()
	dir := t.TempDir()
	if out, err := exec.Command("tar", "-xf", file, "-C", dir).CombinedOutput(); err != nil {
		t.Fatalf("tar: %v\n%s", err, out)
	}
	return tsdbtest.SamplesDir(t, dir, tsdbtest.Everything())
}

// slice is a part of the seed: a fifth of its series, the head and the block before,
// both cut.
func slice(d dataset) []string {
	return []string{"--start-time", at(d.head.Add(-70 * time.Minute)), "--end-time", at(d.head.Add(40 * time.Minute)), "--match", `{namespace=~".*[78]"}`}
}

// sliceHere is the same by promdump itself, of the seed on this machine.
func sliceHere(t *testing.T, d dataset) tsdbtest.Served {
	t.Helper()
	file := filepath.Join(t.TempDir(), "here.tar")
	r := finish(t, exec.Command(program(t, "promdump"), append([]string{"dump", "-d", d.dir, "-t", file}, slice(d)...)...))
	if r.code != 0 {
		t.Fatal(r.stderr)
	}
	served := inDump(t, file)
	histograms := 0
	for name := range served {
		if strings.Contains(name, "zzz_rpc_duration_seconds") {
			histograms++
		}
	}
	if served.Count() < 10_000 || histograms == 0 {
		t.Fatalf("the slice has %d samples, %d histograms", served.Count(), histograms)
	}
	return served
}

// A distroless image under a read-only root, as it is by default out there: with no
// flags it works, and each way gives the same.
func TestDistroless(t *testing.T) {
	c := booted(t)
	data := seed(t)
	config := readable(t, map[string]string{"prometheus.yml": "global: {external_labels: {cluster: rig, replica: a}}\nstorage: {tsdb: {out_of_order_time_window: 48h}}\n"})
	p := startPod(t, "stack", podOptions{data: data.dir, edit: func(pod object) {
		files(config, "/config")(pod)
		pod["spec"].(object)["containers"].([]any)[0].(object)["args"].([]any)[0] = "--config.file=/config/prometheus.yml"
	}})
	before := set(p.blocks())
	want := sliceHere(t, data)
	where := []string{"-n", p.namespace, "-p", p.name}
	dump := func(what, by string, args ...string) {
		t.Helper()
		file := filepath.Join(t.TempDir(), "dump.tar")
		r := plugin(t, c.config, append(append(append([]string{"--image", tools, "--force", "-t", file}, where...), slice(data)...), args...)...)
		if r.code != 0 {
			t.Fatalf("%s: exit %d: %s", what, r.code, r.stderr)
		}
		if t.Logf("%s:\n%s", what, r.stderr); !strings.Contains(r.stderr, by) {
			t.Errorf("%s: not %s", what, by)
		}
		mustPlugin(t, "verify", file)
		if diff := tsdbtest.Diff(want, inDump(t, file)); diff != "" {
			t.Errorf("%s: %s", what, diff)
		}
	}
	dump("no flags", "by remote-read, ")
	dump("debug", "stays in the pod's spec until the pod is deleted", "--via", "debug")
	// What remote read cannot give comes by a debug container, without a question.
	file := filepath.Join(t.TempDir(), "raw.tar")
	r := plugin(t, c.config, append([]string{"--image", tools, "--min-time", "0", "--head", "raw", "--force", "-t", file}, where...)...)
	if r.code != 0 || !strings.Contains(r.stderr, "by debug, ") {
		t.Errorf("raw head: exit %d: %s", r.code, r.stderr)
	}
	meta := mustPlugin(t, append([]string{"meta"}, where...)...)
	if !strings.Contains(meta.stdout, "Total number of blocks") || !strings.Contains(meta.stderr, "by remote-read, ") {
		t.Errorf("meta: %s%s", meta.stderr, meta.stdout)
	}
	list := mustPlugin(t, "list", "-n", p.namespace, "-l", "operator.prometheus.io/name=stack")
	if !strings.Contains(list.stdout, "remote-read, debug") || strings.Contains(list.stdout, "exec") {
		t.Errorf("list: %s", list.stdout)
	}
	mounts := kubectl(t, "-n", p.namespace, "get", "pod", p.name, "-o", "jsonpath={.spec.ephemeralContainers[*].volumeMounts}")
	if got := strings.Count(mounts, `"readOnly":true`); got == 0 || got != strings.Count(mounts, `"mountPath"`) {
		t.Errorf("a dump can write into the data dir: %s", mounts)
	}
	t.Logf("list:\n%smeta:\n%s%s", list.stdout, meta.stderr, meta.stdout)
	p.unharmed(before)

	// Restore goes the same way, into a server that looks for blocks often.
	to := startPod(t, "stack", podOptions{quiet: true, edit: func(pod object) {
		c := pod["spec"].(object)["containers"].([]any)[0].(object)
		c["args"] = append(c["args"].([]any), "--storage.tsdb.block-reload-interval=2s")
	}})
	r = plugin(t, c.config, "restore", "--image", tools, "-n", to.namespace, "-p", to.name, "-t", file)
	if r.code != 0 || !strings.Contains(r.stderr, "debug container") {
		t.Fatalf("restore: exit %d: %s", r.code, r.stderr)
	}
	t.Logf("restore:\n%s", r.stderr)
	same(t, p, to, `{__name__=~".+",namespace=~".*[78]"}`, data.from, data.to)
	ended(t, p, soon)
	ended(t, to, soon)
	to.unharmed(nil)
}

// soon is far more than it takes, also where many wait for a processor.
const soon = time.Minute

// ended waits until no debug container of the pod runs any more.
func ended(t *testing.T, p *pod, limit time.Duration) {
	t.Helper()
	running := func() string {
		return kubectl(t, "-n", p.namespace, "get", "pod", p.name, "-o", "jsonpath={range .status.ephemeralContainerStatuses[*]}{.name}: {.state.running}{'\\n'}{end}")
	}
	var last string
	if !poll(limit, func() bool { last = running(); return !strings.Contains(last, "startedAt") }) {
		t.Errorf("debug containers of %s still run: %s", p.name, last)
	}
}

// What one may do decides which way is taken.
func TestWaysByRights(t *testing.T) {
	c := booted(t)
	data := seed(t)
	ns := namespace(t)
	p := startPod(t, "stack", podOptions{data: data.dir, quiet: true, namespace: ns})
	b := startPod(t, "ro", podOptions{data: data.dir, quiet: true, namespace: ns})
	want := sliceHere(t, data)
	dump := func(t *testing.T, pod *pod, by string, args ...string) {
		t.Helper()
		file := filepath.Join(t.TempDir(), "dump.tar")
		r := plugin(t, c.as("carol"), append(append([]string{"--image", tools, "-n", ns, "-p", pod.name, "--force", "-t", file}, slice(data)...), args...)...)
		if r.code != 0 || !strings.Contains(r.stderr, by) {
			t.Fatalf("exit %d: %s", r.code, r.stderr)
		}
		t.Log(r.stderr)
		if diff := tsdbtest.Diff(want, inDump(t, file)); diff != "" {
			t.Error(diff)
		}
	}
	nothing := func(t *testing.T, args ...string) {
		t.Helper()
		r := plugin(t, c.as("carol"), append([]string{"-n", ns, "-p", p.name, "--since", "1h", "-t", filepath.Join(t.TempDir(), "x")}, args...)...)
		for _, part := range []string{"not permitted: carol may not", "exec: ", "tar: ", "remote-read: ", "debug: ", "pvc: ", "name: promdump-exec,", "name: promdump-forward,", "name: promdump-debug,"} {
			if r.code != 11 || !strings.Contains(r.stderr, part) {
				t.Errorf("exit %d, no %q: %s", r.code, part, r.stderr)
			}
		}
		t.Log(r.stderr)
	}
	t.Run("nothing", func(t *testing.T) { nothing(t) })
	t.Run("only to look", func(t *testing.T) {
		grant(t, "carol", ns, "get,list", "pods")
		nothing(t)
	})
	t.Run("only a port", func(t *testing.T) {
		grant(t, "carol", ns, "get,list", "pods")
		grant(t, "carol", ns, "create", "pods/portforward")
		dump(t, p, "by remote-read, ")
		dump(t, b, "by remote-read, ") // it has a shell that carol may not use
	})
	t.Run("only debug containers", func(t *testing.T) {
		grant(t, "carol", ns, "get,list", "pods")
		grant(t, "carol", ns, "patch", "pods/ephemeralcontainers")
		grant(t, "carol", ns, "create", "pods/exec")
		dump(t, p, "by debug, ")
		r := plugin(t, c.as("carol"), "-n", ns, "-p", p.name, "--since", "1h", "--via", "remote-read", "-t", filepath.Join(t.TempDir(), "x"))
		if r.code != 11 || !strings.Contains(r.stderr, "name: promdump-forward,") {
			t.Errorf("remote-read: exit %d: %s", r.code, r.stderr)
		}
		// An image that is not there is told, and nothing is left.
		r = plugin(t, c.as("carol"), "-n", ns, "-p", b.name, "--since", "1h", "--via", "debug", "--image", "rig.local/none:1", "-t", filepath.Join(t.TempDir(), "x"))
		if r.code != 12 || !strings.Contains(r.stderr, "ImagePullBackOff") || !strings.Contains(r.stderr, "--image") {
			t.Errorf("no image: exit %d: %s", r.code, r.stderr)
		}
		t.Log(r.stderr)
	})
	ended(t, p, soon)
}

// crashing is a Prometheus that ends as soon as it starts, with its data on a claim.
// There are no controllers: what binds claims is done here.
func crashing(t *testing.T, data dataset) *pod {
	t.Helper()
	ns := namespace(t)
	disk := readable(t, nil)
	if err := os.Chmod(disk, 0o777); err != nil {
		t.Fatal(err)
	}
	create := func(what object) (uid string) {
		b, err := json.Marshal(what)
		if err != nil {
			t.Fatal(err)
		}
		return kubectlIn(t, string(b), "create", "-o", "jsonpath={.metadata.uid}", "-f", "-")
	}
	capacity := object{"storage": "1Gi"}
	modes := []any{"ReadWriteOnce"}
	uid := create(object{"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": object{"namespace": ns, "name": "db"}, "spec": object{
		"accessModes": modes, "storageClassName": "", "volumeName": ns, "resources": object{"requests": capacity},
	}})
	create(object{"apiVersion": "v1", "kind": "PersistentVolume", "metadata": object{"name": ns}, "spec": object{
		"capacity": capacity, "accessModes": modes, "storageClassName": "", "persistentVolumeReclaimPolicy": "Retain", "hostPath": object{"path": disk, "type": "Directory"},
		"claimRef": object{"apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": ns, "name": "db", "uid": uid},
	}})
	kubectl(t, "patch", "pv", ns, "--subresource=status", "--type=merge", "-p", `{"status":{"phase":"Bound"}}`)
	kubectl(t, "-n", ns, "patch", "pvc", "db", "--subresource=status", "--type=merge", "-p", `{"status":{"phase":"Bound","accessModes":["ReadWriteOnce"],"capacity":{"storage":"1Gi"}}}`)
	t.Cleanup(func() {
		for _, args := range [][]string{{"-n", ns, "pvc", "db"}, {"pv", ns}} {
			name := args[len(args)-2:]
			kubectl(t, append(args[:len(args)-2], append([]string{"patch"}, append(name, "--type=merge", "-p", `{"metadata":{"finalizers":null}}`)...)...)...)
			kubectl(t, append(args[:len(args)-2], append([]string{"delete", "--wait=false"}, name...)...)...)
		}
	})
	p := startPod(t, "stack", podOptions{data: data.dir, namespace: ns, unready: true, edit: func(pod object) {
		spec := pod["spec"].(object)
		spec["volumes"].([]any)[0] = object{"name": "data", "persistentVolumeClaim": object{"claimName": "db"}}
		c := spec["containers"].([]any)[0].(object)
		c["args"] = append(c["args"].([]any), "--no-such-flag")
	}})
	if !poll(3*time.Minute, func() bool {
		return strings.Contains(kubectl(t, "-n", ns, "get", "pod", p.name, "-o", "jsonpath={.status.containerStatuses[0].state}"), "CrashLoopBackOff")
	}) {
		t.Fatalf("it does not crash: %s", p.describe())
	}
	return p
}

// A server that crashes again and again is often the incident itself. Its data
// comes by a debug container and by a pod with its volume, and what runs for it
// ends, also when its client is killed.
func TestCrashLoop(t *testing.T) {
	c := booted(t)
	data := seed(t)
	p := crashing(t, data)
	want := sliceHere(t, data)
	own, wrong := ownImages(t)
	where := []string{"-n", p.namespace, "-p", p.name}
	pods := func() string {
		return kubectl(t, "-n", p.namespace, "get", "pods", "-l", "app.kubernetes.io/managed-by=promdump", "-o", "jsonpath={range .items[*]}{.metadata.name} {.status.phase}{'\\n'}{end}")
	}

	// Killed first: what is left of it ends while the rest of the test runs.
	for _, way := range [][]string{{"debug", tools}, {"pvc", tools}, {"debug", own}, {"pvc", own}} {
		cmd := pluginCommand(t, c.config, append([]string{"--via", way[0], "--image", way[1], "--min-time", "0",
			"--bandwidth", "100kB", "--reconnect-timeout", "5s", "-t", filepath.Join(t.TempDir(), "x.tar")}, where...)...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if !poll(2*soon, func() bool { return len(agents(t)) > 0 }) {
			t.Errorf("no agent by %v", way)
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Error(err)
		}
		_ = cmd.Wait()
		if !poll(soon, func() bool { return len(agents(t)) == 0 }) {
			t.Errorf("the agent lives on: %v", agents(t))
		}
	}
	killed := time.Now()

	for _, way := range [][]string{{"auto", tools}, {"debug", tools}, {"pvc", tools}, {"debug", own}, {"pvc", own}} {
		file := filepath.Join(t.TempDir(), "dump.tar")
		r := plugin(t, c.config, append(append([]string{"--via", way[0], "--image", way[1], "--force", "-t", file}, where...), slice(data)...)...)
		if r.code != 0 {
			t.Errorf("%v: exit %d: %s", way, r.code, r.stderr)
			continue
		}
		t.Logf("%v:\n%s", way, r.stderr)
		if diff := tsdbtest.Diff(want, inDump(t, file)); diff != "" {
			t.Errorf("%v: %s", way, diff)
		}
	}
	for _, way := range []string{"exec", "remote-read"} {
		var r result
		if !poll(soon, func() bool { // it runs for a moment, again and again
			r = plugin(t, c.config, append(append([]string{"--via", way, "-t", filepath.Join(t.TempDir(), "x")}, where...), slice(data)...)...)
			// For up to a minute the kubelet says how it ended, and not that it waits.
			state := strings.Contains(r.stderr, "is not running: CrashLoopBackOff") || strings.Contains(r.stderr, "is not running: Error, exit code 1")
			return r.code == 10 && state && strings.Contains(r.stderr, "--via debug") && strings.Contains(r.stderr, "--via pvc")
		}) {
			t.Errorf("%s: exit %d: %s", way, r.code, r.stderr)
		}
		t.Log(r.stderr)
	}
	for _, way := range []string{"debug", "pvc"} {
		r := plugin(t, c.config, append(append([]string{"--via", way, "--image", wrong, "-t", filepath.Join(t.TempDir(), "x")}, where...), slice(data)...)...)
		if r.code != 12 || !strings.Contains(r.stderr, "promdump-agent") || !strings.Contains(r.stderr, "--image") {
			t.Errorf("an image that has promdump's name alone, by %s: exit %d: %s", way, r.code, r.stderr)
		}
		t.Log(r.stderr)
	}
	list := mustPlugin(t, "list", "-n", p.namespace)
	if !strings.Contains(list.stdout, "debug, pvc") {
		t.Errorf("list: %s", list.stdout)
	}
	t.Log(list.stdout)

	// A user who interrupts it leaves no pod.
	before := pods()
	cmd := pluginCommand(t, c.config, append([]string{"--via", "pvc", "--image", tools, "--min-time", "0", "--bandwidth", "100kB", "-t", filepath.Join(t.TempDir(), "x.tar")}, where...)...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if !poll(2*soon, func() bool { return len(agents(t)) > 0 }) {
		t.Error("no agent")
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Error(err)
	}
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 130 {
		t.Errorf("interrupted: exit %d", code)
	}
	for line := range strings.Lines(pods()) {
		if name, _, _ := strings.Cut(line, " "); !strings.Contains(before, name) {
			t.Errorf("a pod of ours: %s", line)
		}
	}

	// What was killed takes a minute and a half to end. Meanwhile:
	t.Run("web config", webConfig)
	t.Run("broken forwards", brokenForwards)

	const late = 4 * time.Minute
	ended(t, p, time.Until(killed.Add(late)))
	if !poll(time.Until(killed.Add(late)), func() bool { return !strings.Contains(pods(), "Running") }) {
		t.Errorf("the pod of a killed client runs: %s", pods())
	}
	t.Logf("all has ended %.0f s after the clients were killed; %s", time.Since(killed).Seconds(), pods())
	mustPlugin(t, append(append([]string{"--via", "pvc", "--image", tools, "-t", filepath.Join(t.TempDir(), "y")}, where...), slice(data)...)...)
	if got := pods(); got != "" {
		t.Errorf("pods that have ended are not removed by the next run: %s", got)
	}
}

// agents are those that run in any container of this machine.
func agents(t *testing.T) (all []string) {
	t.Helper()
	numbers, err := pids()
	if err != nil {
		t.Fatal(err)
	}
	for _, pid := range numbers {
		x := readProcess(pid)
		started := strings.Contains(x.args, ".promdump-agent") || strings.HasPrefix(x.args, "promdump-agent start")
		if started && !strings.Contains(x.args, "sh -c") && x.inside != pid {
			all = append(all, x.String())
		}
	}
	return all
}
