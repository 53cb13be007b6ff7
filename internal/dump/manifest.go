package dump

import (
	"slices"

	"github.com/promdump/promdump/internal/archive"
	"github.com/promdump/promdump/internal/wire"
)

func (a *assembler) manifest() archive.Manifest {
	req, plan := a.spec.Request, a.report.Plan
	from := a.spec.Source
	from.Kind = a.kind()
	m := archive.Manifest{
		Tool: a.spec.Tool, Created: a.spec.Now.UTC(), Source: from,
		Selection: archive.Selection{
			MinTime: req.Selection.MinTime, MaxTime: req.Selection.MaxTime, Matchers: a.spec.Selectors,
			Head: string(req.Head), WholeBlocks: req.WholeBlocks,
		},
		Plan: archive.Plan{
			Head:  archive.PlannedHead{Mode: string(plan.Head.Mode), Bytes: plan.Head.Bytes},
			Notes: plan.Notes,
		},
	}
	for _, b := range plan.LeftOut {
		m.Plan.LeftOut = append(m.Plan.LeftOut, archive.LeftOut{
			ULID: b.ULID, MinTime: b.MinTime, MaxTime: b.MaxTime, Reason: b.Reason, Partly: b.Partly,
		})
	}
	for _, b := range plan.Blocks {
		if b.Action == wire.Skip {
			continue
		}
		m.Plan.Blocks = append(m.Plan.Blocks, archive.PlannedBlock{
			ULID: b.ULID, MinTime: b.MinTime, MaxTime: b.MaxTime, Action: string(b.Action), Reason: b.Reason,
			Samples: b.Samples, Series: b.Series, Bytes: b.Bytes,
		})
	}
	return m
}

// newNotes are those that are not in the manifest.
func (a *assembler) newNotes() (notes []string) {
	for _, n := range a.report.Notes() {
		if !a.noted[n] {
			notes = append(notes, n)
		}
	}
	if a.spec.Kept == nil {
		return notes
	}
	// The manifest has the plan of the first command.
	for _, b := range a.report.Plan.LeftOut {
		if !slices.ContainsFunc(a.spec.Kept.Manifest.Plan.LeftOut, func(l archive.LeftOut) bool { return l.ULID == b.ULID }) {
			notes = append(notes, b.String())
		}
	}
	return notes
}
