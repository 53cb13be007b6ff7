package datadir

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/oklog/ulid/v2"
)

// Limits for opening a data directory that keeps changing.
const (
	maxTries   = 10
	retryDelay = 50 * time.Millisecond
)

// ErrNotDataDir reports a directory with neither a block nor a WAL.
var ErrNotDataDir = errors.New("not a Prometheus data dir: it has no block and no wal directory")

// ErrChanged reports that the data directory changed between listing it and opening the
// listed files.
var ErrChanged = errChanged

var errChanged = errors.New("the data dir changed while its files were opened")

// HeadFiles selects the files of the head that [Open] opens.
type HeadFiles int

const (
	// NoHead opens no file of the head.
	NoHead HeadFiles = iota

	// ReadHead opens the logs and the m-mapped chunks for reading, also if they are
	// damaged.
	ReadHead

	// RawHead opens them for copying. Each log and the m-mapped chunks end after the last
	// complete record or chunk, so that a server needs no repair of the end when it
	// starts on the copy. The copy contains damage before that end; [Head.Damage]
	// reports it.
	RawHead
)

// Options are the options of [Open].
type Options struct {
	Head HeadFiles

	// Wanted selects the blocks to check and open; nil selects all. Open reads the
	// meta.json of every block.
	Wanted func(Meta) bool

	// CheckOnly closes the files of each block after its check.
	CheckOnly bool

	// Sketch marks a copy of a data directory without the large files of its blocks.
	// Open checks no block.
	Sketch bool

	// Handles limits how many block files stay open; 0 means the limit of the process.
	// The caller opens the blocks beyond the limit with [Block.Open].
	Handles int

	Logger *slog.Logger // required
}

// Dir is an opened data directory. Its open files stay readable after Prometheus has
// deleted or replaced them. The caller must close it.
type Dir struct {
	Path    string
	Head    Head
	Blocks  []*Block  // loadable or unchecked blocks, sorted by time, then ULID
	LeftOut []LeftOut // checked blocks that Prometheus does not serve, sorted by ULID
}

// LeftOut is a block directory that Prometheus cannot load or ignores.
type LeftOut struct {
	ULID string // name of the directory
	Err  error  // the reason
	Meta *Meta  // nil if it cannot be read
}

// Open opens the data directory at path. It retries up to 10 times while the data directory
// changes and then returns [ErrChanged]. It returns [ErrNotDataDir] for another directory.
// Blocks that Prometheus cannot load are no error; see [Dir].LeftOut.
func Open(ctx context.Context, path string, o Options) (*Dir, error) {
	if err := Check(path); err != nil {
		return nil, err
	}
	before, unchanged := "", false
	for try := 1; ; try++ {
		d, err := open(ctx, path, o, unchanged || try == maxTries)
		if err == nil || !errors.Is(err, errChanged) {
			return d, err
		}
		if unchanged {
			return nil, fmt.Errorf("open data dir %s: %w", path, err)
		}
		if try == maxTries {
			return nil, fmt.Errorf("open data dir %s: %w (%d tries)", path, err, maxTries)
		}
		o.Logger.Debug("data dir changed while its files were opened, retrying", "try", try, "reason", err)
		// The same error with the same names means that the data directory does not
		// change but is damaged.
		now := err.Error() + "\n" + names(path)
		unchanged, before = now == before, now
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(retryDelay):
		}
	}
}

// names returns the names in a data directory and in the directories of its head, one a
// line.
func names(path string) string {
	var all []string
	for _, dir := range append([]string{"."}, HeadNames()...) {
		entries, err := os.ReadDir(filepath.Join(path, dir))
		if err != nil {
			all = append(all, err.Error())
		}
		for _, e := range entries {
			all = append(all, dir+"/"+e.Name())
		}
	}
	return strings.Join(all, "\n")
}

// Check returns nil if path has a WAL or a block directory, [ErrNotDataDir] if it has
// neither, and the failure to read the directory otherwise. It follows symbolic links.
func Check(path string) error {
	entries, err := os.ReadDir(path)
	if err != nil {
		return fmt.Errorf("read data dir: %w", err)
	}
	for _, e := range entries {
		if (e.Name() == "wal" || isULID(e.Name())) && isDir(path, e) {
			return nil
		}
	}
	return fmt.Errorf("%s: %w", path, ErrNotDataDir)
}

// isDir reports whether the entry e of the directory path is a directory or a symbolic link
// to one.
func isDir(path string, e fs.DirEntry) bool {
	if e.Type()&fs.ModeSymlink == 0 {
		return e.IsDir()
	}
	st, err := os.Stat(filepath.Join(path, e.Name()))
	return err == nil && st.IsDir()
}

// open tries once to open the data directory. It returns [errChanged] for a state that a
// server may be changing, unless last is set.
func open(ctx context.Context, path string, o Options, last bool) (_ *Dir, err error) {
	d := &Dir{Path: path}
	defer func() {
		if err != nil {
			d.Close()
		}
	}()
	if err := d.Head.open(ctx, path, o.Head, last); err != nil {
		return nil, err
	}
	before, links, err := blockNames(path)
	if err != nil {
		return nil, err
	}
	for _, name := range links {
		d.LeftOut = append(d.LeftOut, LeftOut{
			ULID: name, Err: errors.New("the directory is a symbolic link, which Prometheus does not follow"),
		})
	}
	if err := d.openBlocks(before, o); err != nil {
		return nil, err
	}
	for _, b := range d.LeftOut {
		if fault, ok := errors.AsType[*brokenError](b.Err); ok && fault.missing && !last {
			return nil, fmt.Errorf("%w: block %s: %w", errChanged, b.ULID, fault)
		}
	}
	// A listing can miss entries that a server renames at the same time.
	after, _, err := blockNames(path)
	if err != nil {
		return nil, err
	}
	if !last && !slices.Equal(before, after) {
		return nil, fmt.Errorf("%w: the list of blocks changed", errChanged)
	}
	d.Head.MinValidTime = minValidTime(d.Blocks)
	return d, nil
}

