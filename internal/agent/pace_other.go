//go:build !linux

package agent

import (
	"errors"
	"io/fs"
)

// Priority is how much of a machine a process takes for itself.
type Priority int

// Background and Idle are for Linux.
const (
	Background Priority = iota
	Idle
)

// Lower cannot do anything here.
func Lower(Priority) error { return errors.ErrUnsupported }

type serverWatch struct{ signal }

func watchServer(string, fs.FS, string, string) *serverWatch { return nil }
