//go:build linux

package kube

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// agents are the processes of ours that dump, without the shells that started them.
func (p *pod) agents() (all []process) {
	p.t.Helper()
	for _, x := range p.processes() {
		if strings.Contains(x.args, ".promdump-agent") && !strings.Contains(x.args, "sh -c") {
			all = append(all, x)
		}
	}
	return all
}

// duringDump begins a dump that takes some seconds, does something once its agent
// runs, and gives what came of the dump and the name of its file.
func duringDump(t *testing.T, p *pod, do func(cmd *exec.Cmd, agent process)) (result, string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "dump.tar.gz")
	cmd := pluginCommand(t, booted(t).config, "-n", p.namespace, "-p", p.name, "--min-time", "0", "--bandwidth", "1MB", "--force", "-t", file)
	done := make(chan result, 1)
	go func() { done <- finish(t, cmd) }()
	var all []process
	if !poll(20*time.Second, func() bool { all = p.agents(); return len(all) > 0 }) {
		t.Fatalf("there is no agent: %+v", <-done)
	}
	// In the middle: something has come.
	if !poll(20*time.Second, func() bool {
		fi, err := os.Stat(file + ".partial")
		return err == nil && fi.Size() > 0
	}) {
		t.Fatal("nothing comes")
	}
	do(cmd, all[0])
	return <-done, file
}

func left(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// Ctrl-C in the middle leaves nothing on either side.
func TestInterrupt(t *testing.T) {
	a := startPod(t, "ro", podOptions{data: seed(t).dir, quiet: true})
	before := set(a.blocks())
	var temp string
	r, file := duringDump(t, a, func(cmd *exec.Cmd, _ process) {
		for _, e := range cmd.Env {
			if dir, ok := strings.CutPrefix(e, "TMPDIR="); ok {
				temp = dir
			}
		}
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Error(err)
		}
	})
	if r.code != 130 || !strings.Contains(r.stderr, "interrupted") || strings.Count(strings.TrimSpace(r.stderr), "\n") > 1 {
		t.Errorf("exit %d: %s", r.code, r.stderr)
	}
	if names := append(left(t, filepath.Dir(file)), left(t, temp)...); len(names) > 0 {
		t.Errorf("left here: %v", names)
	}
	a.unharmed(before)
	t.Logf("1 client interrupted: exit %d", r.code)
}

// A pod that nothing brings back ends the dump; what came stays.
func TestPodDeleted(t *testing.T) {
	a := startPod(t, "bb", podOptions{data: seed(t).dir, quiet: true})
	begin := time.Now()
	r, file := duringDump(t, a, func(*exec.Cmd, process) {
		begin = time.Now()
		kubectl(t, "-n", a.namespace, "delete", "pod", a.name, "--wait=false")
	})
	took := time.Since(begin)
	if r.code != 3 || !strings.Contains(r.stderr, "deleted") || !strings.Contains(r.stderr, "hint: ") || !strings.Contains(r.stderr, "--resume") {
		t.Errorf("exit %d: %s", r.code, r.stderr)
	}
	if took > 30*time.Second {
		t.Errorf("it took %s to find out", took)
	}
	if names := left(t, filepath.Dir(file)); len(names) != 1 || names[0] != "dump.tar.gz.partial" {
		t.Errorf("left here: %v", names)
	}
	if v := plugin(t, booted(t).config, "verify", file+".partial"); v.code != 3 {
		t.Errorf("verify: exit %d: %s", v.code, v.stderr)
	}
	t.Logf("1 pod deleted: exit %d after %.1f s: %s", r.code, took.Seconds(), r.stderr)
}

// leaveMemory lowers the limit of the container until so many bytes of it are left.
func (p *pod) leaveMemory(free int64) {
	p.t.Helper()
	m := p.memory()
	usage, err := m.number(m.files.usage)
	if err != nil {
		p.t.Fatal(err)
	}
	cache, err := m.stat("memory.stat", m.files.cache)
	if err != nil {
		p.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(m.dir, m.files.limit), fmt.Append(nil, usage-cache+free), 0); err != nil {
		p.t.Fatal(err)
	}
}

