// Package fsutil locks files, and makes temporary directories that are recognized as
// stale when the process that made them was killed.
package fsutil

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// ErrLocked says that another process, or another handle of this one, has the lock.
var ErrLocked = errors.New("it is in use")

// tempPrefix begins the name of every temporary directory of promdump.
const tempPrefix = "promdump-tmp-"

const (
	lockName = "lock"  // locked as long as its process lives; says on which boot of the machine
	filesDir = "files" // what the directory is made for
)

// TempDir is a private temporary directory.
type TempDir struct {
	Path  string
	outer string
	lock  *os.File // nil: there are no locks here
}

// MkdirTemp makes an empty directory below parent (empty: the system's) for a purpose, one
// or a few words that become part of its name. First it removes those that killed
// processes left in parent.
func MkdirTemp(parent, purpose string) (*TempDir, error) {
	if parent == "" {
		parent = os.TempDir()
	}
	RemoveStale(parent)
	prefix := tempPrefix
	if purpose != "" {
		prefix += purpose + "-"
	}
	const tries = 10 // another process may remove a directory before it is locked
	for try := 1; ; try++ {
		t, err := makeTemp(parent, prefix)
		if err == nil || try == tries || !errors.Is(err, ErrLocked) && !errors.Is(err, fs.ErrNotExist) {
			return t, err
		}
	}
}

func makeTemp(parent, prefix string) (_ *TempDir, err error) {
	t := &TempDir{}
	if t.outer, err = os.MkdirTemp(parent, prefix); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, t.Remove())
		}
	}()
	t.Path = filepath.Join(t.outer, filesDir)
	lock := filepath.Join(t.outer, lockName)
	if t.lock, err = os.OpenFile(lock, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
		return nil, err
	}
	if err := Lock(t.lock); errors.Is(err, ErrLocked) {
		return nil, err
	}
	// Locks may be missing there: then the directory is never stale for others.
	if _, err := t.lock.WriteString(boot()); err != nil {
		return nil, err
	}
	if !SameFile(lock, t.lock) {
		return nil, ErrLocked
	}
	return t, os.Mkdir(t.Path, 0o700)
}

// Remove removes the directory with all that is in it.
func (t *TempDir) Remove() error {
	err := os.RemoveAll(t.Path) // before the lock: what is left by a kill here is stale
	if t.lock != nil {
		err = errors.Join(err, t.lock.Close())
		t.lock = nil
	}
	return errors.Join(err, os.RemoveAll(t.outer))
}

// RemoveStale removes the temporary directories in parent whose processes were killed. It
// leaves those alone that a process uses, also one in another container or on another
// machine that shares the directory: where a lock may not be seen across machines, it
// only removes what this boot of this machine has made.
func RemoveStale(parent string) {
	entries, err := os.ReadDir(parent)
	if err != nil {
		return
	}
	for _, e := range entries {
		name := strings.TrimRight(e.Name(), "0123456789")
		if e.IsDir() && name != e.Name() && strings.HasPrefix(name, tempPrefix) && strings.HasSuffix(name, "-") {
			removeStale(filepath.Join(parent, e.Name()))
		}
	}
}

func removeStale(dir string) {
	fi, err := os.Lstat(dir)
	if err != nil || !fi.IsDir() || !isOurs(fi) {
		return
	}
	path := filepath.Join(dir, lockName)
	if fi, err := os.Lstat(path); err != nil || !fi.Mode().IsRegular() {
		// Its process was killed here, or is about to lock it and makes another one then.
		if errors.Is(err, fs.ErrNotExist) {
			_ = os.Remove(dir) // fails unless it is empty
		}
		return
	}
	lock, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return
	}
	defer lock.Close()
	if Lock(lock) != nil || !SameFile(path, lock) {
		return
	}
	text := make([]byte, 100)
	n, _ := lock.Read(text)
	if isLocal(dir) || boot() != "" && string(text[:n]) == boot() {
		if os.RemoveAll(filepath.Join(dir, filesDir)) == nil {
			_ = os.RemoveAll(dir)
		}
	}
}

// SameFile reports whether path is still the open file, and not a link.
func SameFile(path string, f *os.File) bool {
	a, err := os.Lstat(path)
	if err != nil {
		return false
	}
	b, err := f.Stat()
	return err == nil && os.SameFile(a, b)
}
