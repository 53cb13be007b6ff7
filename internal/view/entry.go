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

// entry is an unpacked dump that this process holds.
type entry struct {
	cache *Cache
	key   string
	dir   string // in dumpsDir
	lock  *os.File
	once  bool
	about about
}

// about is what entry.json says. It is written last: a directory without it is
// rubbish.
type about struct {
	FileSize int64            `json:"fileSize"` // of the dump
	Manifest archive.Manifest `json:"manifest"`
	Blocks   []aboutBlock     `json:"blocks"`
	Files    []archive.Entry  `json:"files"` // below data/
	Bytes    int64            `json:"bytes"` // of Files
}

// aboutBlock is what verification found in a block.
type aboutBlock struct {
	ULID    string `json:"ulid"`
	MinTime int64  `json:"minTime"` // of the first and the last sample
	MaxTime int64  `json:"maxTime"`
	Origin  string `json:"origin"`

	Findings []block.Finding `json:"findings,omitempty"` // no Unloadable ones
}

func (e *entry) data() string { return filepath.Join(e.dir, dataName) }

// take gives an unpacked dump that is in the cache, whole, and holds it. One that
// is torn is removed. nil: it is not there.
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
		c.log.Debug("cannot hold a dump of the cache", "digest", key, "error", err)
		_ = lock.Close()
		return nil
	}
	// Between opening and locking it may have been removed.
	if !sameFile(lock, filepath.Join(e.dir, lockName)) {
		_ = lock.Close()
		return nil
	}
	if err := e.check(); err != nil {
		c.log.Debug("a dump of the cache is torn, and removed", "digest", key, "error", err)
		_ = lock.Close()
		c.discard(e.dir)
		return nil
	}
	// When it was used last.
	now := c.now()
	_ = os.Chtimes(lock.Name(), now, now)
	return e
}

func sameFile(f *os.File, path string) bool {
	a, errA := f.Stat()
	b, errB := os.Stat(path)
	return errA == nil && errB == nil && os.SameFile(a, b)
}

// check finds what a crash, a full disk or a person leaves of a directory: files
// that are missing or have another size. Bytes are checked by the chunks' own
// checksums when they are read.
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
			return fmt.Errorf("%s has %d bytes, not %d", f.Name, fi.Size(), f.Size)
		}
	}
	return nil
}

// discard removes a directory of the cache. Who has its files mapped keeps them.
func (c *Cache) discard(dir string) {
	// Renamed first, so that nobody finds a half of it.
	gone, err := os.MkdirTemp(filepath.Join(c.dir, dumpsDir), tmpPrefix)
	if err == nil {
		err = os.Rename(dir, filepath.Join(gone, dataName))
		err = errors.Join(err, os.RemoveAll(gone))
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		c.log.Debug("cannot remove from the cache", "dir", dir, "error", err)
	}
}

// Close lets others remove it, and removes it if the cache is too full.
func (e *entry) Close() error {
	err := e.lock.Close()
	if e.once {
		e.cache.evict(e.dir)
	}
	e.cache.trim()
	return err
}

// hasSize tells whether a dump file of that size was ever unpacked here.
func (c *Cache) hasSize(size int64) bool {
	for _, h := range c.held() {
		if h.about.FileSize == size {
			return true
		}
	}
	return false
}

// holding is a directory of the cache.
type holding struct {
	dir   string
	used  time.Time
	about about
}

func (c *Cache) held() []holding {
	entries, err := os.ReadDir(filepath.Join(c.dir, dumpsDir))
	if err != nil {
		return nil
	}
	var all []holding
	for _, d := range entries {
		if strings.HasPrefix(d.Name(), tmpPrefix) {
			continue
		}
		h := holding{dir: filepath.Join(c.dir, dumpsDir, d.Name())}
		if fi, err := os.Stat(filepath.Join(h.dir, lockName)); err == nil {
			h.used = fi.ModTime()
		}
		if text, err := os.ReadFile(filepath.Join(h.dir, entryName)); err == nil {
			_ = json.Unmarshal(text, &h.about) // of nothing known: the first to go
		}
		all = append(all, h)
	}
	return all
}

// abandoned is the age at which a file or a directory that cannot be locked was left by
// a process that died.
const abandoned = time.Minute

func (c *Cache) isOld(d fs.DirEntry) bool {
	fi, err := d.Info()
	return err == nil && c.now().Sub(fi.ModTime()) > abandoned
}

func isFile(path string) bool {
	fi, err := os.Lstat(path)
	return err == nil && fi.Mode().IsRegular()
}

// trimKnown removes the temporary files that killed processes left.
func (c *Cache) trimKnown() {
	dir := filepath.Join(c.dir, knownDir)
	entries, _ := os.ReadDir(dir) // nothing is lost if it cannot be read
	for _, d := range entries {
		if strings.HasPrefix(d.Name(), tmpPrefix) && c.isOld(d) {
			_ = os.Remove(filepath.Join(dir, d.Name()))
		}
	}
}

// trim removes what killed processes left, and then what was not used for the
// longest time, until the cache is below its limit.
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
	all := c.held()
	slices.SortFunc(all, func(a, b holding) int { return cmp.Or(a.used.Compare(b.used), cmp.Compare(a.dir, b.dir)) })
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

// evict removes a directory unless somebody holds it.
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
