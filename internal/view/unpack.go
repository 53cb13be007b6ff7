package view

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/promdump/promdump/internal/archive"
	"github.com/promdump/promdump/internal/block"
	"github.com/promdump/promdump/internal/restore"
	"github.com/promdump/promdump/internal/source/local"
)

// unpacking is a dump that is being unpacked into the cache.
type unpacking struct {
	cache *Cache
	dir   string // tmp-…
	lock  *os.File
	log   func(string, ...any)

	about about
	done  chan aboutBlock
}

// unpack reads a dump and returns it as a new, locked entry of the cache.
func (c *Cache) unpack(ctx context.Context, r io.Reader, total int64, hooks Hooks) (_ *entry, err error) {
	c.trim() // remove what killed processes left behind first
	dir, lock, err := c.makeTemp()
	if err != nil {
		return nil, fmt.Errorf("create a directory in the cache: %w", err)
	}
	u := &unpacking{cache: c, dir: dir, lock: lock, log: c.log.Debug}
	defer func() {
		if err != nil {
			if u.lock != nil {
				err = errors.Join(err, u.lock.Close())
			}
			err = errors.Join(err, os.RemoveAll(dir))
			if isNoSpace(err) {
				err = &Error{Err: err, Code: 1, Tip: "choose a directory with more free space with --cache-dir; what was unpacked has been removed"}
			}
		}
	}()
	digest := sha256.New()
	in := &counted{ctx: ctx, r: io.TeeReader(r, digest), total: total, hooks: hooks}
	if err := u.extract(ctx, in); err != nil {
		return nil, err
	}
	// The archive reader stops at the end of the archive, but a pipe must be read to its end.
	if _, err := io.Copy(io.Discard, in); err != nil {
		return nil, fmt.Errorf("read dump: %w", err)
	}
	u.about.FileSize = in.done
	if err := u.rawHead(ctx); err != nil {
		return nil, fmt.Errorf("build blocks of the dump's head: %w", err)
	}
	return u.publish(hex.EncodeToString(digest.Sum(nil)))
}

// makeTemp creates a directory in the cache and locks it.
func (c *Cache) makeTemp() (dir string, lock *os.File, err error) {
	const tries = 10 // another process may remove the directory as abandoned before it is locked
	for range tries {
		if dir, err = os.MkdirTemp(filepath.Join(c.dir, dumpsDir), tmpPrefix); err != nil {
			return "", nil, err
		}
		name := filepath.Join(dir, lockName)
		if lock, err = os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
			return "", nil, errors.Join(err, os.RemoveAll(dir))
		}
		ok, locking := lockShared(lock)
		if locking != nil {
			c.log.Debug("cannot lock", "dir", dir, "error", locking)
			return dir, lock, nil
		}
		if ok && sameFile(lock, name) {
			return dir, lock, nil
		}
		err = errors.Join(errors.New("it is removed by others again and again"), lock.Close())
	}
	return "", nil, err
}

func (u *unpacking) data() string { return filepath.Join(u.dir, dataName) }

// extract unpacks the dump and verifies its checksums. It verifies each block down to its
// samples, in the background, as soon as the next block begins.
func (u *unpacking) extract(ctx context.Context, in io.Reader) error {
	if err := os.Mkdir(u.data(), 0o700); err != nil {
		return err
	}
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(2)
	u.done = make(chan aboutBlock, 1)
	collected := make(chan []aboutBlock)
	go func() {
		var all []aboutBlock
		for b := range u.done {
			all = append(all, b)
		}
		collected <- all
	}()
	verify := func(id, origin string) {
		group.Go(func() error {
			b, err := u.verify(gctx, filepath.Join(u.data(), id), origin)
			if err == nil {
				u.done <- b
			}
			return err
		})
	}
	last := ""
	x := archive.Extraction{OnEntry: func(e archive.Entry) {
		id, _, _ := strings.Cut(e.Name, "/")
		if last != "" && id != last {
			verify(last, "")
		}
		if last = id; !isBlock(id) {
			last = ""
		}
	}}
	m, _, err := x.Extract(ctx, in, u.data())
	if err == nil && last != "" {
		verify(last, "")
	}
	verified := group.Wait()
	close(u.done)
	u.about.Blocks = <-collected
	if err != nil { // it says more about a damaged dump than the error of a block does
		return fmt.Errorf("unpack dump: %w", err)
	}
	u.about.Manifest = m
	return verified
}

func isBlock(name string) bool { return len(name) == 26 && !strings.Contains(name, "_") }

