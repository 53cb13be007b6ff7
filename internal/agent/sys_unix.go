//go:build unix

package agent

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

func ownerOf(dir string) (uid, gid int, err error) {
	var st unix.Stat_t
	err = unix.Stat(dir, &st)
	return int(st.Uid), int(st.Gid), err
}

// statOf is what ls tells of a file.
func statOf(fi os.FileInfo) (links uint64, uid, gid uint32, err error) {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, 0, 0, fmt.Errorf("owner of %s: not known here", fi.Name())
	}
	return uint64(st.Nlink), st.Uid, st.Gid, nil // it has 32 bits on some architectures
}

// diskOf gives the bytes of the disk, and those that are free to us.
func diskOf(dir string) (free, size int64, err error) {
	var disk unix.Statfs_t
	err = unix.Statfs(dir, &disk)
	bsize := int64(disk.Bsize) // it has 32 bits on some architectures
	return int64(disk.Bavail) * bsize, int64(disk.Blocks) * bsize, err
}

func writable(dir string) bool { return unix.Access(dir, unix.W_OK) == nil }

// tryLock locks a directory if nobody else has. Not each network filesystem can.
func tryLock(dir *os.File) (locked bool, err error) {
	err = unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	switch {
	case err == nil, errors.Is(err, unix.ENOTSUP), errors.Is(err, unix.EBADF), errors.Is(err, unix.ENOLCK):
		return true, nil
	case errors.Is(err, unix.EWOULDBLOCK), errors.Is(err, unix.EINTR):
		return false, nil
	}
	return false, err
}

// cannotSync tells whether a filesystem knows nothing of syncing a directory.
func cannotSync(err error) bool { return errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOTSUP) }
