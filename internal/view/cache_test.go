package view

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/promdump/promdump/internal/archive"
	"github.com/promdump/promdump/internal/dump/dumptest"
	"github.com/promdump/promdump/internal/tsdbtest"
	"github.com/promdump/promdump/internal/wire"
)

// A dump that is in the cache is not unpacked again, however the file is identified.
func TestCacheUnpacksOnce(t *testing.T) {
	file, _ := dumptest.Random(t, 1, wire.HeadBlock)
	dir := t.TempDir()
	c := cacheIn(t, dir, 1<<40)
	if err := mustOpen(t, c, file).Close(); err != nil {
		t.Fatal(err)
	}
	first := indexes(t, dir)

	// By its digest: the file is too new to be identified by its times.
	if err := mustOpen(t, c, file).Close(); err != nil {
		t.Fatal(err)
	}
	if !same(first, indexes(t, dir)) {
		t.Error("the second open unpacked it again")
	}
	// By its digest, under another name.
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	moved := filepath.Join(t.TempDir(), "moved")
	if err := os.WriteFile(moved, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := mustOpen(t, c, moved).Close(); err != nil {
		t.Fatal(err)
	}
	if !same(first, indexes(t, dir)) {
		t.Error("a copy of it was unpacked again")
	}
	// By its times, once it is old enough: its bytes are not read.
	c.now = func() time.Time { return time.Now().Add(time.Minute) }
	if err := mustOpen(t, c, file).Close(); err != nil {
		t.Fatal(err)
	}
	fi, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	id, ok := identify(file, fi)
	if !ok || c.recall(id) == "" {
		t.Fatal("the digest of the file was not recorded")
	}
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	d, err := c.Open(t.Context(), Input{Name: file, Path: file, R: f}, Hooks{Progress: func(int64, int64) { t.Error("the file was read") }})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	// Another file under the same name is another dump.
	other, _ := dumptest.Random(t, 2, wire.HeadBlock)
	if err := os.Rename(other, file); err != nil {
		t.Fatal(err)
	}
	d = mustOpen(t, c, file)
	defer d.Close()
	if len(entriesOf(t, dir)) != 2 {
		t.Errorf("the cache holds %v, want two dumps", entriesOf(t, dir))
	}
}

// A change that keeps size and modification time is noticed by the change time.
func TestCacheSeesChangedFile(t *testing.T) {
	file, _ := dumptest.Random(t, 1, wire.HeadBlock)
	c := cacheIn(t, t.TempDir(), 1<<40)
	c.now = func() time.Time { return time.Now().Add(time.Minute) }
	if err := mustOpen(t, c, file).Close(); err != nil {
		t.Fatal(err)
	}
	fi, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(file, fi.ModTime(), fi.ModTime()); err != nil {
		t.Fatal(err)
	}
	if d, err := openFile(t, c, file); err == nil {
		_ = d.Close()
		t.Error("the change was not noticed")
	}
}

// A dump whose directory lost a file is unpacked again.
func TestCacheTorn(t *testing.T) {
	file, _ := dumptest.Random(t, 1, wire.HeadBlock)
	for name, tear := range map[string]func(entry string) error{
		"short index":        func(e string) error { return os.Truncate(anyIndex(t, e), 100) },
		"empty index":        func(e string) error { return os.Truncate(anyIndex(t, e), 0) },
		"no index":           func(e string) error { return os.Remove(anyIndex(t, e)) },
		"no entry.json":      func(e string) error { return os.Remove(filepath.Join(e, entryName)) },
		"half an entry.json": func(e string) error { return os.Truncate(filepath.Join(e, entryName), 50) },
		"no lock":            func(e string) error { return os.Remove(filepath.Join(e, lockName)) },
		"nothing":            func(e string) error { return errors.Join(os.RemoveAll(e), os.Mkdir(e, 0o700)) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			c := cacheIn(t, dir, 1<<40)
			if err := mustOpen(t, c, file).Close(); err != nil {
				t.Fatal(err)
			}
			whole := indexes(t, dir)
			if err := tear(filepath.Join(dir, cacheVersion, dumpsDir, entriesOf(t, dir)[0])); err != nil {
				t.Fatal(err)
			}
			d := mustOpen(t, c, file)
			defer d.Close()
			if len(indexes(t, dir)) != len(whole) || len(d.Blocks) != len(whole) || len(entriesOf(t, dir)) != 1 {
				t.Errorf("after: %d blocks opened of %d; the cache holds %v", len(d.Blocks), len(whole), entriesOf(t, dir))
			}
		})
	}
}

func anyIndex(t *testing.T, dir string) string {
	for name := range indexes(t, dir) {
		return name
	}
	t.Fatal("no index")
	return ""
}

