package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func read(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		all[e.Name()] = string(text)
	}
	return all
}

// The reference in docs/cli is up to date with the help of the commands.
func TestReferenceIsFresh(t *testing.T) {
	dir := t.TempDir()
	if err := write(dir, ""); err != nil {
		t.Fatal(err)
	}
	got := read(t, dir)
	if len(got) < 16 {
		t.Fatalf("%d pages", len(got))
	}
	if d := cmp.Diff(read(t, "../../../docs/cli"), got); d != "" {
		t.Errorf("docs/cli is out of date, run make docs (-got +want)\n%s", d)
	}
}

func TestMan(t *testing.T) {
	t.Setenv("SOURCE_DATE_EPOCH", "1000000000")
	dir := t.TempDir()
	if err := write("", dir); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"promdump.1", "promdump-dump.1", "kubectl-promdump.1", "kubectl-promdump-restore.1"} {
		if text := read(t, dir)[name]; len(text) < 1000 {
			t.Errorf("%s: %q", name, text)
		}
	}
}
