//go:build unix

package datadir

import (
	"math"
	"syscall"
)

// openFilesLimit returns how many files the process may have open at once. This is the
// hard limit: the Go runtime raises the soft limit to it when the process starts.
func openFilesLimit() uint64 {
	var r syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r); err != nil {
		return math.MaxUint64
	}
	return uint64(r.Cur) //nolint:unconvert // it is signed on FreeBSD
}
