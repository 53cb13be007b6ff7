package apply

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
)

// blockFile is what may be staged, and nothing else.
var blockFile = regexp.MustCompile(`^([0-9A-HJKMNP-TV-Z]{26})/(meta\.json|index|tombstones|chunks/[0-9]{6})$`)

// headFile is what may be staged, too, if all is replaced.
var headFile = regexp.MustCompile(
	`^(wal/(checkpoint\.[0-9]{6,10}/)?[0-9]{6,10}|wbl/[0-9]{8,10}|chunks_head/[0-9]{6,10})$`)

// owner is the user and group that files are given to: without its owner's right to write,
// a block can be served but never compacted or deleted. Only root can give files away.
type owner struct {
	given    bool
	uid, gid int
}

func ownerFrom(dir os.FileInfo) owner {
	uid, gid := ownerOf(dir)
	return owner{given: os.Geteuid() == 0 && uid >= 0, uid: uid, gid: gid}
}

func (o owner) give(path string) error {
	if !o.given {
		return nil
	}
	return os.Lchown(path, o.uid, o.gid)
}

// mkdir makes a directory, unless it is there.
func (o owner) mkdir(path string) error {
	if err := os.Mkdir(path, 0o777); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return nil
		}
		return err
	}
	return o.give(path)
}

// settle gives files and directories the modes and the owner that a server would have
// given them, and brings the files to the disk.
func (o owner) settle(ctx context.Context, root string) error {
	return filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err := errors.Join(err, context.Cause(ctx)); err != nil {
			return err
		}
		fi, err := e.Info()
		if err != nil {
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
		if err := o.give(path); err != nil || fi.IsDir() {
			return err
		}
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		return errors.Join(f.Sync(), f.Close())
	})
}

// move renames, or copies where from is on another filesystem.
func move(ctx context.Context, from, to string) (copied bool, err error) {
	err = os.Rename(from, to)
	if err == nil || !isCrossDevice(err) {
		return false, err
	}
	if err := os.CopyFS(to, interruptible{ctx, os.DirFS(from)}); err != nil {
		return true, errors.Join(err, os.RemoveAll(to))
	}
	return true, nil
}

// interruptible opens no file any more when its context is done.
type interruptible struct {
	ctx context.Context
	fs.FS
}

func (i interruptible) Open(name string) (fs.File, error) {
	if err := context.Cause(i.ctx); err != nil {
		return nil, err
	}
	return i.FS.Open(name)
}
