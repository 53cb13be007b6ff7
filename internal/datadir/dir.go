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

// A data dir that changes at every look is looked at this often, in these
// intervals, before we give up.
const (
	tries      = 10
	retryAfter = 50 * time.Millisecond
)

// ErrNotDataDir says that a directory has neither blocks nor a write-ahead log.
var ErrNotDataDir = errors.New("not a Prometheus data dir: it has no block and no wal directory")

// ErrChanged reports that the data dir changed between listing it and opening the
// listed files.
var ErrChanged = errChanged

var errChanged = errors.New("the data dir changed while its files were opened")

// HeadFiles says which files of the head are opened.
type HeadFiles int

const (
	NoHead HeadFiles = iota

	// ReadHead opens the head's logs and head chunks for reading, damaged or not.
	ReadHead

	// RawHead opens them for copying: each log and the head chunks end at a point where
	// a server that starts on the copy needs no repair. Damage before that point is
	// reported and copied.
	RawHead
)

// Options of [Open].
type Options struct {
	Head HeadFiles

	// Wanted selects the blocks to check and open; nil selects all. The meta.json of
	// every block is read.
	Wanted func(Meta) bool

	// LookOnly closes the files of blocks after the check.
	LookOnly bool

	// Sketch marks a directory that is a copy without the large files of its blocks: no
	// block is checked.
	Sketch bool

	// Handles limits how many block files are held open; 0 means the limit of the
	// process. Blocks beyond the limit are opened by [Block.Open].
	Handles int

	Logger *slog.Logger
}

// Dir is an opened data dir. Its open files can be read whatever Prometheus does
// meanwhile. The caller closes it.
type Dir struct {
	Path    string
	Head    Head
	Blocks  []*Block  // that can be loaded, or were not checked; sorted by time, then ULID
	LeftOut []LeftOut // of the checked blocks; sorted by ULID
}

// LeftOut is a block directory that Prometheus cannot load or ignores.
type LeftOut struct {
	ULID string // name of the directory
	Err  error  // why
	Meta *Meta  // nil if it cannot be read
}

// Open opens what o asks for of the data dir at path.
func Open(ctx context.Context, path string, o Options) (*Dir, error) {
	if err := Check(path); err != nil {
		return nil, err
	}
	before, settled := "", false
	for try := 1; ; try++ {
		d, err := open(ctx, path, o, settled || try == tries)
		if err == nil || !errors.Is(err, errChanged) {
			return d, err
		}
		if settled {
			return nil, fmt.Errorf("open data dir %s: %w", path, err)
		}
		if try == tries {
			return nil, fmt.Errorf("open data dir %s: %w (%d times in a row)", path, err, tries)
		}
		o.Logger.Debug("data dir changed while its files were opened, again", "try", try, "reason", err)
		// The same error on the same names means that the data dir does not change: it
		// is damaged.
		now := err.Error() + "\n" + names(path)
		settled, before = now == before, now
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(retryAfter):
		}
	}
}

// names returns the names in a data dir and in the directories of its head.
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

// Check tells whether path looks like a data dir: nil, [ErrNotDataDir], or why it
// cannot be read. Symbolic links are followed.
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

// isDir reports whether an entry is a directory or a link to one.
func isDir(path string, e fs.DirEntry) bool {
	if e.Type()&fs.ModeSymlink == 0 {
		return e.IsDir()
	}
	st, err := os.Stat(filepath.Join(path, e.Name()))
	return err == nil && st.IsDir()
}

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
			ULID: name, Err: errors.New("it is a symbolic link, and Prometheus does not follow it"),
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
	// The open files are whole already. This catches what a listing itself can
	// miss while entries are renamed under it.
	after, _, err := blockNames(path)
	if err != nil {
		return nil, err
	}
	if !last && !slices.Equal(before, after) {
		return nil, fmt.Errorf("%w: blocks came or went", errChanged)
	}
	d.Head.MinValidTime = minValidTime(d.Blocks)
	return d, nil
}

// openBlocks fills d.Blocks and d.LeftOut.
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
	// A server deletes these without loading them.
	d.LeftOut = slices.DeleteFunc(d.LeftOut, func(b LeftOut) bool { return replaced[b.ULID] != "" })
	handles := o.Handles
	if handles == 0 && len(metas) > 0 {
		handles = freeHandles()
	}
	for _, m := range metas {
		dropped := ""
		switch {
		case replaced[m.named] != "":
			dropped = fmt.Sprintf("block %s replaces it, and a server deletes it", replaced[m.named])
		case m.Compaction.Deletable:
			dropped = "its samples are deleted, and a server deletes it"
		}
		l := look{check: dropped == "" && wanted(m)}
		l.hold = l.check && !o.LookOnly && handles > 0
		b, err := openBlock(d.Path, m, l)
		if l.hold && errors.Is(err, syscall.EMFILE) {
			handles, l.hold = 0, false
			b, err = openBlock(d.Path, m, l)
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

// replaced returns the blocks that a server deletes when it starts because a block that
// it can load has them as parents (tsdb/db.go, reloadBlocks), each with the name of
// that block.
func (d *Dir) replaced(metas []Meta, names []string, o Options) (map[string]string, error) {
	by := map[string]string{}
	there := map[string]bool{}
	for _, name := range names {
		there[name] = true
	}
	for _, m := range metas {
		there[m.named] = true
	}
	for _, m := range metas {
		if !slices.ContainsFunc(m.Compaction.Parents, func(p string) bool { return there[p] }) {
			continue
		}
		_, err := openBlock(d.Path, m, look{check: !o.Sketch})
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

// minValidTime is the time from which in-order samples of the log count, as
// Prometheus computes it at start (tsdb/db.go, inOrderBlocksMaxTime): the end of
// the newest block that was made from in-order samples of a head.
func minValidTime(blocks []*Block) int64 {
	t := int64(math.MinInt64)
	for _, b := range blocks {
		if b.Dropped == "" && !b.Meta.Compaction.fromElsewhere() {
			t = max(t, b.Meta.MaxTime)
		}
	}
	return t
}

// Close closes all files.
func (d *Dir) Close() error {
	err := d.Head.close()
	for _, b := range d.Blocks {
		err = errors.Join(err, closeAll(b.Files))
	}
	return err
}

// blockNames returns the names of block directories and of links to such.
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
