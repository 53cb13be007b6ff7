package cli

import (
	"fmt"

	"github.com/promdump/promdump/internal/term"
	"github.com/promdump/promdump/internal/wire"
)

// maxLeftOut is how many blocks that are left out are named one by one.
const maxLeftOut = 20

// leftOut notes the blocks that are left out.
func (a *app) leftOut(blocks []wire.LeftOut) {
	var notes []string
	for _, b := range blocks[:min(maxLeftOut, len(blocks))] {
		notes = append(notes, b.String())
	}
	if n := len(blocks) - maxLeftOut; n > 0 {
		notes = append(notes, fmt.Sprintf("%s more cannot be read: promdump meta lists all", term.Counted(n, "block", "blocks")))
	}
	a.notes(notes)
}
