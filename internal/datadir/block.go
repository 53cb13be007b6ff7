package datadir

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// Block is a persisted block.
type Block struct {
	Meta  Meta
	Bytes int64   // of all its files
	Files []*File // meta.json, chunks in order, index, tombstones; empty: see Open

	// Segments is the number of chunk segments that the index refers to, and Lost has
	// the numbers, from 1, of those that are missing. If none is lost, Segments may be
	// 0: unknown.
	Segments int
	Lost     []int

	// Dropped is the reason why a server deletes the block when it starts, or as soon
	// as it can: another block replaces it, or its samples are all deleted. It is empty
	// if the server keeps the block.
	Dropped string

	dir string // the data dir
}

// File is the block's file with this name relative to the block, or nil.
func (b *Block) File(name string) *File {
	for _, f := range b.Files {
		if f.Name == b.Meta.ULID+"/"+name {
			return f
		}
	}
	return nil
}

// Chunks are the block's chunk files, in the order that chunk references count
// them. One that is lost is nil.
func (b *Block) Chunks() []*File {
	var files []*File
	for _, f := range b.Files {
		if number, ok := strings.CutPrefix(f.Name, b.Meta.ULID+"/chunks/"); ok {
			if len(b.Lost) > 0 {
				n, _ := strconv.Atoi(number) // place has checked it
				for len(files) < n-1 {
					files = append(files, nil)
				}
			}
			files = append(files, f)
		}
	}
	return files
}

// Open opens the block's files unless they are open. If the block has changed since the
// data dir was opened, it returns [ErrChanged]: open the data dir again.
func (b *Block) Open() error {
	if len(b.Files) > 0 {
		return nil
	}
	now, err := openBlock(b.dir, b.Meta, look{check: true, hold: true})
	if broken, ok := errors.AsType[*brokenError](err); ok {
		return fmt.Errorf("%w: block %s: %w", errChanged, b.Meta.ULID, broken)
	}
	if err != nil {
		return err
	}
	b.Files, b.Bytes, b.Segments, b.Lost = now.Files, now.Bytes, now.Segments, now.Lost
	return nil
}

// Close closes the block's files before the data dir is closed: as long as they
// are open, a block that Prometheus deletes keeps its space on the disk.
func (b *Block) Close() error {
	files := b.Files
	b.Files = nil
	return closeAll(files)
}

// brokenError is about what is in a block, not about getting at it.
type brokenError struct {
	err error

	// missing: a file of the block is missing. The whole block may just have been
	// deleted, or be incomplete yet.
	missing bool
}

func (e *brokenError) Error() string { return e.err.Error() }
func (e *brokenError) Unwrap() error { return e.err }

func broken(format string, args ...any) error { return &brokenError{err: fmt.Errorf(format, args...)} }

// blockFault classifies an error about a file of a block. Errors of the disk or of
// permissions do not make a block broken: Prometheus may well serve it.
func blockFault(dir, name, what string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errNotRegular):
		return broken("%s is not a regular file", what)
	case missing(err) && exists(filepath.Join(dir, name)):
		return &brokenError{err: fmt.Errorf("%s is missing", what), missing: true}
	case missing(err):
		return fmt.Errorf("%w: block %s is gone", errChanged, name)
	}
	return err
}

// readMeta reads the meta.json of a block. It returns the text, too.
func readMeta(dir, name string) (Meta, []byte, error) {
	f, err := openFile(dir, name+"/meta.json")
	if err != nil {
		return Meta{}, nil, blockFault(dir, name, "meta.json", err)
	}
	defer f.f.Close()
	if f.Size > maxMeta {
		return Meta{}, nil, broken("meta.json has %d bytes, more than promdump reads", f.Size)
	}
	text, err := io.ReadAll(f.Body())
	if err != nil {
		return Meta{}, nil, fmt.Errorf("read meta.json of block %s: %w", name, err)
	}
	m, err := ParseMeta(name, text)
	if err != nil {
		return Meta{}, nil, &brokenError{err: err}
	}
	return m, text, nil
}

// look controls what openBlock checks and keeps open.
type look struct {
	check bool // whether Prometheus can load it
	hold  bool // its files stay open
}

