//go:build unix

package agent

import (
	"fmt"
	"os"
	"syscall"
)

// statOf returns what ls shows of a file.
func statOf(fi os.FileInfo) (links uint64, uid, gid uint32, err error) {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, 0, 0, fmt.Errorf("owner of %s: not known here", fi.Name())
	}
	return uint64(st.Nlink), st.Uid, st.Gid, nil // it has 32 bits on some architectures
}
