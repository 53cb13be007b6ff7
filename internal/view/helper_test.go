package view

import (
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"
)

var quiet = slog.New(slog.DiscardHandler)

func cacheIn(t *testing.T, dir string, limit int64) *Cache {
	t.Helper()
	c, err := OpenCache(dir, limit, quiet)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func openFile(t *testing.T, c *Cache, file string) (*Dump, error) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	return c.Open(t.Context(), Input{Name: file, Path: file, R: f}, Hooks{})
}

func mustOpen(t *testing.T, c *Cache, file string) *Dump {
	t.Helper()
	d, err := openFile(t, c, file)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// indexes returns the index files in a cache by name, with their inode and time.
func indexes(t *testing.T, dir string) map[string]os.FileInfo {
	t.Helper()
	all := map[string]os.FileInfo{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Name() == "index" {
			all[path], err = d.Info()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func same(a, b map[string]os.FileInfo) bool {
	for name, fi := range a {
		if other, ok := b[name]; !ok || !os.SameFile(fi, other) || !fi.ModTime().Equal(other.ModTime()) {
			return false
		}
	}
	return len(a) == len(b) && len(a) > 0
}

func entriesOf(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(dir, cacheVersion, dumpsDir))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func age(t *testing.T, path string) {
	t.Helper()
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(path, old, old); err != nil {
		t.Fatal(err)
	}
}