// Where memory is short the agent is not uploaded, and where it is tight it takes less;
// when it is killed all the same the dump goes on, and says why. The server lives through
// all of it.
func TestShortMemory(t *testing.T) {
	c := booted(t)
	a := startPod(t, "ro", podOptions{data: seed(t).dir, quiet: true})
	before := set(a.blocks())
	want := dumpedHere(t, a)
	file := filepath.Join(t.TempDir(), "dump.tar.gz")
	args := []string{"-n", a.namespace, "-p", a.name, "--via", "exec", "--min-time", "0", "--force", "-t", file}

	a.leaveMemory(20 << 20)
	r := plugin(t, c.config, append(args, "--via", "exec")...)
	if r.code != 12 || !strings.Contains(r.stderr, "MiB of memory left") || !strings.Contains(r.stderr, "so that Prometheus is not killed") || !strings.Contains(r.stderr, "hint: --via") {
		t.Errorf("exit %d: %s", r.code, r.stderr)
	}
	if names := left(t, filepath.Dir(file)); len(names) > 0 {
		t.Errorf("left here: %v", names)
	}
	a.unharmed(before)
	for _, limit := range []string{"64MiB", "24MiB"} {
		a.leaveMemory(32 << 20)
		if r = mustPlugin(t, append(args, "--via", "exec", "--memory-limit", limit)...); counts(r.stderr) != want {
			t.Errorf("with less memory, --memory-limit %s: %q, not %q", limit, counts(r.stderr), want)
		}
		a.unharmed(before)
	}

	// The kernel would take the server, which is larger and of the same score: so it is
	// done by hand.
	a.leaveMemory(150 << 20)
	r, file = duringDump(t, a, func(_ *exec.Cmd, agent process) {
		if err := unix.Kill(agent.pid, unix.SIGKILL); err != nil {
			t.Error(err)
		}
	})
	if r.code != 0 || counts(r.stderr) != want || !strings.Contains(r.stderr, "out of memory") || !strings.Contains(r.stderr, "going on in") {
		t.Errorf("exit %d: %s", r.code, r.stderr)
	} else {
		mustPlugin(t, "verify", file)
	}
	a.unharmed(before)
	t.Logf("1 agent was not uploaded, 2 took less, 1 was killed: exit %d: %s", r.code, r.stderr)
}

// leaveSpace fills a directory of the container until so many bytes are left.
func (p *pod) leaveSpace(dir string, free int64) {
	p.t.Helper()
	var disk unix.Statfs_t
	if err := unix.Statfs(p.path(dir), &disk); err != nil {
		p.t.Fatal(err)
	}
	size := int64(disk.Bavail)*disk.Bsize - free
	if size < 0 || size > 64<<20 {
		p.t.Fatalf("%s has %d bytes left: no small volume", dir, disk.Bavail)
	}
	if err := os.WriteFile(p.path(dir+"/filled"), make([]byte, size), 0o644); err != nil {
		p.t.Fatal(err)
	}
}

// withTmp gives a container a small /tmp in memory.
func withTmp(spec object) {
	of := spec["spec"].(object)
	of["volumes"] = append(of["volumes"].([]any), object{"name": "tmp", "emptyDir": object{"medium": "Memory", "sizeLimit": "32Mi"}})
	server := of["containers"].([]any)[0].(object)
	server["volumeMounts"] = append(server["volumeMounts"].([]any), object{"name": "tmp", "mountPath": "/tmp"})
}

