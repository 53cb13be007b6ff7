package kube

import (
	"os/exec"
	"strings"
	"testing"
	"time"
)

// What a helper runs ends by itself when nobody holds it, not before, and at once
// when its last client wants it to.
func TestLiving(t *testing.T) {
	// Names of their own: on this machine all processes are seen.
	script := strings.NewReplacer("sleep31", "sleep3177", "sleep5)", "sleep3155)", "-lt 60", "-lt 3").Replace(living)
	start := func(args ...string) *exec.Cmd {
		t.Helper()
		cmd := exec.Command(args[0], args[1:]...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
		return cmd
	}
	loop := func() (ended func(within time.Duration) bool) {
		cmd, done := exec.Command("sh", "-c", script), make(chan struct{})
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		go func() { defer close(done); _ = cmd.Wait() }()
		t.Cleanup(func() { _ = cmd.Process.Kill(); <-done })
		return func(within time.Duration) bool {
			select {
			case <-done:
				return true
			case <-time.After(within):
				return false
			}
		}
	}
	if !loop()(20 * time.Second) {
		t.Error("nobody holds it, and it does not end")
	}
	first, second := start("sleep", "3177"), start("sleep", "3177")
	ended := loop()
	if ended(6 * time.Second) {
		t.Fatal("it ends while it is held")
	}
	end := start("sleep", "3155")
	if ended(3 * time.Second) {
		t.Fatal("one client ends it for the other")
	}
	_ = second.Process.Kill()
	_ = second.Wait()
	if !ended(10 * time.Second) {
		t.Error("its last client ends it, and it goes on")
	}
	_, _ = first, end
}
