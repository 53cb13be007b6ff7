package cli

import (
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// pipeSize is what an unprivileged process may ask for, in bytes.
const pipeSize = 1 << 20

// widen makes a pipe larger than the 64 KiB that it has by default: with those
// both ends spend most of their time waking each other up. What is no pipe, or
// may not be larger, stays as it is.
func widen(w io.Writer) {
	if f, ok := w.(*os.File); ok {
		_, _ = unix.FcntlInt(f.Fd(), unix.F_SETPIPE_SZ, pipeSize)
	}
}