func (u *unpacking) verify(ctx context.Context, dir, origin string) (aboutBlock, error) {
	var findings []block.Finding
	stats, err := block.Verify(ctx, dir, func(f block.Finding) { findings = append(findings, f) })
	if bad := block.Of(findings, block.Unloadable); len(bad) > 0 {
		return aboutBlock{}, &DamagedError{Findings: bad}
	}
	if err != nil {
		return aboutBlock{}, err
	}
	b := aboutBlock{ULID: filepath.Base(dir), MinTime: stats.MinTime, MaxTime: stats.MaxTime, Origin: origin, Findings: findings}
	if stats.Samples == 0 { // perhaps of unknown encodings: use the times in meta.json
		meta, err := block.ReadMeta(dir)
		if err != nil {
			return b, err
		}
		b.MinTime, b.MaxTime = meta.MinTime, meta.MaxTime-1
	}
	u.log("verified", "block", b.ULID, "samples", stats.Samples)
	return b, nil
}

// rawHead builds blocks of the files of a raw head, and removes these files.
func (u *unpacking) rawHead(ctx context.Context) error {
	raw := false
	names := []string{"wal", "wbl", "chunks_head"}
	for _, name := range names {
		if _, err := os.Stat(filepath.Join(u.data(), name)); err == nil {
			raw = true
		}
	}
	if !raw {
		return nil
	}
	work := filepath.Join(u.dir, "head")
	if err := os.Mkdir(work, 0o700); err != nil {
		return err
	}
	// The unpacked dump is a data directory: its head begins where its blocks end.
	built, err := restore.BuildHead(ctx, local.New(u.data(), local.Options{Logger: u.cache.log}), work)
	if err != nil {
		return err
	}
	for _, b := range built {
		found, err := u.verify(ctx, b.Dir, "head")
		if err != nil {
			return err
		}
		to := filepath.Join(u.data(), found.ULID)
		if _, err := os.Stat(to); err == nil {
			continue // its ULID is derived from its content: the dump has the same block
		}
		if err := os.Rename(b.Dir, to); err != nil {
			return err
		}
		u.about.Blocks = append(u.about.Blocks, found)
	}
	for _, name := range append(names, "../head") {
		if err := os.RemoveAll(filepath.Join(u.data(), name)); err != nil {
			return err
		}
	}
	return nil
}

// origins sets the origin of each block by the dump's plan.
func (u *unpacking) origins() {
	whole := map[string]bool{}
	for _, p := range u.about.Manifest.Plan.Blocks {
		whole[p.ULID] = p.Action == "whole"
	}
	for i := range u.about.Blocks {
		b := &u.about.Blocks[i]
		switch {
		case b.Origin != "":
		case whole[b.ULID]:
			b.Origin = "whole"
		default:
			b.Origin = "built" // cut from a block of the source, or built of its head
		}
	}
	slices.SortFunc(u.about.Blocks, func(a, b aboutBlock) int { return strings.Compare(a.ULID, b.ULID) })
}

// publish syncs the unpacked files, and renames their directory into place.
func (u *unpacking) publish(key string) (*entry, error) {
	u.origins()
	var dirs []string
	err := filepath.WalkDir(u.data(), func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			dirs = append(dirs, path)
			return nil
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		name, err := filepath.Rel(u.data(), path)
		if err != nil {
			return err
		}
		u.about.Files = append(u.about.Files, archive.Entry{Name: filepath.ToSlash(name), Size: fi.Size()})
		u.about.Bytes += fi.Size()
		return syncFile(path)
	})
	if err != nil {
		return nil, fmt.Errorf("sync the unpacked dump: %w", err)
	}
	for _, dir := range append(dirs, u.dir) {
		if err := syncDir(dir); err != nil {
			return nil, fmt.Errorf("sync the unpacked dump: %w", err)
		}
	}
	text, err := json.MarshalIndent(u.about, "", " ")
	if err != nil {
		return nil, err
	}
	if err := writeWhole(filepath.Join(u.dir, entryName), text); err != nil {
		return nil, err
	}
	c := u.cache
	e := &entry{cache: c, key: key, dir: filepath.Join(c.dir, dumpsDir, key), lock: u.lock, about: u.about}
	err = os.Rename(u.dir, e.dir)
	if err == nil {
		_ = syncDir(filepath.Dir(e.dir))
		c.trim()
		return e, nil
	}
	// Another process has published the same dump first.
	if there := c.take(key); there != nil {
		return there, errors.Join(u.lock.Close(), os.RemoveAll(u.dir))
	}
	// take has removed an incomplete directory of that name.
	if again := os.Rename(u.dir, e.dir); again != nil {
		return nil, fmt.Errorf("rename the unpacked dump: %w", err)
	}
	return e, nil
}

// syncFile syncs the content of a file to the disk.
func syncFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
