//go:build unix

package cli

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

// readerGone reports whether err means that the reader of stdout has closed it. A
// broken pipe or socket other than stdout is an ordinary error.
func (a *app) readerGone(err error) bool {
	out, ok := a.Out.(*os.File)
	e, failed := errors.AsType[*fs.PathError](err)
	return ok && failed && errors.Is(e, syscall.EPIPE) && e.Path == out.Name()
}
