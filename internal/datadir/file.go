package datadir

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"syscall"
)

// File is an open file of a data directory. Its contents may differ from those on disk
// where a dump needs it, for example the repaired meta.json of a block.
type File struct {
	Name string // relative to the data directory, with slashes
	Size int64  // in bytes, when the file was opened
	f    *os.File

	blanks []blank // replace record fragments on disk; sorted by offset
	text   []byte  // if not nil, replaces the contents on disk
	patch  *patch  // if not nil, replaces a byte on disk

	fault      error // if not nil, why the file cannot be read: it reads as empty
	unrepaired bool  // original of an interrupted repair, and the server created no new segment
}

// patch replaces the byte at an offset.
type patch struct {
	off int64
	b   byte
}

// errNotRegular reports a directory, a device or a pipe in place of a file.
var errNotRegular = errors.New("not a regular file")

// errNotDir reports a file in place of a directory of the head.
var errNotDir = errors.New("not a directory")

// unreadable returns an empty file in place of one that exists but cannot be read.
func unreadable(name string, fault error) *File {
	return &File{Name: name, text: []byte{}, fault: fault}
}

// faultFatal reports whether the fault prevents a server from starting. It does not for a
// segment of a log: the server repairs the log.
func (f *File) faultFatal() bool {
	dir := path.Dir(f.Name)
	return dir != "wal" && dir != "wbl"
}

// hasPrefix reports whether the file begins with prefix.
func (f *File) hasPrefix(prefix []byte) bool {
	head := make([]byte, len(prefix))
	n, _ := f.ReadAt(head, 0)
	return f.Size >= int64(len(prefix)) && bytes.Equal(head[:n], prefix)
}

// openFile opens the file name of the data directory dir. It returns [errChanged] if the
// file does not exist.
func openFile(dir, name string) (*File, error) {
	path := filepath.Join(dir, filepath.FromSlash(name))
	// Opening a pipe blocks until it has a writer, so the type is checked first.
	if st, err := os.Stat(path); err == nil && !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: %w", path, errNotRegular)
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", errChanged, err)
	}
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s: %w", path, errNotRegular)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &File{Name: name, Size: st.Size(), f: f}, nil
}

// ReadAt implements [io.ReaderAt]. It reads beyond Size if the file has grown; use
// [File.Body] to stop there.
func (f *File) ReadAt(p []byte, off int64) (int, error) {
	if f.text != nil {
		return bytes.NewReader(f.text).ReadAt(p, off)
	}
	n, err := f.f.ReadAt(p, off)
	applyBlanks(f.blanks, p[:n], off)
	if f.patch != nil && f.patch.off >= off && f.patch.off < off+int64(n) {
		p[f.patch.off-off] = f.patch.b
	}
	return n, err
}

// Body returns a reader of the first Size bytes of the file. Several bodies of a file can
// be read concurrently. They are valid until the block or [Dir] is closed.
func (f *File) Body() *io.SectionReader { return io.NewSectionReader(f, 0, f.Size) }

// closeAll closes all files and joins the errors.
func closeAll(files []*File) error {
	var err error
	for _, f := range files {
		err = errors.Join(err, f.close())
	}
	return err
}

// close closes the file. A second call does nothing.
func (f *File) close() error {
	if f.f == nil {
		return nil
	}
	err := f.f.Close()
	f.f = nil
	return err
}

// totalSize returns the sum of the sizes of the files, in bytes.
func totalSize(files []*File) int64 {
	var n int64
	for _, f := range files {
		n += f.Size
	}
	return n
}

// missing reports whether err means that a path does not exist, or cannot exist because a
// part of it is not a directory or is a symbolic link to itself.
func missing(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ELOOP)
}
