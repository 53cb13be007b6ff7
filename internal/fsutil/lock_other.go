//go:build !unix || solaris || aix

package fsutil

import (
	"errors"
	"io/fs"
	"os"
)

// Lock returns an error: there are no locks here.
func Lock(*os.File) error { return errors.ErrUnsupported }

func isOurs(fs.FileInfo) bool { return false }
