//go:build !linux

package fsutil

// isLocal reports whether the file system belongs to this machine alone. Here that is
// not known.
func isLocal(string) bool { return false }

func boot() string { return "" }
