//go:build unix

package datadir

import (
	"math"
	"syscall"
)

// openFilesLimit returns how many files this process may have open. Go raises the soft
// limit to the hard one when a process starts.
func openFilesLimit() uint64 {
	var r syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r); err != nil {
		return math.MaxUint64
	}
	return uint64(r.Cur) //nolint:unconvert // it is signed on FreeBSD
}
