package cli

import (
	"fmt"

	"github.com/promdump/promdump/internal/term"
	"github.com/promdump/promdump/internal/wire"
)

// maxLeftOut limits how many left-out blocks are listed one by one.
const maxLeftOut = 20

// leftOut prints a note for each block that is left out.
func (a *app) leftOut(blocks []wire.LeftOut) {
	var notes []string
	for _, b := range blocks[:min(maxLeftOut, len(blocks))] {
		notes = append(notes, b.String())
	}
	if n := len(blocks) - maxLeftOut; n > 0 {
		notes = append(notes, fmt.Sprintf("%s more cannot be read: promdump meta lists all",
			term.Counted(n, "block", "blocks")))
	}
	a.notes(notes)
}
