//go:build linux

package kube

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// However a connection breaks, the dump is whole, or it says that it is not; and
// the container is as it was.
func TestBrokenStreams(t *testing.T) {
	data := seed(t)
	a := startPod(t, "ro", podOptions{data: data.dir, quiet: true})
	before := set(a.blocks())
	x := newProxy(t)
	config := x.config("admin")
	local := dumpedHere(t, a)
	whole, refused := 0, 0
	dump := func(what string) {
		t.Helper()
		file := filepath.Join(t.TempDir(), "dump.tar.gz")
		r := plugin(t, config, "-n", a.namespace, "-p", a.name, "--min-time", "0", "--force", "-t", file)
		switch r.code {
		case 0:
			whole++
			mustPlugin(t, "verify", file)
			if got := counts(r.stderr); got != local {
				t.Errorf("%s: %q, without a fault %q", what, got, local)
			}
		case 3:
			refused++
		default:
			t.Errorf("%s: exit %d: %s", what, r.code, r.stderr)
		}
		a.unharmed(before)
	}
	dump("no fault")
	size := x.seen().down
	for _, quiet := range []bool{false, true} {
		for _, share := range []int64{3, 20, 45, 70, 95} {
			x.inject(fault{after: size * share / 100, quiet: quiet}, 1)
			dump("cut")
			x.heal()
		}
	}
	x.inject(fault{after: size / 4}, 3)
	dump("cut three times")
	x.inject(fault{after: 200 << 10, up: true}, 1)
	dump("cut while it uploads")
	x.heal()
	x.inject(fault{after: size / 3, stall: true}, 1)
	dump("stall")
	x.heal()
	t.Logf("%d whole, %d refused; %s", whole, refused, x.seen())
	if whole < 10 {
		t.Error("dumps are not finished")
	}
}

// dumpedHere is what a dump of the same files on this machine says.
func dumpedHere(t *testing.T, p *pod) string {
	t.Helper()
	r := mustPlugin(t, "-n", p.namespace, "-p", p.name, "--min-time", "0", "-t", filepath.Join(t.TempDir(), "x.tar.gz"))
	return counts(r.stderr)
}

// The apiserver dies in the middle and comes back; so does the agent.
func TestDeaths(t *testing.T) {
	c := booted(t)
	data := seed(t)
	a := startPod(t, "ro", podOptions{data: data.dir, quiet: true})
	before := set(a.blocks())
	want := dumpedHere(t, a)
	slowly := func(t *testing.T, then func()) string {
		t.Helper()
		file := filepath.Join(t.TempDir(), "dump.tar.gz")
		cmd := pluginCommand(t, c.config, "-n", a.namespace, "-p", a.name, "--min-time", "0", "--bandwidth", "1MB", "--force", "-t", file)
		done := make(chan result, 1)
		go func() { done <- finish(t, cmd) }()
		agent := func() int {
			for _, x := range a.processes() {
				if strings.Contains(x.args, ".promdump-agent") && !strings.Contains(x.args, "sh -c") {
					return x.pid
				}
			}
			return 0
		}
		if !poll(20*time.Second, func() bool { return agent() != 0 }) {
			t.Fatal("there is no agent")
		}
		time.Sleep(time.Second) // into the middle: wherever it is, it must be mended
		then()
		r := <-done
		if r.code != 0 || counts(r.stderr) != want {
			t.Errorf("exit %d: %s", r.code, r.stderr)
		} else {
			mustPlugin(t, "verify", file)
		}
		a.unharmed(before)
		return r.stderr
	}
	t.Run("apiserver", func(t *testing.T) {
		slowly(t, func() {
			c.kill(t, "apiserver")
			c.up(t)
		})
	})
	// All of ours, parents first. A child whose parent is killed goes to the server, which
	// does not wait for it: it would stay a zombie.
	t.Run("agent", func(t *testing.T) {
		said := slowly(t, func() {
			for _, x := range a.processes() {
				if strings.Contains(x.args, ".promdump-agent") {
					_ = syscall.Kill(x.pid, syscall.SIGKILL)
				}
			}
		})
		if !strings.Contains(said, "going on in") {
			t.Errorf("another agent was not needed: %s", said)
		}
	})
}

// A connection that is lost for good leaves what came, and a later command goes on
// with it.
func TestGoOn(t *testing.T) {
	data := seed(t)
	a := startPod(t, "ro", podOptions{data: data.dir, quiet: true})
	before := set(a.blocks())
	want := dumpedHere(t, a)
	x := newProxy(t)
	config := x.config("admin")
	file := filepath.Join(t.TempDir(), "dump.tar.gz")
	// What waits in the container for a client that does not come back is short here.
	args := []string{"-n", a.namespace, "-p", a.name, "-t", file, "--reconnect-timeout", "5s"}
	if r := plugin(t, config, append(args, "--min-time", "0")...); r.code != 0 {
		t.Fatal(r.stderr)
	}
	size := x.seen().down
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	x.inject(fault{after: size * 3 / 4, quiet: true}, 1) // a reset would take back what is on its way
	cut := x.seen().cut
	done := make(chan result, 1)
	cmd := pluginCommand(t, config, append(args, "--min-time", "0")...)
	go func() { done <- finish(t, cmd) }()
	if !poll(30*time.Second, func() bool { return x.seen().cut > cut }) {
		t.Fatal("nothing was cut")
	}
	x.inject(fault{after: 1}, -1) // and every connection after that
	r := <-done
	if r.code != 3 || !strings.Contains(r.stderr, "--resume") {
		t.Fatalf("exit %d: %s", r.code, r.stderr)
	}
	if r := plugin(t, config, "verify", file+".partial"); r.code != 3 {
		t.Errorf("verify of what is there: exit %d: %s", r.code, r.stderr)
	}
	if _, err := os.Stat(file); err == nil {
		t.Error("an unfinished dump has the name of a whole one")
	}
	x.heal()
	down := x.seen().down
	if r = plugin(t, config, append(args, "--resume")...); r.code != 0 || counts(r.stderr) != want {
		t.Errorf("exit %d, %q, not %q: %s", r.code, counts(r.stderr), want, r.stderr)
	}
	if again := x.seen().down - down; again > size*3/4 {
		t.Errorf("%d of %d bytes came again", again, size)
	}
	mustPlugin(t, "verify", file)
	if _, err := os.Stat(file + ".partial"); err == nil {
		t.Error("the unfinished dump is still there")
	}
	a.unharmed(before)
}
