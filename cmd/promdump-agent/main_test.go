package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The agent says that it runs, and by then its file is gone. One that is on its way
// beside it stays.
func TestStart(t *testing.T) {
	dir := t.TempDir()
	self := filepath.Join(dir, uploaded+"abc")
	build := exec.Command("go", "build", "-o", self, ".")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	other := filepath.Join(dir, uploaded+"young")
	if err := os.WriteFile(other, []byte("on its way"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "start")
	cmd.Stdin = strings.NewReader("")
	out, _ := cmd.Output() // nobody asks it anything, which it says too
	if !strings.HasPrefix(string(out), "start\n") {
		t.Errorf("it says %q", out)
	}
	if _, err := os.Stat(self); err == nil {
		t.Error("its file is there")
	}
	if _, err := os.Stat(other); err != nil {
		t.Errorf("another one's file: %v", err)
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
		t.Errorf("a young file: %v", err)
	}
	removeOld(dir, -1)
	if _, err := os.Stat(ours); err == nil {
		t.Error("an old file is there")
	}
	if _, err := os.Stat(others); err != nil {
		t.Errorf("a file that is not ours: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, uploaded+"dir")); err != nil {
		t.Errorf("a directory: %v", err)
	}
}
