//go:build unix

package cli

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

// readerGone reports whether an error is that nobody reads our stdout any more. Other
// pipes and sockets break too, and those are errors of their own.
func (a *app) readerGone(err error) bool {
	out, ok := a.Out.(*os.File)
	e, failed := errors.AsType[*fs.PathError](err)
	return ok && failed && errors.Is(e, syscall.EPIPE) && e.Path == out.Name()
}
