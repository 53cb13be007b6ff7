//go:build linux

package kube

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// besideUnlimited adds a container without a limit, so that the pod as a whole has none
// and a debug container has all memory of the machine.
func besideUnlimited(spec object) {
	of := spec["spec"].(object)
	of["containers"] = append(of["containers"].([]any), object{"name": "pause", "image": "rig.local/pause:1", "imagePullPolicy": "Never"})
}

// limitInit gives the containers that come first a limit, so that all of the pod has one.
func limitInit(spec object) {
	for _, c := range spec["spec"].(object)["initContainers"].([]any) {
		c.(object)["resources"] = object{"limits": object{"memory": "64Mi"}}
	}
}

// If the container is short of memory, a named method refuses before anything is
// uploaded. auto goes on to a method that is not charged to the server: a debug container
// if the pod has no memory limit, remote read otherwise.
func TestShortMemoryIsSeenFirst(t *testing.T) {
	c := booted(t)
	for _, one := range []struct {
		name, by, hint string
		edit           func(object)
	}{
		{"the pod has no limit", "by debug, an agent in a debug container", "--via debug runs the agent in a container of its own, --via remote-read asks the server itself", besideUnlimited},
		{"all of the pod is limited", "by remote-read, the server itself", "--via remote-read asks the server itself", limitInit},
	} {
		program(t, "promdump") // built before anything is measured
		a := startPod(t, "ro", podOptions{data: seed(t).dir, quiet: true, edit: one.edit})
		before := set(a.blocks())
		load := newBallast(t, a)
		// What promdump computes from the pod's spec is what the kubelet does.
		above := memoryGroup{filepath.Dir(load.group.dir), load.group.files}
		if limit, err := above.number(above.files.limit); (err == nil && limit == 256<<20) != (one.by[3] == 'r') {
			t.Errorf("%s: the pod's cgroup has a limit of %d bytes: %v", one.name, limit, err)
		}
		args := func(file, way string) []string {
			return []string{"-n", a.namespace, "-p", a.name, "-c", a.container, "--via", way, "--image", tools, "--since", "30m", "--force", "-t", file}
		}
		file := filepath.Join(t.TempDir(), "dump.tar.gz")
		for _, way := range []string{"exec", "tar"} {
			free := map[string]int64{"exec": 12, "tar": 5}[way] << 20
			load.leave(t, free)
			usage, err := load.group.number(load.group.files.usage)
			if err != nil {
				t.Fatal(err)
			}
			load.group.restartPeak()
			r := plugin(t, c.config, append(args(file, way), "--debug")...)
			peak, err := load.group.number(load.group.files.peak)
			if err != nil {
				t.Fatal(err)
			}
			if r.code != 12 || !strings.Contains(r.stderr, "of its 256 MiB of memory left (by its cgroup), and --via "+way+" needs") ||
				!strings.Contains(r.stderr, "nothing was uploaded") || strings.Contains(r.stderr, "agent's place") || !strings.Contains(r.stderr, "hint: "+one.hint) {
				t.Errorf("%s, --via %s: exit %d: %s", one.name, way, r.code, r.stderr)
			}
			// That of cat, see docs/security.md, and what the server itself does meanwhile.
			if load.group.version() == 1 && peak-usage > 5<<20 {
				t.Errorf("%s, --via %s: %d bytes were charged to the container", one.name, way, peak-usage)
			}
			t.Logf("%s, --via %s, %d MiB free: charged at most %.1f MiB: %s", one.name, way, free>>20, float64(peak-usage)/(1<<20), r.stderr)
		}
		load.leave(t, 12<<20)
		r := mustPlugin(t, args(file, "auto")...)
		if !strings.Contains(r.stderr, one.by) || !strings.Contains(r.stderr, "not by exec: the container has ") {
			t.Errorf("%s: %s", one.name, r.stderr)
		}
		mustPlugin(t, "verify", file)
		t.Logf("%s: %s", one.name, r.stderr)
		a.unharmed(before)
	}
}

// A server that is killed in the middle of a dump ends the dump, which says so first. The
// server that starts is left alone.
func TestServerKilledDuringDump(t *testing.T) {
	for _, one := range []struct {
		name string
		kill func(a *pod)
		want string
	}{
		{"killed", func(a *pod) {
			if err := unix.Kill(a.host(), unix.SIGKILL); err != nil {
				t.Error(err)
			}
		}, "(Error) during the dump"},
		{"out of memory", func(a *pod) {
			m := a.memory()
			// Whoever grows beyond the limit is killed, and the server is the largest.
			load := newBallast(t, a)
			limit, err := m.number(m.files.limit)
			if err != nil {
				t.Fatal(err)
			}
			if err := load.grow(limit); err == nil {
				t.Error("the container may use more than its limit")
			}
		}, "(OOMKilled) during the dump"},
	} {
		a := startPod(t, "ro", podOptions{data: seed(t).dir, quiet: true})
		r, file := duringDump(t, a, func(*exec.Cmd, process) { one.kill(a) })
		line := said(r.stderr)
		if r.code != 3 || !strings.HasPrefix(line, "the Prometheus container ") || !strings.Contains(line, one.want) || !strings.Contains(r.stderr, "--resume") {
			t.Errorf("%s: exit %d, first %q: %s", one.name, r.code, line, r.stderr)
		}
		t.Logf("%s: exit %d: %s", one.name, r.code, r.stderr)
		if v := plugin(t, booted(t).config, "verify", file+".partial"); v.code != 3 {
			t.Errorf("verify: exit %d: %s", v.code, v.stderr)
		}
		if !poll(90*time.Second, func() bool {
			s, err := a.status()
			return err == nil && s.RestartCount > 0 && s.State["running"] != nil
		}) {
			t.Fatalf("%s: it does not come back: %s", one.name, a.describe())
		}
		for _, x := range a.processes() {
			if strings.Contains(x.args+x.name, "promdump") {
				t.Errorf("%s: in the server that starts: %s", one.name, x)
			}
		}
		if n := a.restarts(); n != 1 {
			t.Errorf("%s: restarted %d times", one.name, n)
		}
	}
}

// said is the line of the error: notes come before it, and the hint behind.
func said(stderr string) string {
	for line := range strings.Lines(stderr) {
		if text, ok := strings.CutPrefix(line, "kubectl promdump: "); ok {
			return text
		}
	}
	return ""
}
