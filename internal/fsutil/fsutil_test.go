package fsutil

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
)

// A directory whose process was killed is removed by the next one; that of a process
// that lives, of another program, or one that is just being made is not.
func TestStale(t *testing.T) {
	if dir := os.Getenv("FSUTIL_TEST_DIR"); dir != "" { // the process that is killed
		if _, err := MkdirTemp(dir, "pod"); err != nil {
			t.Fatal(err)
		}
		_ = os.Stdout.Close() // ready
		select {}
	}
	if runtime.GOOS != "linux" {
		t.Skip("stale directories are recognized on Linux only")
	}
	parent := t.TempDir()
	kept := map[string]bool{}
	for _, name := range []string{"promdump-123", "promdump-tmp-notes", "other-tmp-123", "promdump-tmp-7/files"} {
		if err := os.MkdirAll(filepath.Join(parent, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(parent, "promdump-tmp-99"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(parent, filepath.Join(parent, "promdump-tmp-88")); err != nil {
		t.Fatal(err)
	}
	for _, e := range entries(t, parent) {
		kept[e] = true
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestStale$")
	cmd.Env = append(os.Environ(), "FSUTIL_TEST_DIR="+parent)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_, _ = out.Read(make([]byte, 1)) // until it is closed
	RemoveStale(parent)
	alive := entries(t, parent)
	if len(alive) != len(kept)+1 {
		t.Errorf("while the process lives: %q", alive)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	own, err := MkdirTemp(parent, "")
	if err != nil {
		t.Fatal(err)
	}
	RemoveStale(parent)
	if _, err := os.Stat(own.Path); err != nil {
		t.Errorf("a directory in use was removed: %v", err)
	}
	if err := own.Remove(); err != nil {
		t.Fatal(err)
	}
	for _, e := range entries(t, parent) {
		if !kept[e] {
			t.Errorf("%s is left", e)
		}
		delete(kept, e)
	}
	for e := range kept {
		t.Errorf("%s was removed", e)
	}

	// One that was killed before it had locked it, or while it removed it.
	if err := os.Mkdir(filepath.Join(parent, "promdump-tmp-1"), 0o700); err != nil {
		t.Fatal(err)
	}
	RemoveStale(parent)
	if _, err := os.Stat(filepath.Join(parent, "promdump-tmp-1")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an empty directory is left: %v", err)
	}
}

// Processes that make directories while others remove stale ones all get their own.
func TestMkdirTempRaces(t *testing.T) {
	parent := t.TempDir()
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 50 {
				d, err := MkdirTemp(parent, "x")
				if err == nil {
					err = errors.Join(os.WriteFile(filepath.Join(d.Path, "file"), nil, 0o600), d.Remove())
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	if left := entries(t, parent); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

func entries(t *testing.T, dir string) (names []string) {
	t.Helper()
	all, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		names = append(names, e.Name())
	}
	return names
}
