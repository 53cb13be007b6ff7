//go:build !(linux || darwin || freebsd)

package view

import "os"

// canLock is false on these systems. Removing a mapped file fails there anyway.
const canLock = false

func lockShared(*os.File) (bool, error)    { return true, nil }
func lockExclusive(*os.File) (bool, error) { return true, nil }

func identify(string, os.FileInfo) (identity, bool) { return identity{}, false }

func isNoSpace(error) bool { return false }

func syncDir(string) error { return nil }