// openBlock opens a block as l says. An error is a *brokenError, [errChanged], or an
// error of reading it.
func openBlock(dir string, m Meta, l look) (_ *Block, err error) {
	name := m.ULID
	b := &Block{Meta: m, dir: dir}
	if !l.check {
		b.Bytes = sizeOf(filepath.Join(dir, name))
		return b, nil
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.Close())
		}
	}()
	// add opens a file of the block, and closes it after its check unless it is held.
	add := func(rel string, check func(*File) error) error {
		f, err := openFile(dir, name+"/"+rel)
		if err != nil {
			return blockFault(dir, name, rel, err)
		}
		b.Files = append(b.Files, f)
		if err := check(f); err != nil {
			return err
		}
		b.Bytes += f.Size
		if l.hold {
			return nil
		}
		return f.close()
	}
	var text []byte
	if b.Meta, text, err = readMeta(dir, name); err != nil {
		return nil, err
	}
	err = add("meta.json", func(f *File) (err error) {
		if f.text, err = b.Meta.repaired(text); f.text != nil {
			f.Size = int64(len(f.text))
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	segments, err := blockSegments(dir, name)
	if err != nil {
		return nil, err
	}
	for _, s := range segments {
		if err := add("chunks/"+s, checkSegment); err != nil {
			return nil, err
		}
	}
	needed := unknown
	err = add("index", func(f *File) (err error) {
		if b.Meta.Version == 2 {
			f.patch = &patch{off: 4, b: 2} // as a server does when it starts, see tsdb/repair.go
		}
		needed, err = checkIndex(f)
		return err
	})
	if err != nil {
		return nil, err
	}
	// A broken link counts as a missing file, as for a server.
	if _, err := os.Stat(filepath.Join(dir, name, "tombstones")); !errors.Is(err, fs.ErrNotExist) {
		if err := add("tombstones", checkTombstones); err != nil {
			return nil, err
		}
	} else if !exists(filepath.Join(dir, name)) {
		return nil, fmt.Errorf("%w: block %s is gone", errChanged, name)
	}
	if err := b.place(segments, needed); err != nil {
		return nil, err
	}
	if !l.hold {
		b.Files = nil
	}
	return b, nil
}

// blockSegments are the names of a block's chunk files in the order in which a
// server counts them: that of their names, whatever is missing in between
// (tsdb/chunks/chunks.go, sequenceFiles).
func blockSegments(dir, name string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(dir, name, "chunks"))
	if errors.Is(err, syscall.ENOTDIR) && exists(filepath.Join(dir, name)) {
		return nil, broken("chunks is not a directory")
	}
	if err != nil {
		return nil, blockFault(dir, name, "chunks", err)
	}
	var names []string
	for _, e := range entries {
		if _, err := strconv.ParseUint(e.Name(), 10, 64); err == nil {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// place finds out which chunk segment is which. A server counts those that are
// there: where one is missing, it takes each that follows for the one before it, and
// finds none of their chunks. Here they count by their names then. In a dump segments
// have the names that Prometheus gives them, since it allows no others.
func (b *Block) place(segments []string, needed int) error {
	if needed == unknown && b.Meta.Stats.Chunks > 0 && len(segments) == 0 {
		needed = 1
	}
	if needed > 0 && len(segments) == 0 {
		return broken("chunks is empty: none of the samples that its index names is there")
	}
	b.Segments = max(needed, 0)
	numbers := make([]int, len(segments))
	for i := range segments {
		numbers[i] = i + 1
	}
	if needed > len(segments) {
		byName := make([]int, len(segments))
		distinct := map[int]bool{}
		for i, s := range segments {
			n, err := strconv.Atoi(s)
			if err != nil || n < 1 || n > needed {
				break
			}
			byName[i], distinct[n] = n, true
		}
		if len(distinct) == len(segments) {
			numbers = byName
		}
		for n := 1; n <= needed; n++ {
			if !slices.Contains(numbers, n) {
				b.Lost = append(b.Lost, n)
			}
		}
	}
	i := 0
	for _, f := range b.Files {
		if strings.HasPrefix(f.Name, b.Meta.ULID+"/chunks/") {
			f.Name = fmt.Sprintf("%s/chunks/%06d", b.Meta.ULID, numbers[i])
			i++
		}
	}
	return nil
}

// sizeOf returns the size of a block that is not opened, in bytes.
func sizeOf(dir string) int64 {
	var n int64
	for _, pattern := range []string{"meta.json", "index", "tombstones", "chunks/*"} {
		found, _ := filepath.Glob(filepath.Join(dir, pattern)) // only a bad pattern is an error
		for _, name := range found {
			if st, err := os.Stat(name); err == nil {
				n += st.Size()
			}
		}
	}
	return n
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
