package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/promdump/promdump/internal/term"
	"github.com/promdump/promdump/internal/wire"
)

// printPlan is what --dry-run prints.
func printPlan(w io.Writer, p *wire.Plan, c dumpConfig) error {
	series := "all series"
	if len(c.selectors) > 0 {
		series = "series of " + strings.Join(c.selectors, " or ")
	}
	s := span{c.request.Selection.MinTime, c.request.Selection.MaxTime}
	if _, err := fmt.Fprintf(w, "Selection: %s, %s\n\n", s, series); err != nil {
		return err
	}
	var rows [][]string
	taken := 0
	for _, b := range p.Blocks {
		if b.Action != wire.Skip {
			taken++
		}
		row := []string{
			b.ULID, term.Time(b.MinTime), term.Time(b.MaxTime), string(b.Action), term.Bytes(b.Bytes),
			term.Count(b.Series), term.Count(b.Samples), b.Reason,
		}
		if isWindow(b) {
			row[4], row[5], row[6] = guess(b.Bytes), "", ""
		}
		rows = append(rows, row)
	}
	left := 0
	for _, b := range p.LeftOut {
		if b.Partly {
			continue // it has a row
		}
		left++
		row := []string{b.ULID, "", "", "left out", "", "", "", b.Reason}
		if b.MinTime != nil && b.MaxTime != nil {
			row[1], row[2] = term.Time(*b.MinTime), term.Time(*b.MaxTime)
		}
		rows = append(rows, row)
	}
	windows := len(p.Blocks) > len(blocksOf(p))
	if windows {
		rows = append(rows, []string{"head", "", "", "", "", "", "", "in the windows"})
	} else {
		rows = append(rows, []string{"head", "", "", string(p.Head.Mode), term.Bytes(p.Head.Bytes), "", "", headReason(p.Head.Mode)})
	}
	columns := []term.Column{
		{Name: "BLOCK"}, {Name: "FROM"}, {Name: "UNTIL"}, {Name: "ACTION"}, {Name: "SIZE", Right: true},
		{Name: "SERIES", Right: true}, {Name: "SAMPLES", Right: true}, {Name: "REASON"},
	}
	if err := term.Table(w, columns, rows); err != nil {
		return err
	}
	if windows {
		about := ""
		if p.Bytes > 0 {
			about = fmt.Sprintf(", with all series about %s to read", term.Bytes(p.Bytes))
		}
		_, err := fmt.Fprintf(w, "\n%s to ask for%s\n", term.Counted(taken, "window", "windows"), about)
		return err
	}
	cannot := ""
	if left > 0 {
		cannot = fmt.Sprintf(", %s left out", term.Count(left))
	}
	_, err := fmt.Fprintf(w, "\n%s of %s taken%s, about %s to read\n",
		term.Count(taken), term.Counted(len(p.Blocks)+left, "block", "blocks"), cannot, term.Bytes(p.Bytes))
	return err
}

func headReason(m wire.HeadMode) string {
	switch m {
	case wire.HeadBlock:
		return "its selected samples become blocks"
	case wire.HeadRaw:
		return "its files are taken as they are"
	default:
		return "left out, as asked for"
	}
}

// isWindow: what a server is asked for is no block, and has no level.
func isWindow(b wire.PlannedBlock) bool { return b.Action == wire.Cut && b.Level == 0 }

// blocksOf gives the plan's blocks, without windows.
func blocksOf(p *wire.Plan) (blocks []wire.PlannedBlock) {
	for _, b := range p.Blocks {
		if !isWindow(b) {
			blocks = append(blocks, b)
		}
	}
	return blocks
}

// guess is empty for a size that nobody knows.
func guess(bytes int64) string {
	if bytes == 0 {
		return ""
	}
	return "~" + term.Bytes(bytes)
}
