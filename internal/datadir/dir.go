package datadir

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
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

// errChanged says that the data dir changed between a listing and the opening
// of what was listed.
var errChanged = errors.New("the data dir changed while its files were opened")

// HeadFiles says which files of the head are opened.
type HeadFiles int

const (
	NoHead HeadFiles = iota

	// ReadHead opens the head's logs and head chunks to be read, whatever state they
	// are in.
	ReadHead

	// RawHead opens them to be copied: each log and the head chunks end where a
	// server that starts on the copy needs no repair. Damage before that is reported
	// and left as it is.
	RawHead
)

// Options of [Open].
type Options struct {
	Head HeadFiles

	// Wanted says of which blocks the files are opened. All blocks' metas are read.
	Wanted func(Meta) bool

	Logger *slog.Logger
}

// Dir is an opened data dir. Its files can be read whatever Prometheus does
// meanwhile. The caller closes it.
type Dir struct {
	Path   string
	Head   Head
	Blocks []*Block // by time, then ULID
	Broken []Broken
}

// Broken is a block directory that cannot be used. Prometheus cannot load it
// either.
type Broken struct {
	ULID string
	Err  error
}

// Open opens what o asks for of the data dir at path.
func Open(ctx context.Context, path string, o Options) (*Dir, error) {
	if err := Check(path); err != nil {
		return nil, err
	}
	for try := 1; ; try++ {
		d, err := open(ctx, path, o, try == tries)
		if err == nil || !errors.Is(err, errChanged) {
			return d, err
		}
		if try == tries {
			return nil, fmt.Errorf("open data dir %s: %w (%d times in a row)", path, err, tries)
		}
		o.Logger.Debug("data dir changed while its files were opened, again", "try", try, "reason", err)
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(retryAfter):
		}
	}
}

// Check tells whether path looks like a data dir: nil, [ErrNotDataDir], or why it
// cannot be read.
func Check(path string) error {
	entries, err := os.ReadDir(path)
	if err != nil {
		return fmt.Errorf("read data dir: %w", err)
	}
	for _, e := range entries {
		if e.Name() == "wal" || isULID(e.Name()) {
			return nil
		}
	}
	return fmt.Errorf("%s: %w", path, ErrNotDataDir)
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
	before, err := blockNames(path)
	if err != nil {
		return nil, err
	}
	for _, name := range before {
		b, err := openBlock(path, name, o.Wanted)
		if err == nil {
			d.Blocks = append(d.Blocks, b)
			continue
		}
		// What we may not read, or what the disk does not give, is no broken block:
		// Prometheus may well serve it.
		_, broken := errors.AsType[*brokenError](err)
		if last && errors.Is(err, errChanged) && exists(filepath.Join(path, name)) {
			broken = true // a file of it is missing for good
		}
		if !broken {
			return nil, err
		}
		d.Broken = append(d.Broken, Broken{ULID: name, Err: err})
	}
	// The open files are whole already. This catches what a listing itself can
	// miss while entries are renamed under it.
	after, err := blockNames(path)
	if err != nil {
		return nil, err
	}
	if !last && !slices.Equal(before, after) {
		return nil, fmt.Errorf("%w: blocks came or went", errChanged)
	}
	slices.SortFunc(d.Blocks, func(a, b *Block) int {
		return cmp.Or(cmp.Compare(a.Meta.MinTime, b.Meta.MinTime), cmp.Compare(a.Meta.MaxTime, b.Meta.MaxTime), cmp.Compare(a.Meta.ULID, b.Meta.ULID))
	})
	d.Head.MinValidTime = minValidTime(d.Blocks)
	return d, nil
}

// minValidTime is the time from which in-order samples of the log count, as
// Prometheus computes it at start (tsdb/db.go, inOrderBlocksMaxTime): the end of
// the newest block that was made from in-order samples of a head.
func minValidTime(blocks []*Block) int64 {
	t := int64(math.MinInt64)
	for _, b := range blocks {
		if !b.Meta.Compaction.fromElsewhere() {
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

func blockNames(path string) ([]string, error) {
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, fmt.Errorf("list blocks: %w", err)
	}
	var names []string
	for _, e := range entries {
		if isULID(e.Name()) && e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

func isULID(name string) bool {
	_, err := ulid.ParseStrict(name)
	return err == nil
}

// File is an open file of a data dir. Size is what is read of it: a file that
// grows afterwards does not grow here.
type File struct {
	Name string // relative to the data dir, with slashes
	Size int64  // bytes
	f    *os.File

	blanks     []blank // what is read otherwise than it is on the disk, in order
	unrepaired bool    // a server that was repairing this segment has not made the new one
}

func openFile(dir, name string) (*File, error) {
	f, err := os.Open(filepath.Join(dir, filepath.FromSlash(name)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", errChanged, err)
	}
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", f.Name())
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &File{Name: name, Size: st.Size(), f: f}, nil
}

// ReadAt reads like [io.ReaderAt], also beyond Size when the file has grown.
func (f *File) ReadAt(p []byte, off int64) (int, error) {
	n, err := f.f.ReadAt(p, off)
	cover(f.blanks, p[:n], off)
	return n, err
}

// Body reads the file from its start to Size. Bodies do not disturb each other.
func (f *File) Body() *io.SectionReader { return io.NewSectionReader(f, 0, f.Size) }

func closeAll(files []*File) error {
	var err error
	for _, f := range files {
		err = errors.Join(err, f.f.Close())
	}
	return err
}

func sizes(files []*File) int64 {
	var n int64
	for _, f := range files {
		n += f.Size
	}
	return n
}
