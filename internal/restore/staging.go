package restore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/oklog/ulid/v2"
)

// staging is where a dump lies between being unpacked and being published: a
// directory with a name that Prometheus ignores, and removes when it starts.
//
//	<a new ULID>.tmp-for-creation/
//	    promdump    a file that we hold a lock on while we work here
//	    dump/       the dump as it was unpacked
//	    head/       blocks made of a raw head
type staging struct {
	root    string
	mark    *os.File
	madeDir string // the data dir, when it did not exist before
}

// markName tells a staging directory of ours from a block that a server is just
// making. Without a lock on it, its restore was killed.
const markName = "promdump"

func newStaging(t *Target, parent string, log *slog.Logger) (_ *staging, err error) {
	st := &staging{}
	if parent == "" {
		parent = t.Dir
	}
	if !t.Exists && parent == t.Dir {
		if err := os.Mkdir(t.Dir, 0o755); err != nil {
			return nil, fmt.Errorf("make data dir: %w", err)
		}
		st.madeDir = t.Dir
		if err := giveTo(t, t.Dir); err != nil {
			return nil, errors.Join(err, st.close())
		}
	}
	if err := sweep(parent, log); err != nil {
		return nil, errors.Join(err, st.close())
	}
	st.root = filepath.Join(parent, ulid.Make().String()+tmpSuffix)
	if err := os.Mkdir(st.root, 0o755); err != nil {
		st.root = ""
		return nil, errors.Join(fmt.Errorf("make staging directory: %w", err), st.close())
	}
	st.mark, err = os.OpenFile(filepath.Join(st.root, markName), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	if err == nil {
		_, err = lockExclusive(st.mark)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("mark staging directory: %w", err), st.close())
	}
	return st, nil
}

// sweep removes the staging of restores that were killed, and refuses to work
// beside one that is alive: two restores of one dump would take each other's
// directories away.
func sweep(parent string, log *slog.Logger) error {
	entries, err := os.ReadDir(parent)
	if err != nil {
		return fmt.Errorf("look for staging of earlier restores: %w", err)
	}
	for _, e := range entries {
		id, ours := strings.CutSuffix(e.Name(), tmpSuffix)
		if !ours || !isBlockName(id) {
			continue
		}
		root := filepath.Join(parent, e.Name())
		busy, err := locked(filepath.Join(root, markName))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return fmt.Errorf("look for staging of earlier restores: %w", err)
		case busy:
			return refused(Refusal{
				Reason: "another restore is at work in " + parent,
				Hint:   "wait for it to end",
			})
		}
		log.Info("remove what a killed restore left behind", "dir", root)
		if err := os.RemoveAll(root); err != nil {
			return fmt.Errorf("remove what a killed restore left behind: %w", err)
		}
	}
	return nil
}

func (st *staging) dump() string { return filepath.Join(st.root, "dump") }
func (st *staging) head() string { return filepath.Join(st.root, "head") }

func (st *staging) close() error {
	var errs []error
	if st.mark != nil {
		errs = append(errs, st.mark.Close())
	}
	if st.root != "" {
		if err := os.RemoveAll(st.root); err != nil {
			errs = append(errs, fmt.Errorf("remove staging: %w", err))
		}
	}
	if st.madeDir != "" {
		// Not empty: something was published. os.Remove takes away empty ones only.
		if entries, err := os.ReadDir(st.madeDir); err == nil && len(entries) == 0 {
			errs = append(errs, os.Remove(st.madeDir))
		}
	}
	return errors.Join(errs...)
}

// walk visits root and what is below it, directories after their contents.
func walk(root string, visit func(path string, fi os.FileInfo) error) error {
	fi, err := os.Lstat(root)
	if err != nil {
		return err
	}
	if fi.IsDir() {
		entries, err := os.ReadDir(root)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if err := walk(filepath.Join(root, e.Name()), visit); err != nil {
				// What a running server takes away while we look is not our concern.
				if errors.Is(err, fs.ErrNotExist) {
					continue
				}
				return err
			}
		}
	}
	return visit(root, fi)
}

// settle gives files and directories the modes and the owner that a server would
// have given them, and brings them to the disk. Without its owner's right to
// write a block can be served but never compacted or deleted.
func settle(ctx context.Context, t *Target, root string) error {
	return walk(root, func(path string, fi os.FileInfo) error {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		mode := os.FileMode(0o644)
		if fi.IsDir() {
			mode = 0o755 | fi.Mode()&os.ModeSetgid // a volume's group is inherited that way
		}
		if fi.Mode()&^os.ModeDir != mode {
			if err := os.Chmod(path, mode); err != nil {
				return err
			}
		}
		if err := giveTo(t, path); err != nil {
			return err
		}
		if fi.IsDir() {
			return syncDir(path)
		}
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		return errors.Join(f.Sync(), f.Close())
	})
}

// giveTo makes the data dir's owner the owner of path, which only root can.
func giveTo(t *Target, path string) error {
	if os.Geteuid() != 0 || t.UID < 0 {
		return nil
	}
	return os.Lchown(path, t.UID, t.GID)
}

// move renames, or copies where staging is on another filesystem; it tells
// whether it copied.
func move(ctx context.Context, from, to string) (copied bool, err error) {
	err = os.Rename(from, to)
	if err == nil || !isCrossDevice(err) {
		return false, err
	}
	if err := copyTree(ctx, from, to); err != nil {
		return true, errors.Join(err, os.RemoveAll(to))
	}
	return true, nil
}

func copyTree(ctx context.Context, from, to string) error {
	return filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if err := errors.Join(err, context.Cause(ctx)); err != nil {
			return err
		}
		name, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, name)
		if e.IsDir() {
			return os.Mkdir(target, 0o755)
		}
		return copyFile(path, target)
	})
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = out.ReadFrom(in)
	return errors.Join(err, out.Close())
}
