//go:build linux

package kube

import (
	"fmt"
	"io/fs"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The proxy's faults reach a stream of kubectl exec.
func TestFaults(t *testing.T) {
	c := booted(t)
	p := startPod(t, "bb", podOptions{quiet: true})
	x := newProxy(t)
	config := x.config("admin")
	const size = 20 << 20
	if r := p.exec("sh", "-c", fmt.Sprintf("head -c %d /dev/zero > /tmp/big", size)); r.code != 0 {
		t.Fatalf("%+v", r)
	}
	cat := func() result { return p.execBy(config, "cat", "/tmp/big") }
	begin := time.Now()
	if r := cat(); r.code != 0 || len(r.stdout) != size {
		t.Fatalf("without a fault: exit %d after %d bytes: %s", r.code, len(r.stdout), r.stderr)
	}
	t.Logf("20 MiB came in %.1f s; %s", time.Since(begin).Seconds(), x.seen())
	for _, quiet := range []bool{false, true} {
		for _, after := range []int64{64 << 10, 5 << 20, size - 1} {
			x.inject(fault{after: after, quiet: quiet}, 1)
			cut := x.seen().cut
			r := cat()
			if len(r.stdout) >= size || x.seen().cut != cut+1 {
				t.Errorf("cut after %d: %d bytes came; %s", after, len(r.stdout), x.seen())
			}
			t.Logf("cut after %8d, quiet %5v: %8d bytes, exit %d, %q", after, quiet, len(r.stdout), r.code, strings.TrimSpace(r.stderr))
		}
	}
	x.inject(fault{after: 1 << 20, stall: true}, 1)
	done := make(chan result, 1)
	go func() { done <- cat() }()
	if !poll(20*time.Second, func() bool { return x.seen().stalled == 1 }) {
		t.Errorf("no stall: %s", x.seen())
	}
	select {
	case r := <-done:
		t.Errorf("a stalled stream ended: exit %d after %d bytes", r.code, len(r.stdout))
	case <-time.After(time.Second):
	}
	x.heal()
	if r := <-done; r.code != 0 || len(r.stdout) != size {
		t.Errorf("a healed stream: exit %d after %d bytes", r.code, len(r.stdout))
	}
	x.slow(5 << 20)
	begin = time.Now()
	// kubectl exec can lose the end of a stream and exit with 0 (kubernetes#124571), so
	// the rate is what counts.
	r := cat()
	if rate := float64(len(r.stdout)) / time.Since(begin).Seconds(); r.code != 0 || rate > 6<<20 || len(r.stdout) < size/2 {
		t.Errorf("slow: exit %d after %d bytes in %s", r.code, len(r.stdout), time.Since(begin))
	}
	x.heal()

	// The cluster's own parts: what died is there again, and the server lives on.
	first := p.host()
	for _, part := range []string{"apiserver", "kubelet", "containerd", "etcd"} {
		t.Run(part, func(t *testing.T) { c.kill(t, part) })
		if !poll(60*time.Second, func() bool { return len(cat().stdout) == size }) {
			t.Errorf("no exec after the death of %s", part)
		}
		if p.restarts() != 0 || p.host() != first {
			t.Errorf("after the death of %s: %d restarts, process %d after %d", part, p.restarts(), p.host(), first)
		}
	}
	// What was cut off goes on in the container.
	left := 0
	for _, one := range p.processes() {
		if one.name == "cat" {
			left++
		}
	}
	t.Logf("%s; %d cats are left in the container", x.seen(), left)
}

// A container that was started anew is found again.
func TestRestart(t *testing.T) {
	p := startPod(t, "dl", podOptions{data: seed(t).dir})
	first := p.host()
	if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if !poll(60*time.Second, func() bool { return p.restarts() == 1 }) {
		t.Fatalf("no restart: %s", p.describe())
	}
	p.ready()
	if second := p.host(); second == first || len(p.blocks()) != 3 {
		t.Errorf("process %d after %d, blocks %v", second, first, p.blocks())
	}
	var sizes int64
	for _, info := range p.files(p.dataDir()) {
		if info.Mode()&fs.ModeType == 0 {
			sizes += info.Size()
		}
	}
	t.Logf("the seed is %.1f MiB in the container", float64(sizes)/(1<<20))
}
