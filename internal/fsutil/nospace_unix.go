//go:build unix

package fsutil

import (
	"errors"
	"syscall"
)

// IsNoSpace reports whether a disk, or the quota of the user, is full.
func IsNoSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