// Several processes open one dump at once: all succeed, and the cache has it once.
func TestCacheConcurrent(t *testing.T) {
	file, _ := dumptest.Random(t, 1, wire.HeadBlock)
	dir := t.TempDir()
	var wg sync.WaitGroup
	dumps := make([]*Dump, 6)
	for i := range dumps {
		c := cacheIn(t, dir, 1<<40) // as another process would
		wg.Go(func() {
			if i%2 == 1 {
				// As from a pipe: it cannot be identified before it is read.
				b, err := os.ReadFile(file)
				if err == nil {
					dumps[i], err = c.Open(t.Context(), Input{Name: "pipe", R: bytes.NewReader(b)}, Hooks{})
				}
				if err != nil {
					t.Error(err)
				}
				return
			}
			f, err := os.Open(file)
			if err != nil {
				t.Error(err)
				return
			}
			defer f.Close()
			if dumps[i], err = c.Open(t.Context(), Input{Name: file, Path: file, R: f}, Hooks{}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	if n := entriesOf(t, dir); len(n) != 1 {
		t.Errorf("the cache holds %v, want one", n)
	}
	for _, d := range dumps {
		if len(d.Blocks) != len(dumps[0].Blocks) || len(d.Blocks) == 0 {
			t.Errorf("%d blocks", len(d.Blocks))
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
}

// The cache stays below its limit, but keeps open dumps. It removes the least recently
// used dump first.
func TestCacheBound(t *testing.T) {
	one, _ := dumptest.Random(t, 1, wire.HeadBlock)
	two, _ := dumptest.Random(t, 2, wire.HeadBlock)
	dir := t.TempDir()
	large := cacheIn(t, dir, 1<<40)
	d := mustOpen(t, large, one)
	size := d.entry.about.Bytes
	first := filepath.Base(d.entry.dir)
	age(t, filepath.Join(d.entry.dir, lockName))

	small := cacheIn(t, dir, size+size/2)
	e := mustOpen(t, small, two)
	if n := entriesOf(t, dir); len(n) != 2 {
		t.Errorf("an open dump was removed: %v", n)
	}
	second := filepath.Base(e.entry.dir)
	if err := errors.Join(d.Close(), e.Close()); err != nil {
		t.Fatal(err)
	}
	if n := entriesOf(t, dir); len(n) != 1 || n[0] != second {
		t.Errorf("the cache holds %v, want just %s and not the older %s", n, second, first)
	}
	nothing := cacheIn(t, dir, 0)
	if err := mustOpen(t, nothing, one).Close(); err != nil {
		t.Fatal(err)
	}
	if n := entriesOf(t, dir); len(n) != 0 {
		t.Errorf("a cache with limit 0 holds %v", n)
	}
}

// An incomplete or damaged dump is never published, and leaves nothing behind.
func TestCacheRefuses(t *testing.T) {
	file, _ := dumptest.Random(t, 1, wire.HeadBlock)
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	flipped := bytes.Clone(b)
	flipped[len(b)-20] ^= 8
	dir := t.TempDir()
	c := cacheIn(t, dir, 1<<40)
	for name, x := range map[string]struct {
		data []byte
		want error
	}{"cut": {b[:len(b)-30], archive.ErrIncomplete}, "no dump": {[]byte("hello"), archive.ErrNotDump}, "flipped": {flipped, nil}} {
		_, err := c.Open(t.Context(), Input{Name: name, R: bytes.NewReader(x.data)}, Hooks{})
		if err == nil || x.want != nil && !errors.Is(err, x.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	r := io.MultiReader(bytes.NewReader(b[:len(b)/2]), readerFunc(func([]byte) (int, error) { cancel(); return 0, nil }), bytes.NewReader(b[len(b)/2:]))
	if _, err := c.Open(ctx, Input{Name: "cancelled", R: r}, Hooks{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if n := entriesOf(t, dir); len(n) != 0 {
		t.Errorf("left behind: %v", n)
	}
	// A directory that a killed process left is removed when it is old, not before.
	for name, old := range map[string]bool{"tmp-old": true, "tmp-new": false} {
		path := filepath.Join(dir, cacheVersion, dumpsDir, name)
		if err := os.Mkdir(path, 0o700); err != nil {
			t.Fatal(err)
		}
		if old {
			age(t, path)
		}
	}
	// What has a lock goes when nobody holds it.
	_, lock, err := c.makeTemp()
	if err != nil {
		t.Fatal(err)
	}
	busy, busyLock, err := c.makeTemp()
	if err != nil {
		t.Fatal(err)
	}
	defer busyLock.Close()
	age(t, busy)
	if err := errors.Join(lock.Close(), mustOpen(t, c, file).Close()); err != nil {
		t.Fatal(err)
	}
	if n := entriesOf(t, dir); len(n) != 3 || !slices.Contains(n, "tmp-new") || !slices.Contains(n, filepath.Base(busy)) {
		t.Errorf("the cache holds %v, want a dump, tmp-new and %s", n, filepath.Base(busy))
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// Blocks are built of a raw head: the view serves the same samples as the data directory.
func TestOpenRawHead(t *testing.T) {
	for _, head := range []wire.HeadMode{wire.HeadRaw, wire.HeadBlock} {
		file, src := dumptest.Random(t, 3, head)
		d := mustOpen(t, cacheIn(t, t.TempDir(), 1<<40), file)
		v, err := New(t.Context(), "", d)
		if err != nil {
			t.Fatal(err)
		}
		got := tsdbtest.Samples(t, v, tsdbtest.Everything())
		if err := v.Close(); err != nil {
			t.Fatal(err)
		}
		want := tsdbtest.SamplesDir(t, src.Dir, tsdbtest.Everything())
		if diff := tsdbtest.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", head, diff)
		}
	}
}
