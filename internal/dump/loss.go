package dump

import (
	"fmt"
	"strings"

	"github.com/promdump/promdump/internal/wire"
)

// LossError lists what a complete dump lacks of its selection, because it could not
// be read or is not there any more.
type LossError struct {
	Blocks []wire.LeftOut // left out, or dumped in part
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
	if e.Head.lossy() {
		parts = append(parts, "parts of the head")
	}
	return "the dump lacks what could not be read: " + strings.Join(parts, "; ")
}

// Loss is a *LossError with all that the dump lacks, or nil.
func (r Report) Loss() error {
	var blocks []wire.LeftOut
	if r.Plan != nil {
		blocks = r.Plan.LeftOut
	}
	if len(blocks) == 0 && !r.Head.lossy() {
		return nil
	}
	return &LossError{Blocks: blocks, Head: r.Head}
}
