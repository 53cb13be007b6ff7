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

// File is an open file of a data dir. Only Size bytes are read, even if the file grows.
type File struct {
	Name string // relative to the data dir, with slashes
	Size int64  // bytes
	f    *os.File

	blanks []blank // bytes that read differently than on disk, sorted
	text   []byte  // if not nil, the content in place of the file's
	patch  *patch

	fault      error // why nothing can be read of it, if the file is there
	unrepaired bool  // a server that was repairing this segment has not made the new one
}

// patch is a byte that reads differently than on disk.
type patch struct {
	off int64
	b   byte
}

// errNotRegular reports a directory, a device or a pipe in place of a file.
var errNotRegular = errors.New("not a regular file")

// errNotDir says that something else is where a directory of the head should be.
var errNotDir = errors.New("not a directory")

// unreadable stands for a file of the head that is there and cannot be one: it reads
// as an empty file.
func unreadable(name string, fault error) *File {
	return &File{Name: name, text: []byte{}, fault: fault}
}

// faultFatal reports whether a server does not start because of the fault. A segment
// of a log that it cannot read is one that it repairs.
func (f *File) faultFatal() bool {
	dir := path.Dir(f.Name)
	return dir != "wal" && dir != "wbl"
}

// begins reports whether the file begins with some bytes.
func (f *File) begins(with []byte) bool {
	head := make([]byte, len(with))
	n, _ := f.ReadAt(head, 0)
	return f.Size >= int64(len(with)) && bytes.Equal(head[:n], with)
}

// openFile opens a file of the data dir. A name that is gone is [errChanged].
func openFile(dir, name string) (*File, error) {
	path := filepath.Join(dir, filepath.FromSlash(name))
	// Checked before opening: to open a pipe would wait for a writer.
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

// ReadAt implements [io.ReaderAt]. It also reads beyond Size if the file has grown.
func (f *File) ReadAt(p []byte, off int64) (int, error) {
	if f.text != nil {
		return bytes.NewReader(f.text).ReadAt(p, off)
	}
	n, err := f.f.ReadAt(p, off)
	cover(f.blanks, p[:n], off)
	if f.patch != nil && f.patch.off >= off && f.patch.off < off+int64(n) {
		p[f.patch.off-off] = f.patch.b
	}
	return n, err
}

// Body returns a reader from the start of the file to Size. Several bodies can be read
// at once.
func (f *File) Body() *io.SectionReader { return io.NewSectionReader(f, 0, f.Size) }

func closeAll(files []*File) error {
	var err error
	for _, f := range files {
		err = errors.Join(err, f.close())
	}
	return err
}

// close closes the file, once.
func (f *File) close() error {
	if f.f == nil {
		return nil
	}
	err := f.f.Close()
	f.f = nil
	return err
}

func sizes(files []*File) int64 {
	var n int64
	for _, f := range files {
		n += f.Size
	}
	return n
}

// missing reports whether err means that a path does not exist: a name is gone, is not
// a directory, or is a link to itself.
func missing(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ELOOP)
}
