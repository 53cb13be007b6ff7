//go:build linux || darwin || freebsd

package view

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

const canLock = true

// lockShared and lockExclusive lock f, and report false if another process has the lock.
// The lock ends when f is closed or the process exits.
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

// identify returns the identity of the file at path, or false if the system does not
// report it.
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

// syncDir syncs the names in a directory to the disk.
func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