// The agent goes where it has room and may run. Where there is no such place it is
// said in one line, and auto takes tar.
func TestPlaces(t *testing.T) {
	c := booted(t)
	data := seed(t)
	runs := 0
	for _, kind := range []string{"mem", "tar"} { // by a shell, and by tar
		t.Run(kind, func(t *testing.T) {
			o := podOptions{data: data.dir, quiet: true}
			if kind == "tar" {
				o.edit = withTmp
			}
			a := startPod(t, kind, o)
			before := set(a.blocks())
			dump := func(code int, via string, texts ...string) {
				t.Helper()
				runs++
				file := filepath.Join(t.TempDir(), "dump.tar.gz")
				r := plugin(t, c.config, "-n", a.namespace, "-p", a.name, "--via", via, "--around", at(data.head.Add(-time.Hour)), "--window", "10m", "--force", "-t", file)
				for _, text := range append(texts, "") {
					if r.code != code || !strings.Contains(r.stderr, text) || strings.Contains(r.stderr, "left in the container") {
						t.Errorf("--via %s: exit %d, not %d, %q: %s", via, r.code, code, text, r.stderr)
					}
				}
				if code == 0 && r.code == 0 {
					mustPlugin(t, "verify", file)
				} else if names := left(t, filepath.Dir(file)); len(names) > 0 {
					t.Errorf("left here: %v", names)
				}
				a.unharmed(before)
			}
			seen := func(want string) {
				t.Helper()
				runs++
				r := plugin(t, c.config, "meta", "--debug", "-n", a.namespace, "-p", a.name, "--via", "exec")
				if r.code != 0 || !strings.Contains(r.stderr, "file="+want+"/.promdump-agent-") {
					t.Errorf("exit %d, not in %s: %s", r.code, want, r.stderr)
				}
				a.unharmed(before)
			}
			dump(0, "exec")
			seen("/tmp")
			a.leaveSpace("/tmp", 1<<20)
			dump(0, "exec")
			seen(a.dataDir())
			if kind == "tar" {
				return // its root is writable: there is always a place
			}
			a.noexec(a.dataDir())
			dump(12, "exec", "MiB left (full: /tmp)", "hint: make room there; --via tar")
			dump(0, "auto", "by tar, tar in the container", "not by exec")
			a.noexec("/tmp")
			dump(12, "exec", "can be written and may execute", "hint: --via tar")
		})
	}
	t.Logf("%d uploads where places are full or may not execute", runs)
}

// What a sidecar would send away is not restored unasked.
func TestThanos(t *testing.T) {
	c := booted(t)
	data := seed(t)
	b := startPod(t, "bb", podOptions{quiet: true, edit: func(spec object) {
		of := spec["spec"].(object)
		of["containers"] = append(of["containers"].([]any), object{"name": "thanos-sidecar", "image": "rig.local/pause:1", "imagePullPolicy": "Never"})
	}})
	file := filepath.Join(t.TempDir(), "dump.tar.gz")
	l := finish(t, exec.Command(program(t, "promdump"), "dump", "-d", data.dir, "--around", at(data.head.Add(-time.Hour)), "--window", "10m", "-t", file))
	if l.code != 0 {
		t.Fatal(l.stderr)
	}
	args := []string{"restore", "-n", b.namespace, "-p", b.name, "-t", file, "--no-wait"}
	refused := func(what string) {
		t.Helper()
		r := plugin(t, c.config, args...)
		if r.code != 1 || !strings.Contains(r.stderr, "Thanos") || !strings.Contains(r.stderr, "hint: ") || !strings.Contains(r.stderr, "--allow-upload") || len(b.blocks()) > 0 {
			t.Errorf("%s: exit %d, blocks %v: %s", what, r.code, b.blocks(), r.stderr)
		}
		b.unharmed(map[string]bool{})
	}
	refused("a sidecar")
	shipper := b.path(b.dataDir() + "/thanos.shipper.json")
	if err := os.WriteFile(shipper, []byte(`{"version":1,"uploaded":[]}`), 0o644); err != nil {
		t.Fatal(err)
	}
	refused("a sidecar and its file")
	if r := mustPlugin(t, append(args, "--allow-upload")...); len(b.blocks()) == 0 {
		t.Errorf("restored no block: %s", r.stderr)
	}
	b.unharmed(nil)
	t.Log("2 restores refused, 1 allowed")
}

// list says what works, and leaves nothing in what it tries.
func TestList(t *testing.T) {
	c := booted(t)
	for kind, want := range map[string]string{"bb": "exec, tar, remote-read, debug", "tar": "exec, tar, remote-read, debug", "dl": "remote-read, debug"} {
		p := startPod(t, kind, podOptions{quiet: true})
		r := mustPlugin(t, "list", "-n", p.namespace)
		found := false
		for line := range strings.Lines(r.stdout) {
			if strings.Contains(line, p.name) {
				found = strings.HasSuffix(strings.TrimSpace(line), want) && strings.Contains(line, "/prometheus") && strings.Contains(line, "Running")
			}
		}
		t.Logf("%s:\n%s", kind, r.stdout)
		if !found {
			t.Errorf("%s is not %q:\n%s%s", kind, want, r.stdout, r.stderr)
		}
		if r = plugin(t, c.as("carol"), "list", "-n", p.namespace); r.code != 11 {
			t.Errorf("carol: exit %d: %s", r.code, r.stderr)
		}
		p.unharmed(nil)
	}
}
