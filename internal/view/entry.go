package view

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/promdump/promdump/internal/archive"
	"github.com/promdump/promdump/internal/block"
)

// entry is an unpacked dump in the cache that this process has locked.
type entry struct {
	cache *Cache
	key   string
	dir   string // in dumpsDir
	lock  *os.File
	once  bool
	about about
}

// about is the content of entry.json. It is written last: a directory without it is
// incomplete.
type about struct {
	FileSize int64            `json:"fileSize"` // of the dump
	Manifest archive.Manifest `json:"manifest"`
	Blocks   []aboutBlock     `json:"blocks"`
	Files    []archive.Entry  `json:"files"` // below data/
	Bytes    int64            `json:"bytes"` // of Files
}

// aboutBlock describes a block as verification found it.
type aboutBlock struct {
	ULID    string `json:"ulid"`
	MinTime int64  `json:"minTime"` // times of the first and the last sample
	MaxTime int64  `json:"maxTime"`
	Origin  string `json:"origin"`

	Findings []block.Finding `json:"findings,omitempty"` // no Unloadable ones
}

func (e *entry) data() string { return filepath.Join(e.dir, dataName) }

// take returns the unpacked dump with that digest and locks it, or returns nil if the
// cache does not have it. It removes an incomplete one.
func (c *Cache) take(key string) *entry {
	if len(key) != 64 || strings.Trim(key, "0123456789abcdef") != "" {
		return nil
	}
	e := &entry{cache: c, key: key, dir: filepath.Join(c.dir, dumpsDir, key)}
	lock, err := os.Open(filepath.Join(e.dir, lockName))
	if err != nil {
		if _, err := os.Stat(e.dir); err == nil {
			c.discard(e.dir)
		}
		return nil
	}
	e.lock = lock
	if ok, err := lockShared(lock); !ok {
		c.log.Debug("cannot lock a dump in the cache", "digest", key, "error", err)
		_ = lock.Close()
		return nil
	}
	// Another process may have removed it between opening and locking.
	if !sameFile(lock, filepath.Join(e.dir, lockName)) {
		_ = lock.Close()
		return nil
	}
	if err := e.check(); err != nil {
		c.log.Debug("removing an incomplete dump from the cache", "digest", key, "error", err)
		_ = lock.Close()
		c.discard(e.dir)
		return nil
	}
	// The time of the last use, for trim.
	now := c.now()
	_ = os.Chtimes(lock.Name(), now, now)
	return e
}

func sameFile(f *os.File, path string) bool {
	a, errA := f.Stat()
	b, errB := os.Stat(path)
	return errA == nil && errB == nil && os.SameFile(a, b)
}

// check returns an error if files are missing or have another size, as after a crash, on
// a full disk, or when a user removed them. It does not read the bytes: queries check
// the checksums of the chunks.
func (e *entry) check() error {
	text, err := os.ReadFile(filepath.Join(e.dir, entryName))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, &e.about); err != nil {
		return err
	}
	for _, f := range e.about.Files {
		fi, err := os.Lstat(filepath.Join(e.data(), filepath.FromSlash(f.Name)))
		if err != nil {
			return err
		}
		if !fi.Mode().IsRegular() || fi.Size() != f.Size {
			return fmt.Errorf("%s has %d bytes, want %d", f.Name, fi.Size(), f.Size)
		}
	}
	return nil
}

// discard removes a directory from the cache. Processes that have mapped its files keep
// the mappings.
func (c *Cache) discard(dir string) {
	// Rename it first, so that no process finds a part of it.
	gone, err := os.MkdirTemp(filepath.Join(c.dir, dumpsDir), tmpPrefix)
	if err == nil {
		err = os.Rename(dir, filepath.Join(gone, dataName))
		err = errors.Join(err, os.RemoveAll(gone))
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		c.log.Debug("cannot remove from the cache", "dir", dir, "error", err)
	}
}

// Close unlocks the entry, and then trims the cache.
func (e *entry) Close() error {
	err := e.lock.Close()
	if e.once {
		e.cache.evict(e.dir)
	}
	e.cache.trim()
	return err
}

// hasSize reports whether the cache has a dump whose file has that size.
func (c *Cache) hasSize(size int64) bool {
	for _, h := range c.list() {
		if h.about.FileSize == size {
			return true
		}
	}
	return false
}

// stored is the directory of a dump in the cache.
type stored struct {
	dir   string
	used  time.Time
	about about
}

// stored returns all dumps in the cache.
func (c *Cache) list() []stored {
	entries, err := os.ReadDir(filepath.Join(c.dir, dumpsDir))
	if err != nil {
		return nil
	}
	var all []stored
	for _, d := range entries {
		if strings.HasPrefix(d.Name(), tmpPrefix) {
			continue
		}
		h := stored{dir: filepath.Join(c.dir, dumpsDir, d.Name())}
		if fi, err := os.Stat(filepath.Join(h.dir, lockName)); err == nil {
			h.used = fi.ModTime()
		}
		if text, err := os.ReadFile(filepath.Join(h.dir, entryName)); err == nil {
			_ = json.Unmarshal(text, &h.about) // if it fails, trim counts no bytes
		}
		all = append(all, h)
	}
	return all
}

// abandoned is the age from which a file or directory that cannot be locked belongs to a
// process that died.
const abandoned = time.Minute

func (c *Cache) isOld(d fs.DirEntry) bool {
	fi, err := d.Info()
	return err == nil && c.now().Sub(fi.ModTime()) > abandoned
}

func isFile(path string) bool {
	fi, err := os.Lstat(path)
	return err == nil && fi.Mode().IsRegular()
}

// trimKnown removes the temporary files that killed processes left behind.
func (c *Cache) trimKnown() {
	dir := filepath.Join(c.dir, knownDir)
	entries, _ := os.ReadDir(dir) // nothing is lost if it cannot be read
	for _, d := range entries {
		if strings.HasPrefix(d.Name(), tmpPrefix) && c.isOld(d) {
			_ = os.Remove(filepath.Join(dir, d.Name()))
		}
	}
}

// trim removes what killed processes left behind, and then the least recently used dumps
// until the cache is below its limit.
func (c *Cache) trim() {
	dumps := filepath.Join(c.dir, dumpsDir)
	entries, err := os.ReadDir(dumps)
	if err != nil {
		return
	}
	for _, d := range entries {
		dir := filepath.Join(dumps, d.Name())
		if strings.HasPrefix(d.Name(), tmpPrefix) && (canLock && isFile(filepath.Join(dir, lockName)) || c.isOld(d)) {
			c.evict(dir)
		}
	}
	c.trimKnown()
	all := c.list()
	slices.SortFunc(all, func(a, b stored) int { return cmp.Or(a.used.Compare(b.used), cmp.Compare(a.dir, b.dir)) })
	var total int64
	for _, h := range all {
		total += h.about.Bytes
	}
	for _, h := range all {
		if total <= c.limit {
			break
		}
		if c.evict(h.dir) {
			total -= h.about.Bytes
		}
	}
}

// evict removes a directory unless a process has locked it, and reports whether it did.
func (c *Cache) evict(dir string) bool {
	lock, err := os.Open(filepath.Join(dir, lockName))
	if err == nil {
		defer lock.Close()
		if ok, _ := lockExclusive(lock); !ok || !sameFile(lock, lock.Name()) {
			return false
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return false
	}
	c.log.Debug("removed from the cache", "dir", dir)
	c.discard(dir)
	return true
}
