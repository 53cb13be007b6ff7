//go:build !(linux || darwin || freebsd)

package apply

import "os"

// locked tries to open the lock for writing: where there is no flock, a server
// keeps the file open so that no other process can.
func locked(name string) (bool, error) {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if os.IsNotExist(err) {
		return false, err
	}
	if err != nil {
		return true, nil
	}
	return false, f.Close()
}

func tryLock(*os.File) (bool, error) { return true, nil }

func ownerOf(os.FileInfo) (uid, gid int) { return -1, -1 }

// Disk returns -1 for both: they are not known here.
func Disk(string) (free, size int64, err error) { return -1, -1, nil }

// IsNoSpace returns false: it is not known here.
func IsNoSpace(error) bool { return false }

// SameDisk returns true, so that a rename is tried first.
func SameDisk(string, string) (bool, error) { return true, nil }

// isCrossDevice lets a failed rename become a copy, whatever the reason.
func isCrossDevice(err error) bool { return err != nil }

func writable(string) bool { return true }

func syncDir(string) error { return nil }
