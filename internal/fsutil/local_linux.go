package fsutil

import (
	"os"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// isLocal reports whether the file system belongs to this machine alone: then every
// process that may hold a lock on it is one of this kernel.
func isLocal(dir string) bool {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return false
	}
	return slices.Contains([]int64{
		unix.TMPFS_MAGIC, unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.F2FS_SUPER_MAGIC,
		unix.OVERLAYFS_SUPER_MAGIC, zfsMagic,
	}, int64(s.Type)) //nolint:unconvert // int32 on some platforms
}

const zfsMagic = 0x2fc12fc1

// boot names this boot of this machine. It is empty if that is not known.
var boot = sync.OnceValue(func() string {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
})
