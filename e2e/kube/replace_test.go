//go:build linux

package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// owned makes a pod look like a StatefulSet's, with its data dir on a volume that
// outlives it. There are no controllers here: the test is the controller.
func owned(t *testing.T) func(object) {
	t.Helper()
	name := fmt.Sprintf("prom-%06x", rand.IntN(1<<24))
	set := object{
		"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": object{"name": name, "namespace": "mon"},
		"spec": object{
			"serviceName": name, "selector": object{"matchLabels": object{"set": name}},
			"template": object{"metadata": object{"labels": object{"set": name}}, "spec": object{"containers": []any{object{"name": "x", "image": "x"}}}},
		},
	}
	b, err := json.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	uid := kubectlIn(t, string(b), "create", "-o", "jsonpath={.metadata.uid}", "-f", "-")
	t.Cleanup(func() { kubectl(t, "-n", "mon", "delete", "statefulset", name, "--cascade=background") })
	dir, err := os.MkdirTemp(booted(t).dir, "seed-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	return func(pod object) {
		pod["metadata"].(object)["ownerReferences"] = []any{object{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": name, "uid": uid, "controller": true}}
		volume := pod["spec"].(object)["volumes"].([]any)[0].(object)
		delete(volume, "emptyDir")
		volume["hostPath"] = object{"path": dir, "type": "Directory"}
	}
}

// controller makes the pod again when it is gone, once: without the container that
// brought the data.
func (p *pod) controller(ctx context.Context) <-chan error {
	c := p.cluster
	out, err := c.command(ctx, c.config, "-n", p.namespace, "get", "pod", p.name, "-o", "json").Output()
	again := make(chan error, 1)
	var one object
	if err == nil {
		err = json.Unmarshal(out, &one)
	}
	if err != nil {
		again <- err
		return again
	}
	meta := one["metadata"].(object)
	spec := one["spec"].(object)
	delete(spec, "initContainers")
	delete(spec, "ephemeralContainers")
	b, err := json.Marshal(object{
		"apiVersion": "v1", "kind": "Pod", "spec": spec,
		"metadata": object{"name": meta["name"], "namespace": meta["namespace"], "labels": meta["labels"], "annotations": meta["annotations"], "ownerReferences": meta["ownerReferences"]},
	})
	if err != nil {
		again <- err
		return again
	}
	go func() {
		for ctx.Err() == nil {
			out, err := c.command(ctx, c.config, "-n", p.namespace, "get", "pod", p.name, "--ignore-not-found", "-o", "name").Output()
			if err == nil && len(out) == 0 {
				create := c.command(ctx, c.config, "create", "-f", "-")
				create.Stdin = strings.NewReader(string(b))
				out, err := create.CombinedOutput()
				if err != nil {
					err = fmt.Errorf("%w: %s", err, out)
				}
				again <- err
				return
			}
			time.Sleep(200 * time.Millisecond)
		}
		again <- ctx.Err()
	}()
	return again
}

func (p *pod) uid() string {
	return kubectl(p.t, "-n", p.namespace, "get", "pod", p.name, "-o", "jsonpath={.metadata.uid}")
}

// The first promdump's way: what is there goes, the dump takes its place with its
// head as it is, and the server is restarted.
func TestReplaceAndRestart(t *testing.T) {
	data := seed(t)
	a := startPod(t, "ro", podOptions{data: data.dir, quiet: true})
	file := filepath.Join(t.TempDir(), "dump.tar.gz")
	mustPlugin(t, "-n", a.namespace, "-p", a.name, "--min-time", "0", "--head=raw", "-t", file)

	b := startPod(t, "bb", podOptions{quiet: true, edit: owned(t)})
	begin := data.from
	b.fill(begin, begin.Add(7*time.Hour)) // its own, in blocks and head
	old, uid := b.blocks(), b.uid()
	if len(old) == 0 || b.number("count(filled_0)", begin.Add(time.Hour)) == 0 {
		t.Fatal("it has nothing to lose")
	}
	where := []string{"restore", "-n", b.namespace, "-p", b.name, "-t", file, "--replace", "--restart"}

	dry := mustPlugin(t, append(where, "--dry-run")...)
	for _, name := range append(old, "To remove:", "wal", "the pod is deleted") {
		if !strings.Contains(dry.stdout, name) {
			t.Errorf("--dry-run does not tell of %s:\n%s", name, dry.stdout)
		}
	}
	if r := plugin(t, booted(t).config, where...); r.code != 2 || !strings.Contains(r.stderr, "there is nobody to ask") {
		t.Errorf("it does not ask: exit %d: %s", r.code, r.stderr)
	}
	if b.uid() != uid || !slices.Equal(b.blocks(), old) {
		t.Error("something was done before that was agreed to")
	}

	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	again := b.controller(ctx)
	r := mustPlugin(t, append(where, "--yes")...)
	t.Logf("%s%s", dry.stdout, r.stderr)
	if err := <-again; err != nil {
		t.Fatal(err)
	}
	b.client.CloseIdleConnections()
	b.ready()
	if b.uid() == uid {
		t.Error("it was not restarted")
	}
	if !strings.Contains(r.stderr, "the head's files") || !strings.Contains(r.stderr, "the server serves them") {
		t.Errorf("it says %q", r.stderr)
	}
	same(t, a, b, `{__name__=~".+"}`, data.from, data.to.Add(time.Millisecond))
	if n := b.samples(`{__name__=~"filled_.*"}`, begin, begin.Add(7*time.Hour)); n != 0 {
		t.Errorf("%d samples of the old are served", n)
	}
	for _, name := range b.blocks() {
		if slices.Contains(old, name) {
			t.Errorf("block %s is still there", name)
		}
	}
	b.unharmed(nil)
}

// What cannot be restarted, or may not be, is told before a byte is sent.
func TestReplaceRefused(t *testing.T) {
	c := booted(t)
	data := seed(t)
	a := startPod(t, "bb", podOptions{data: data.dir, quiet: true})
	file := filepath.Join(t.TempDir(), "dump.tar.gz")
	mustPlugin(t, "-n", a.namespace, "-p", a.name, "--min-time", "0", "--head=raw", "-t", file)
	before := a.blocks()
	r := plugin(t, c.config, "restore", "-n", a.namespace, "-p", a.name, "-t", file, "--replace", "--restart", "--yes")
	if r.code != 1 || !strings.Contains(r.stderr, "it belongs to no controller") || !strings.Contains(r.stderr, "-- kill 1") {
		t.Errorf("a bare pod: exit %d: %s", r.code, r.stderr)
	}
	t.Log(r.stderr)
	if dry := mustPlugin(t, "restore", "-n", a.namespace, "-p", a.name, "-t", file, "--replace", "--restart", "--dry-run"); !strings.Contains(dry.stdout, "Will be refused: restart pod "+a.namespace+"/"+a.name) || !strings.Contains(dry.stdout, "To remove:") {
		t.Errorf("--dry-run says\n%s", dry.stdout)
	}
	b := startPod(t, "bb", podOptions{quiet: true, edit: owned(t)})
	where := []string{"-n", b.namespace, "-p", b.name, "-t", file, "--replace", "--yes"}
	r = plugin(t, c.as("bob"), append([]string{"restore", "--restart"}, where...)...)
	if r.code != 11 || !strings.Contains(r.stderr, "may not delete pods") || !strings.Contains(r.stderr, "promdump-restart") {
		t.Errorf("bob: exit %d: %s", r.code, r.stderr)
	}
	a.unharmed(set(before))
	b.unharmed(map[string]bool{})

	// Without the restart it is replaced, and said how to go on. The container is
	// restarted by what is said.
	r = mustPlugin(t, "restore", "-n", a.namespace, "-p", a.name, "-t", file, "--replace", "--yes")
	command := fmt.Sprintf("kubectl exec -n %s %s -c %s -- kill 1", a.namespace, a.name, a.container)
	if !strings.Contains(r.stderr, "restart it now: "+command) {
		t.Errorf("it says %q", r.stderr)
	}
	kubectl(t, strings.Fields(command)[1:]...)
	if !poll(60*time.Second, func() bool {
		s, err := a.status()
		return err == nil && s.RestartCount == 1 && s.State["running"] != nil
	}) {
		t.Fatal(a.describe())
	}
	a.client.CloseIdleConnections()
	a.ready()
	if got, want := a.samples(`{job="kubernetes-pods"}`, data.from, data.to.Add(time.Millisecond)), data.size.BlockSamples+data.size.HeadSamples; got != want {
		t.Errorf("%d samples, not %d", got, want)
	}
}

// A container without a shell: a debug container cannot hold the server, so that it
// takes the restart.
func TestReplaceByDebug(t *testing.T) {
	data := seed(t)
	file := filepath.Join(t.TempDir(), "dump.tar")
	if r := finish(t, exec.Command(program(t, "promdump"), "dump", "-d", data.dir, "--min-time", "0", "--head=raw", "-t", file)); r.code != 0 {
		t.Fatal(r.stderr)
	}
	b := startPod(t, "stack", podOptions{quiet: true, edit: owned(t)})
	b.fill(data.from, data.from.Add(10*time.Minute))
	uid := b.uid()
	where := []string{"restore", "--image", tools, "-n", b.namespace, "-p", b.name, "-t", file, "--replace", "--yes"}
	r := plugin(t, booted(t).config, where...)
	if r.code != 1 || !strings.Contains(r.stderr, "from a debug container the server cannot be kept") || !strings.Contains(r.stderr, "add --restart") {
		t.Errorf("no restart: exit %d: %s", r.code, r.stderr)
	}
	t.Log(r.stderr)
	if n := b.samples(`{__name__=~"filled_.*"}`, data.from, data.to); n == 0 || b.uid() != uid {
		t.Error("something was done")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	again := b.controller(ctx)
	r = mustPlugin(t, append(where, "--restart")...)
	t.Log(r.stderr)
	if err := <-again; err != nil {
		t.Fatal(err)
	}
	b.client.CloseIdleConnections()
	b.ready()
	if got, want := b.samples(`{job="kubernetes-pods"}`, data.from, data.to.Add(time.Millisecond)), data.size.BlockSamples+data.size.HeadSamples; got != want {
		t.Errorf("%d samples, not %d", got, want)
	}
	if n := b.samples(`{__name__=~"filled_.*"}`, data.from, data.to); n != 0 {
		t.Errorf("%d samples of the old are served", n)
	}
	for name := range b.files(b.dataDir()) {
		if strings.Contains(name, "promdump-replaced-") {
			t.Errorf("what was there still is: %s", name)
		}
	}
	ended(t, b, soon)
	b.unharmed(nil)
}
