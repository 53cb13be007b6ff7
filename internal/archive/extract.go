package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
)

// Extraction says how a dump is unpacked.
type Extraction struct {
	Limits Limits

	// Sync makes what was written durable before Extract returns: files and the
	// directories below dir, and dir itself.
	Sync bool

	// OnEntry is called when a file was written. It is not verified yet.
	OnEntry func(Entry)
}

// Extract unpacks the dump r into dir and verifies it, with default options.
func Extract(ctx context.Context, r io.Reader, dir string, onEntry func(Entry)) (Manifest, []Entry, error) {
	return Extraction{OnEntry: onEntry}.Extract(ctx, r, dir)
}

// Extract unpacks the dump r into dir, which must be there and empty, and
// verifies it. The manifest and the digests are not written out. Nothing is
// written outside of dir, whatever the dump says. After an error what was
// written is still there, not verified; dir is the caller's.
func (x Extraction) Extract(ctx context.Context, r io.Reader, dir string) (m Manifest, entries []Entry, err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return m, nil, fmt.Errorf("open directory to unpack into: %w", err)
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	if err := checkEmpty(root); err != nil {
		return m, nil, err
	}
	d, err := NewReaderLimits(contextReader{ctx, r}, x.Limits)
	if err != nil {
		return m, nil, err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	m = d.Manifest()

	made := make(map[string]struct{})
	for {
		e, err := d.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return m, entries, err
		}
		if err := makeDirs(root, path.Dir(e.Name), made); err != nil {
			return m, entries, fmt.Errorf("unpack %s: %w", e.Name, err)
		}
		if err := x.file(d, root, e.Name); err != nil {
			return m, entries, fmt.Errorf("unpack %s: %w", e.Name, err)
		}
		entries = append(entries, e)
		if x.OnEntry != nil {
			x.OnEntry(e)
		}
	}
	if x.Sync {
		made["."] = struct{}{}
		for name := range made {
			if err := syncDir(root, name); err != nil {
				return m, entries, fmt.Errorf("sync directory %s: %w", name, err)
			}
		}
	}
	return d.Manifest(), entries, nil
}

func (x Extraction) file(d *Reader, root *os.Root, name string) error {
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = d.WriteTo(f)
	if err == nil && x.Sync {
		err = f.Sync()
	}
	if closing := f.Close(); err == nil {
		err = closing
	}
	return err
}

func checkEmpty(root *os.Root) error {
	names, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return fmt.Errorf("list directory to unpack into: %w", err)
	}
	if len(names) > 0 {
		return fmt.Errorf("directory %s to unpack into is not empty: it has %s", root.Name(), names[0].Name())
	}
	return nil
}

// makeDirs makes a directory and those above it, once.
func makeDirs(root *os.Root, dir string, made map[string]struct{}) error {
	if _, ok := made[dir]; ok || dir == "." {
		return nil
	}
	if err := makeDirs(root, path.Dir(dir), made); err != nil {
		return err
	}
	made[dir] = struct{}{}
	return root.Mkdir(dir, 0o755)
}

func syncDir(root *os.Root, name string) error {
	d, err := root.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// contextReader ends with the context. It cannot end a Read that hangs.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := context.Cause(c.ctx); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
