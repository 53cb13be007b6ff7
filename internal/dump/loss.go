package dump

import (
	"fmt"
	"strings"

	"github.com/promdump/promdump/internal/wire"
)

// LossError lists the data that a complete dump lacks of its selection because it could
// not be read or was deleted meanwhile.
type LossError struct {
	Blocks []wire.LeftOut // left out, or dumped in part
	Parts  []string       // damaged chunks and series of blocks, a sentence each
	Head   HeadReport
}

func (e *LossError) Error() string {
	var parts []string
	if n := len(e.Blocks); n > 0 {
		const few = 3
		var names []string
		for _, b := range e.Blocks[:min(few, n)] {
			names = append(names, b.ULID)
		}
		if n > few {
			names = append(names, "…")
		}
		parts = append(parts, fmt.Sprintf("blocks (%d): %s", n, strings.Join(names, ", ")))
	}
	if len(e.Parts) > 0 {
		parts = append(parts, "chunks or series of blocks")
	}
	if e.Head.lossy() {
		parts = append(parts, "parts of the head")
	}
	return "the dump lacks what could not be read: " + strings.Join(parts, "; ")
}

// Loss is a *LossError with all that the dump lacks, or nil. A damaged head that was
// copied raw is not lost, but a server does not serve all of it.
func (r Report) Loss() error {
	e := &LossError{Parts: r.LeftOut, Head: r.Head}
	if r.Plan != nil {
		e.Blocks = r.Plan.LeftOut
		if r.RawHead {
			e.Head.Damage = r.Plan.Head.Damage
		}
	}
	if len(e.Blocks)+len(e.Parts) == 0 && !e.Head.lossy() {
		return nil
	}
	return e
}
