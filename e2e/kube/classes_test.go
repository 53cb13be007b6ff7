//go:build linux

package kube

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// What refuses both protocols is named at once: nothing is retried.
func TestNoProtocol(t *testing.T) {
	a := startPod(t, "ro", podOptions{quiet: true})
	grant(t, "bob", a.namespace, "get,create", "pods/exec,pods/portforward")
	for _, drop := range []bool{false, true} {
		g := newGateway(t, "none")
		g.drop = drop
		config := g.config("bob")
		for _, via := range []string{"auto", "exec", "tar", "remote-read"} {
			begin := time.Now()
			r := plugin(t, config, "-n", a.namespace, "-p", a.name, "--via", via, "-t", filepath.Join(t.TempDir(), "dump.tar.gz"))
			took := time.Since(begin)
			for _, want := range []string{"neither WebSocket nor SPDY comes through", g.URL, "hint: a proxy or gateway before the API server"} {
				if !strings.Contains(r.stderr, want) {
					t.Errorf("dropped %v, by %s: no %q: %s", drop, via, want, r.stderr)
				}
			}
			if r.code != 1 || strings.Contains(r.stderr, " (try ") || took > 20*time.Second {
				t.Errorf("dropped %v, by %s: exit %d after %v: %s", drop, via, r.code, took, r.stderr)
			}
			if drop != strings.Contains(r.stderr, "drops the header Upgrade") {
				t.Errorf("dropped %v, by %s: %s", drop, via, r.stderr)
			}
		}
		t.Logf("dropped %v: refused %v", drop, g.refused)
	}
	a.unharmed(nil)
}

// A kubelet that restarts is waited for, and is not taken for the API server. Both
// protocols have words of their own for it.
func TestKubeletRestarts(t *testing.T) {
	c := booted(t)
	a := startPod(t, "ro", podOptions{data: seed(t).dir, quiet: true})
	grant(t, "bob", a.namespace, "get", "pods/exec") // required for WebSocket, which is a GET
	want := dumpedHere(t, a)
	configs := map[string]string{"websocket": newGateway(t, "websocket").config("bob"), "SPDY": newGateway(t, "SPDY/3.1").config("bob")}
	c.kill(t, "kubelet")
	type running struct {
		stderr string
		file   string
		done   chan int
	}
	dumps := map[string]running{}
	for name, config := range configs {
		dir := t.TempDir()
		d := running{filepath.Join(dir, "stderr"), filepath.Join(dir, "dump.tar.gz"), make(chan int, 1)}
		cmd := pluginCommand(t, config, "-n", a.namespace, "-p", a.name, "--min-time", "0", "-t", d.file)
		stderr, err := os.Create(d.stderr)
		if err != nil {
			t.Fatal(err)
		}
		defer stderr.Close()
		cmd.Stderr = stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		go func() {
			_ = cmd.Wait()
			d.done <- cmd.ProcessState.ExitCode()
		}()
		dumps[name] = d
	}
	text := func(d running) string {
		b, _ := os.ReadFile(d.stderr)
		return string(b)
	}
	for name, d := range dumps {
		if !poll(30*time.Second, func() bool { return strings.Contains(text(d), "cannot reach the kubelet of node ") }) {
			t.Errorf("%s: %s", name, text(d))
		}
	}
	c.up(t)
	for name, d := range dumps {
		if code := <-d.done; code != 0 || counts(text(d)) != want || strings.Contains(text(d), "API server https") {
			t.Errorf("%s: exit %d: %s", name, code, text(d))
		}
		t.Logf("%s:\n%s", name, text(d))
	}
	a.unharmed(nil)
}
