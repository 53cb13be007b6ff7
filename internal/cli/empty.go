package cli

import (
	"fmt"
	"strings"

	"github.com/promdump/promdump/internal/dump"
	"github.com/promdump/promdump/internal/term"
	"github.com/promdump/promdump/internal/wire"
)

// emptiness is a selection that has no data.
type emptiness struct {
	request   wire.Request
	selectors []string
}

func (e emptiness) series() string { return strings.Join(e.selectors, " or ") }

// explainEmpty returns an error that says what the source has, and which part of the
// selection is missing.
func (a *app) explainEmpty(e *dump.EmptyError, kind string, asked emptiness) error {
	where := "data dir"
	if kind == remoteKind {
		where = "server"
	}
	if e.Plan == nil {
		return e
	}
	a.leftOut(e.Plan.LeftOut)                        // perhaps the selected blocks
	a.notes(append(e.Plan.Notes, e.Head.Notes()...)) // perhaps the selected samples were left out
	blocks := blocksOf(e.Plan)
	if len(blocks) < len(e.Plan.Blocks) {
		// A server was asked for the windows in which it may have samples.
		if len(asked.selectors) == 0 {
			return hinted(fmt.Errorf("%w: the %s has no samples in that time", e, where),
				"promdump meta prints the times that it has")
		}
		return hinted(fmt.Errorf("%w: the %s has no samples in that time of %s", e, where, asked.series()),
			"omit --match to take all series; promdump meta prints the times that there are")
	}
	holds, first, last, found := holdings(e, blocks)
	err := fmt.Errorf("%w: the %s holds %s; %s", e, where, holds, asked.missing(e, blocks))
	switch {
	case len(e.Plan.LeftOut) > 0:
		return hinted(err, "a server cannot read these blocks either; promdump meta lists them")
	case !found:
		return err
	case asked.overlaps(e, blocks) && len(asked.selectors) > 0:
		return hinted(err, "omit --match to take all series of that time; promdump open lists the names")
	case asked.request.Selection.MinTime <= first && last <= asked.request.Selection.MaxTime:
		return err // a hint would repeat the requested range
	}
	return hinted(err, "take all of it with --min-time %s --max-time %s, or see promdump meta",
		shownTime(first), shownTime(last))
}

// holdings describes what the source has, and its time range.
func holdings(e *dump.EmptyError, blocks []wire.PlannedBlock) (text string, first, last int64, found bool) {
	var holds []string
	cover := func(minMs, maxMs int64) {
		if !found || minMs < first {
			first = minMs
		}
		if !found || maxMs > last {
			last = maxMs
		}
		found = true
	}
	for _, b := range blocks {
		cover(b.MinTime, b.MaxTime)
	}
	if found {
		n := term.Counted(len(blocks), "block", "blocks")
		holds = append(holds, fmt.Sprintf("%s from %s to %s", n, term.Time(first), term.Time(last)))
	}
	if n := len(e.Plan.LeftOut); n > 0 {
		holds = append(holds, term.Counted(n, "block", "blocks")+" that cannot be read")
	}
	switch {
	case e.HeadMin <= e.HeadMax:
		cover(e.HeadMin, e.HeadMax)
		holds = append(holds, fmt.Sprintf("a head from %s to %s", term.Time(e.HeadMin), term.Time(e.HeadMax)))
	case e.Plan.Head.Mode == wire.HeadNone:
		holds = append(holds, "perhaps a head, which --head none leaves out")
	default:
		holds = append(holds, "no samples in the head")
	}
	return strings.Join(holds, ", and "), first, last, found
}

// inRange finds what of the holdings is in the requested range.
func (e emptiness) inRange(empty *dump.EmptyError, blocks []wire.PlannedBlock) (overlapping int, head bool) {
	sel := e.request.Selection
	for _, b := range blocks {
		if b.MinTime <= sel.MaxTime && sel.MinTime < b.MaxTime {
			overlapping++
		}
	}
	return overlapping, empty.HeadMin <= sel.MaxTime && sel.MinTime <= empty.HeadMax && empty.HeadMin <= empty.HeadMax
}

func (e emptiness) overlaps(empty *dump.EmptyError, blocks []wire.PlannedBlock) bool {
	n, head := e.inRange(empty, blocks)
	return n > 0 || head
}

// missing describes what is empty: the range, or the selected series in it.
func (e emptiness) missing(empty *dump.EmptyError, blocks []wire.PlannedBlock) string {
	sel := e.request.Selection
	asked := span{sel.MinTime, sel.MaxTime}
	n, head := e.inRange(empty, blocks)
	var parts []string
	if n > 0 {
		parts = append(parts, term.Counted(n, "block", "blocks"))
	}
	if head {
		parts = append(parts, "the head")
	}
	overlapping := strings.Join(parts, " and ") + " overlap"
	if n+len(parts) == 1 || n == 1 && !head { // the head alone, or one block
		overlapping += "s"
	}
	switch {
	case len(parts) == 0 && len(empty.Plan.LeftOut) > 0:
		return "nothing else is in the requested range, " + asked.String()
	case len(parts) == 0:
		return "none of it is in the requested range, " + asked.String()
	case len(e.selectors) > 0:
		return fmt.Sprintf("no series in the requested range matches %s, and %s it", e.series(), overlapping)
	}
	if empty.Head.UnknownSamples+empty.Head.UnknownChunkSamples > 0 {
		return fmt.Sprintf("%s the requested range, %s, and the series of the head's samples are not known",
			overlapping, asked)
	}
	return fmt.Sprintf("%s the requested range, %s, without a sample in it", overlapping, asked)
}