// openBlocks opens the named blocks and sets d.Blocks and d.LeftOut.
func (d *Dir) openBlocks(names []string, o Options) error {
	leaveOut := func(name string, m *Meta, err error) error {
		if _, ok := errors.AsType[*brokenError](err); !ok {
			return err
		}
		d.LeftOut = append(d.LeftOut, LeftOut{ULID: name, Err: err, Meta: m})
		return nil
	}
	var metas []Meta
	for _, name := range names {
		m, _, err := readMeta(d.Path, name)
		if err != nil {
			if err := leaveOut(name, nil, err); err != nil {
				return err
			}
			continue
		}
		metas = append(metas, m)
	}
	slices.SortFunc(metas, func(a, b Meta) int {
		return cmp.Or(cmp.Compare(a.MinTime, b.MinTime), cmp.Compare(a.MaxTime, b.MaxTime), cmp.Compare(a.ULID, b.ULID))
	})
	wanted := func(m Meta) bool { return !o.Sketch && (o.Wanted == nil || o.Wanted(m)) }
	replaced, err := d.replaced(metas, names, o)
	if err != nil {
		return err
	}
	// A server deletes a replaced block without loading it, so its faults do not matter.
	d.LeftOut = slices.DeleteFunc(d.LeftOut, func(b LeftOut) bool { return replaced[b.ULID] != "" })
	handles := o.Handles
	if handles == 0 && len(metas) > 0 {
		handles = freeHandles()
	}
	for _, m := range metas {
		dropped := ""
		switch {
		case replaced[m.named] != "":
			dropped = fmt.Sprintf("block %s replaces it, so a server deletes it", replaced[m.named])
		case m.Compaction.Deletable:
			dropped = "all its samples are deleted, so a server deletes it"
		}
		mode := openMode{check: dropped == "" && wanted(m)}
		mode.hold = mode.check && !o.CheckOnly && handles > 0
		b, err := openBlock(d.Path, m, mode)
		if mode.hold && errors.Is(err, syscall.EMFILE) {
			handles, mode.hold = 0, false
			b, err = openBlock(d.Path, m, mode)
		}
		if err != nil {
			if err := leaveOut(m.ULID, &m, err); err != nil {
				return err
			}
			continue
		}
		b.Dropped = dropped
		d.Blocks = append(d.Blocks, b)
		if handles -= len(b.Files); handles < 0 {
			handles = 0
			if err := b.Close(); err != nil {
				return err
			}
		}
	}
	slices.SortStableFunc(d.LeftOut, func(a, b LeftOut) int { return cmp.Compare(a.ULID, b.ULID) })
	return nil
}

// replaced maps each block that another block replaces to that block. A block replaces its
// parents if a server can load it; a server that starts deletes the parents (tsdb/db.go,
// reloadBlocks).
func (d *Dir) replaced(metas []Meta, names []string, o Options) (map[string]string, error) {
	by := map[string]string{}
	exists := map[string]bool{}
	for _, name := range names {
		exists[name] = true
	}
	for _, m := range metas {
		exists[m.named] = true
	}
	for _, m := range metas {
		if !slices.ContainsFunc(m.Compaction.Parents, func(p string) bool { return exists[p] }) {
			continue
		}
		_, err := openBlock(d.Path, m, openMode{check: !o.Sketch})
		if _, broken := errors.AsType[*brokenError](err); broken {
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, p := range m.Compaction.Parents {
			by[p] = m.ULID
		}
	}
	return by, nil
}

// minValidTime returns the time of [Head.MinValidTime]: the time before which blocks have
// all in-order samples.
//
// Prometheus takes the end of the newest block of in-order samples when it starts
// (tsdb/db.go, inOrderBlocksMaxTime). That may be too late: if a server merges a block of
// in-order samples with a later block of out-of-order samples, the result has no hint
// (CompactBlockMetas), and the in-order samples of the later time are still in the head. A
// running server serves them. The in-order samples of a merged block reach at least to the
// lowest end of its parents. If they reach further, a dump has some samples twice, which
// are equal.
func minValidTime(blocks []*Block) int64 {
	t := int64(math.MinInt64)
	for _, b := range blocks {
		if b.Dropped == "" && !b.Meta.Compaction.notInOrder() {
			t = max(t, min(b.Meta.MaxTime, b.Meta.Compaction.parentsEnd))
		}
	}
	return t
}

// Close closes all open files, those of the head and of blocks.
func (d *Dir) Close() error {
	err := d.Head.close()
	for _, b := range d.Blocks {
		err = errors.Join(err, closeAll(b.Files))
	}
	return err
}

// blockNames returns the names of block directories, and of symbolic links to directories
// that are named like blocks. Both are sorted.
func blockNames(path string) (dirs, links []string, err error) {
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, nil, fmt.Errorf("list blocks: %w", err)
	}
	for _, e := range entries {
		switch {
		case !isULID(e.Name()):
		case e.IsDir():
			dirs = append(dirs, e.Name())
		case isDir(path, e):
			links = append(links, e.Name())
		}
	}
	return dirs, links, nil
}

func isULID(name string) bool {
	_, err := ulid.ParseStrict(name)
	return err == nil
}
