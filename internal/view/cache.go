package view

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"
)

// Names in a cache directory. The version is that of the layout below it.
const (
	cacheVersion = "v1"
	dumpsDir     = "dumps" // <digest of the file>/{entry.json,lock,data/<ULID>/…}
	knownDir     = "known" // <digest of the path>: the digest of that file
	busyDir      = "busy"  // <digest of the path>: locked while a process unpacks it
	tmpPrefix    = "tmp-"

	entryName = "entry.json"
	lockName  = "lock"
	dataName  = "data"
)

// Cache is a directory of unpacked dumps. Several processes may use it at once.
type Cache struct {
	dir   string
	limit int64
	log   *slog.Logger
	now   func() time.Time
}

// OpenCache opens the cache in dir, and creates the directory if it does not exist. The
// cache removes unused dumps while it has more than limit bytes; with 0 it keeps only
// dumps that are in use.
func OpenCache(dir string, limit int64, log *slog.Logger) (*Cache, error) {
	c := &Cache{dir: filepath.Join(dir, cacheVersion), limit: limit, log: log, now: time.Now}
	for _, name := range []string{dumpsDir, knownDir, busyDir} {
		// Other users must not read the dumps.
		if err := os.MkdirAll(filepath.Join(c.dir, name), 0o700); err != nil {
			return nil, &Error{Err: fmt.Errorf("create the cache: %w", err), Code: 1, Tip: "choose another directory with --cache-dir"}
		}
	}
	tag := filepath.Join(dir, "CACHEDIR.TAG")
	if _, err := os.Stat(tag); errors.Is(err, fs.ErrNotExist) {
		// Backup programs skip a directory with this file.
		_ = os.WriteFile(tag, []byte("Signature: 8a477f597d28d172789f06886806bc55\n# created by promdump; may be removed at any time\n"), 0o600)
	}
	return c, nil
}

// Input is a dump to open.
type Input struct {
	Name string // for messages
	Path string // of the file, if R is one; empty for a stream
	R    io.Reader
	Once bool // the cache removes the dump when it is closed
}

// Hooks are called while a dump is opened. All of them may be nil.
type Hooks struct {
	Progress func(done, total int64) // in bytes of the dump file; total is 0 if unknown
	Note     func(string)            // a sentence for the user
}

func (h Hooks) progress(done, total int64) {
	if h.Progress != nil {
		h.Progress(done, total)
	}
}

func (h Hooks) note(s string) {
	if h.Note != nil {
		h.Note(s)
	}
}

// identity is the file system's metadata of a file; it changes when the file changes.
type identity struct {
	Path     string `json:"path"`
	Device   uint64 `json:"device"`
	Inode    uint64 `json:"inode"`
	Size     int64  `json:"size"`
	Modified int64  `json:"modified"` // Unix nanoseconds
	Changed  int64  `json:"changed"`
}

// settled is how long a file must have been unchanged before its times identify it: a
// second change within one tick of a coarse clock does not change them.
const settled = 2 * time.Second

// known is the content of a file in knownDir.
type known struct {
	identity
	Digest string `json:"digest"`
}

// open returns the unpacked dump: that in the cache, or else a new one.
func (c *Cache) open(ctx context.Context, in Input, hooks Hooks) (_ *entry, err error) {
	f, _ := in.R.(*os.File)
	if in.Path == "" || f == nil {
		return c.unpack(ctx, in.R, 0, hooks)
	}
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() {
		return c.unpack(ctx, in.R, 0, hooks)
	}
	path, err := filepath.Abs(in.Path)
	if err != nil {
		return nil, err
	}
	begun := c.now()
	id, identified := identify(path, fi)
	if identified {
		free, err := c.wait(ctx, path, hooks)
		if err != nil {
			return nil, err
		}
		defer free()
	}
	remember := func(e *entry) *entry {
		if !identified || begun.Sub(time.Unix(0, max(id.Changed, id.Modified))) < settled {
			return e
		}
		if fi, err := f.Stat(); err == nil {
			if now, ok := identify(path, fi); ok && now == id {
				c.remember(known{id, e.key})
			}
		}
		return e
	}
	if identified {
		if key := c.recall(id); key != "" {
			if e := c.take(key); e != nil {
				c.log.Debug("file found in the cache by its times", "file", path, "digest", key)
				return e, nil
			}
		}
	}
	// Without a dump of that size in the cache, the digest need not be computed.
	if c.hasSize(fi.Size()) {
		key, err := digestOf(ctx, f, fi.Size(), hooks)
		if err != nil {
			return nil, err
		}
		if e := c.take(key); e != nil {
			c.log.Debug("file found in the cache by its digest", "file", path, "digest", key)
			return remember(e), nil
		}
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return nil, err
		}
	}
	e, err := c.unpack(ctx, in.R, fi.Size(), hooks)
	if err != nil {
		return nil, err
	}
	return remember(e), nil
}

func digestOf(ctx context.Context, r io.Reader, total int64, hooks Hooks) (string, error) {
	h := sha256.New()
	if _, err := io.CopyBuffer(struct{ io.Writer }{h}, &counted{ctx: ctx, r: r, total: total, hooks: hooks}, make([]byte, 1<<20)); err != nil {
		return "", fmt.Errorf("read dump: %w", err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// counted reads a dump, reports the progress, and stops when its context ends.
type counted struct {
	ctx         context.Context
	r           io.Reader
	done, total int64
	hooks       Hooks
}

func (c *counted) Read(p []byte) (int, error) {
	if err := context.Cause(c.ctx); err != nil {
		return 0, err
	}
	n, err := c.r.Read(p)
	c.done += int64(n)
	c.hooks.progress(c.done, c.total)
	return n, err
}

func nameOf(path string) string {
	sum := sha256.Sum256([]byte(path))
	return hex.EncodeToString(sum[:16])
}

// recall returns the digest of a file that was opened before and has not changed
// since, or "".
func (c *Cache) recall(id identity) string {
	text, err := os.ReadFile(filepath.Join(c.dir, knownDir, nameOf(id.Path)))
	if err != nil {
		return ""
	}
	var k known
	if json.Unmarshal(text, &k) != nil || k.identity != id {
		return ""
	}
	return k.Digest
}

// remember records the digest of a file. Errors are only logged: without the record
// the file is read again.
func (c *Cache) remember(k known) {
	text, err := json.Marshal(k)
	if err == nil {
		err = writeWhole(filepath.Join(c.dir, knownDir, nameOf(k.Path)), text)
	}
	if err != nil {
		c.log.Debug("cannot record the digest of a file", "file", k.Path, "error", err)
	}
}

// writeWhole writes a file atomically: it appears with all its bytes or not at all.
func writeWhole(path string, text []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), tmpPrefix)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// wait waits until no other process unpacks the same file, and prevents others from
// doing so until free is called. It polls, because waiting for a flock ignores contexts.
func (c *Cache) wait(ctx context.Context, path string, hooks Hooks) (free func(), err error) {
	f, err := os.OpenFile(filepath.Join(c.dir, busyDir, nameOf(path)), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	for noted := false; ; {
		ok, err := lockExclusive(f)
		if ok {
			return func() { _ = f.Close() }, nil
		}
		if err != nil {
			// The file system has no locks: the file may be unpacked twice, and one
			// result is used.
			c.log.Debug("cannot lock", "file", f.Name(), "error", err)
			return func() { _ = f.Close() }, nil
		}
		if !noted {
			hooks.note("waiting for another promdump that unpacks this dump")
			noted = true
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(context.Cause(ctx), f.Close())
		case <-time.After(50 * time.Millisecond):
		}
	}
}
