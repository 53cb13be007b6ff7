//go:build !(linux || darwin || freebsd)

package restore

import "os"

// locked tries to open the lock for writing: where there is no flock, a server
// keeps the file open so that nobody else can.
func locked(name string) (bool, error) {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return true, nil
	}
	return false, f.Close()
}

func lockExclusive(*os.File) (bool, error) { return true, nil }

func ownerOf(os.FileInfo) (uid, gid int) { return -1, -1 }

func freeSpace(string) (free, size int64, err error) { return -1, -1, nil }

func isNoSpace(error) bool { return false }

// isCrossDevice lets a failed rename become a copy, whatever the reason.
func isCrossDevice(err error) bool { return err != nil }

func syncDir(string) error { return nil }

func sameFilesystem(string, string) (bool, error) { return true, nil }
