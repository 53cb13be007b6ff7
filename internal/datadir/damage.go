package datadir

import (
	"errors"
	"fmt"
)

var (
	// ErrMissing reports a file that is missing between existing files of a numbered
	// sequence.
	ErrMissing = errors.New("the file is missing")

	// ErrRepair reports a segment whose repair by a server was interrupted. Readers use
	// the original, which the server renamed to "….repair" before the repair.
	ErrRepair = errors.New("the server's repair of this segment was interrupted")

	// ErrName reports a segment with a name that servers do not read. Readers of this
	// package use it.
	ErrName = errors.New("servers expect another file name")
)

// Damage is a part of the head's files that cannot be read.
type Damage struct {
	File   string // relative to the data directory, with slashes
	Offset int64  // in the file, in bytes
	Bytes  int64  // number of lost bytes; 0 if the file is missing
	Err    error  // the reason

	// Fatal damage prevents a server from starting on the data directory. After other
	// damage a server repairs its head when it starts: it removes the rest of the
	// damaged log, or the damaged file of m-mapped chunks and all later ones.
	Fatal bool
}

// String returns the file, the place and the reason, for a message.
func (d Damage) String() string {
	if d.Bytes == 0 {
		return fmt.Sprintf("%s: %v", d.File, d.Err)
	}
	return fmt.Sprintf("%s, %d bytes at byte %d: %v", d.File, d.Bytes, d.Offset, d.Err)
}
