//go:build linux || darwin || freebsd

package view

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// lockShared and lockExclusive take the lock of f, or tell that somebody else has
// it. It is gone when f is closed, or its process dies.
const canLock = true

func lockShared(f *os.File) (bool, error) { return flock(f, unix.LOCK_SH|unix.LOCK_NB) }

func lockExclusive(f *os.File) (bool, error) { return flock(f, unix.LOCK_EX|unix.LOCK_NB) }

func flock(f *os.File, how int) (bool, error) {
	for {
		err := unix.Flock(int(f.Fd()), how)
		switch {
		case err == nil:
			return true, nil
		case errors.Is(err, unix.EWOULDBLOCK):
			return false, nil
		case !errors.Is(err, unix.EINTR):
			return false, err
		}
	}
}

// identify tells what a file is as far as the file system knows.
func identify(path string, fi os.FileInfo) (identity, bool) {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return identity{}, false
	}
	var full unix.Stat_t
	if err := unix.Stat(path, &full); err != nil || full.Ino != uint64(st.Ino) {
		return identity{}, false
	}
	changedSec, changedNano := full.Ctim.Unix()
	return identity{
		Path: path, Device: uint64(full.Dev), Inode: full.Ino, Size: fi.Size(),
		Modified: fi.ModTime().UnixNano(), Changed: changedSec*1e9 + changedNano,
	}, true
}

func isNoSpace(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
}

// syncDir makes the names in a directory survive a crash.
func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
