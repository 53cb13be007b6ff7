//go:build !unix

package fsutil

// IsNoSpace reports whether a disk, or the quota of the user, is full. Here that is not
// known.
func IsNoSpace(error) bool { return false }
