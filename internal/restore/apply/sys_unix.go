//go:build linux || darwin || freebsd

package apply

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// locked reports whether another process holds a lock on a file. Prometheus keeps an
// exclusive lock on its file, and leaves the file behind when it is killed. A shared
// lock is taken and given back; opening without O_CREATE leaves no trace.
func locked(name string) (bool, error) {
	f, err := os.Open(name)
	if err != nil {
		return false, err
	}
	defer f.Close()
	free, err := lock(f, unix.LOCK_SH)
	return !free, err // closing f gives the lock back
}

// tryLock locks a file or a directory, unless another process has.
func tryLock(f *os.File) (bool, error) { return lock(f, unix.LOCK_EX) }

// lock reports success on a filesystem that has no locks: not every network filesystem
// has.
func lock(f *os.File, how int) (bool, error) {
	for {
		err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
		switch {
		case err == nil, errors.Is(err, unix.ENOTSUP), errors.Is(err, unix.EBADF), errors.Is(err, unix.ENOLCK):
			return true, nil
		case errors.Is(err, unix.EWOULDBLOCK):
			return false, nil
		case !errors.Is(err, unix.EINTR):
			return false, err
		}
	}
}

func ownerOf(fi os.FileInfo) (uid, gid int) {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return int(st.Uid), int(st.Gid)
	}
	return -1, -1
}

// Disk returns the bytes of the filesystem of dir, and those that are free for this
// user.
func Disk(dir string) (free, size int64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, 0, err
	}
	return int64(st.Bavail) * int64(st.Bsize), int64(st.Blocks) * int64(st.Bsize), nil
}

// IsNoSpace reports whether an error says that a disk, or a user's share of it, is full.
func IsNoSpace(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
}

// SameDisk reports whether two directories are on one filesystem.
func SameDisk(a, b string) (bool, error) {
	var sa, sb unix.Stat_t
	if err := errors.Join(unix.Stat(a, &sa), unix.Stat(b, &sb)); err != nil {
		return false, err
	}
	return sa.Dev == sb.Dev, nil
}

func isCrossDevice(err error) bool { return errors.Is(err, unix.EXDEV) }

func writable(dir string) bool { return unix.Access(dir, unix.W_OK) == nil }

// syncDir makes the names in a directory survive a crash, where its filesystem can.
func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = f.Sync()
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOTSUP) {
		err = nil
	}
	return errors.Join(err, f.Close())
}
