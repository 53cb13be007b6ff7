package datadir

import (
	"errors"
	"fmt"
)

var (
	// ErrMissing reports that a file is missing between others that are there.
	ErrMissing = errors.New("it is missing")

	// ErrRepair reports a segment that a server was repairing when it died. The segment
	// is read under the name that it has during a repair.
	ErrRepair = errors.New("a server died while it repaired this segment")

	// ErrName reports a segment that is there, but not under the name that servers
	// look for: it is read all the same.
	ErrName = errors.New("servers look for it under another name")
)

// Damage is a part of the head's files that cannot be read.
type Damage struct {
	File   string // relative to the data directory, with slashes
	Offset int64  // bytes
	Bytes  int64  // of the file that are lost; 0 if it is missing
	Err    error

	// Fatal damage keeps a server from starting. Otherwise it repairs its head when
	// it starts: it drops what comes after the damage in the same log, or the file of
	// head chunks and the later ones.
	Fatal bool
}

func (d Damage) String() string {
	if d.Bytes == 0 {
		return fmt.Sprintf("%s: %v", d.File, d.Err)
	}
	return fmt.Sprintf("%s, %d bytes at byte %d: %v", d.File, d.Bytes, d.Offset, d.Err)
}
