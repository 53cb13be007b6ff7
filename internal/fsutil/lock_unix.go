//go:build unix && !solaris && !aix

package fsutil

import (
	"errors"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Lock locks an open file until it is closed or the process ends. It does not wait: it
// returns [ErrLocked] if the file is locked, and another error where there are no locks.
func Lock(f *os.File) error {
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case errors.Is(err, unix.EWOULDBLOCK):
			return ErrLocked
		case !errors.Is(err, unix.EINTR):
			return err
		}
	}
}

// isOurs reports whether the file belongs to the user of this process.
func isOurs(fi fs.FileInfo) bool {
	stat, ok := fi.Sys().(*syscall.Stat_t)
	return ok && int(stat.Uid) == os.Geteuid()
}
