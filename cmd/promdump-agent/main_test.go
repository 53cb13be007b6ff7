package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestStart starts an uploaded agent: it removes its file before it prints start, and keeps the file of
// an upload in progress.
func TestStart(t *testing.T) {
	dir := t.TempDir()
	self := filepath.Join(dir, uploaded+"abc")
	build := exec.Command("go", "build", "-o", self, ".")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	other := filepath.Join(dir, uploaded+"young")
	if err := os.WriteFile(other, []byte("incomplete"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "start")
	cmd.Stdin = strings.NewReader("")
	out, _ := cmd.Output() // fails: it receives no call
	if !strings.HasPrefix(string(out), "start\n") {
		t.Errorf("the agent prints %q", out)
	}
	if _, err := os.Stat(self); err == nil {
		t.Error("the agent's file exists")
	}
	if _, err := os.Stat(other); err != nil {
		t.Errorf("the file of another upload: %v", err)
	}
}

func TestRemoveOld(t *testing.T) {
	dir := t.TempDir()
	put := func(name string) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	ours, others := put(uploaded+"x"), put("queries.active")
	if err := os.Mkdir(filepath.Join(dir, uploaded+"dir"), 0o700); err != nil {
		t.Fatal(err)
	}
	removeOld(dir, old)
	if _, err := os.Stat(ours); err != nil {
		t.Errorf("a new file: %v", err)
	}
	removeOld(dir, -1)
	if _, err := os.Stat(ours); err == nil {
		t.Error("an old file exists")
	}
	if _, err := os.Stat(others); err != nil {
		t.Errorf("a file of the server: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, uploaded+"dir")); err != nil {
		t.Errorf("a directory: %v", err)
	}
}
