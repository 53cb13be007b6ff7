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
	Bytes int64 // size of all files

	// Files are the open files of the block: meta.json, chunks in order, index,
	// tombstones. It is empty before [Block.Open] and after [Block.Close].
	Files []*File

	// Segments is the number of chunk segments that the index refers to; 0 if it could
	// not be determined and no segment is missing.
	Segments int

	// Lost has the numbers of the missing chunk segments, counted from 1.
	Lost []int

	// Dropped is the reason why a server deletes the block at its next start or
	// reload: another block replaces it, or all its samples are deleted. It is empty if
	// the server keeps the block.
	Dropped string

	dir string // path of the data directory
}

// File returns the open file with this name relative to the block, or nil.
func (b *Block) File(name string) *File {
	for _, f := range b.Files {
		if f.Name == b.Meta.ULID+"/"+name {
			return f
		}
	}
	return nil
}

// Chunks returns the open chunk files in the order in which chunk references number them,
// with nil for a missing one.
func (b *Block) Chunks() []*File {
	var files []*File
	for _, f := range b.Files {
		if number, ok := strings.CutPrefix(f.Name, b.Meta.ULID+"/chunks/"); ok {
			if len(b.Lost) > 0 {
				n, _ := strconv.Atoi(number) // numberSegments set the name
				for len(files) < n-1 {
					files = append(files, nil)
				}
			}
			files = append(files, f)
		}
	}
	return files
}

// Open opens the block's files unless they are open. The caller closes them with
// [Block.Close] or [Dir.Close]. If the block has changed since the data directory was
// opened, Open returns [ErrChanged], and the caller must open the data directory again.
func (b *Block) Open() error {
	if len(b.Files) > 0 {
		return nil
	}
	now, err := openBlock(b.dir, b.Meta, openMode{check: true, hold: true})
	if broken, ok := errors.AsType[*brokenError](err); ok {
		return fmt.Errorf("%w: block %s: %w", errChanged, b.Meta.ULID, broken)
	}
	if err != nil {
		return err
	}
	b.Files, b.Bytes, b.Segments, b.Lost = now.Files, now.Bytes, now.Segments, now.Lost
	return nil
}

// Close closes the block's files. Call it as soon as the block has been read: an open
// file keeps its disk space after Prometheus has deleted it.
func (b *Block) Close() error {
	files := b.Files
	b.Files = nil
	return closeAll(files)
}

// brokenError reports that the contents of a block are broken: a server cannot load it.
// Failures to read the block have other types.
type brokenError struct {
	err error

	// missing is true if a file of the block is missing. A server may be deleting or
	// writing the block at the moment.
	missing bool
}

func (e *brokenError) Error() string { return e.err.Error() }
func (e *brokenError) Unwrap() error { return e.err }

// broken returns a *brokenError.
func broken(format string, args ...any) error { return &brokenError{err: fmt.Errorf(format, args...)} }

// blockFault classifies an error about the file what of the block name. It returns a
// *brokenError, [errChanged] if the block was deleted, or err. Permission and disk errors
// do not make a block broken: Prometheus may be able to read it.
func blockFault(dir, name, what string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errNotRegular):
		return broken("%s is not a regular file", what)
	case missing(err) && exists(filepath.Join(dir, name)):
		return &brokenError{err: fmt.Errorf("%s is missing", what), missing: true}
	case missing(err):
		return fmt.Errorf("%w: block %s was deleted", errChanged, name)
	}
	return err
}

// readMeta reads the meta.json of a block. It also returns the text.
func readMeta(dir, name string) (Meta, []byte, error) {
	f, err := openFile(dir, name+"/meta.json")
	if err != nil {
		return Meta{}, nil, blockFault(dir, name, "meta.json", err)
	}
	defer f.f.Close()
	if f.Size > maxMeta {
		return Meta{}, nil, broken("meta.json is too large (%d bytes)", f.Size)
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

// openMode selects what openBlock does.
type openMode struct {
	check bool // open the files and check whether Prometheus can load the block
	hold  bool // keep the files open
}

// openBlock opens a block. Without check it only determines the size. An error is a
// *brokenError, [errChanged], or the failure to read a file.
func openBlock(dir string, m Meta, mode openMode) (_ *Block, err error) {
	name := m.ULID
	b := &Block{Meta: m, dir: dir}
	if !mode.check {
		b.Bytes = sizeOf(filepath.Join(dir, name))
		return b, nil
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.Close())
		}
	}()
	// add opens and checks a file of the block, and closes it unless mode.hold is set.
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
		if mode.hold {
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
			f.patch = &patch{off: 4, b: 2} // like a server that starts, see tsdb/repair.go
		}
		needed, err = checkIndex(f)
		return err
	})
	if err != nil {
		return nil, err
	}
	// A server treats a dangling link as a missing file.
	if _, err := os.Stat(filepath.Join(dir, name, "tombstones")); !errors.Is(err, fs.ErrNotExist) {
		if err := add("tombstones", checkTombstones); err != nil {
			return nil, err
		}
	} else if !exists(filepath.Join(dir, name)) {
		return nil, fmt.Errorf("%w: block %s was deleted", errChanged, name)
	}
	if err := b.numberSegments(segments, needed); err != nil {
		return nil, err
	}
	if !mode.hold {
		b.Files = nil
	}
	return b, nil
}

// blockSegments returns the names of a block's chunk files in the order in which a server
// numbers them: sorted by name, without gaps for missing ones (tsdb/chunks/chunks.go,
// sequenceFiles).
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

// numberSegments determines the number of each chunk segment, and which of the needed ones
// are missing. It names the files of the block by these numbers as Prometheus does, which
// in a dump allows no other names.
//
// A server numbers the existing segments consecutively: after a missing one it reads each
// as its predecessor and does not find its chunks. numberSegments uses the numbers in the
// file names if a segment is missing.
func (b *Block) numberSegments(segments []string, needed int) error {
	if needed == unknown && b.Meta.Stats.Chunks > 0 && len(segments) == 0 {
		needed = 1
	}
	if needed > 0 && len(segments) == 0 {
		return broken("chunks is empty, but the index refers to chunks")
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

// sizeOf returns the size of the files of the block in dir, in bytes. It ignores errors.
func sizeOf(dir string) int64 {
	var n int64
	for _, pattern := range []string{"meta.json", "index", "tombstones", "chunks/*"} {
		found, _ := filepath.Glob(filepath.Join(dir, pattern)) // fails for a bad pattern only
		for _, name := range found {
			if st, err := os.Stat(name); err == nil {
				n += st.Size()
			}
		}
	}
	return n
}

// exists reports whether path exists. It does not follow a symbolic link.
func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
