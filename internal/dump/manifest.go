package dump

import (
	"github.com/promdump/promdump/internal/archive"
	"github.com/promdump/promdump/internal/wire"
)

func (a *assembler) manifest() archive.Manifest {
	req, plan := a.spec.Request, a.report.Plan
	from := a.spec.Source
	if k, ok := a.src.(interface{ Kind() string }); ok { // decided while it was read
		from.Kind = k.Kind()
	}
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
	if a.spec.Kept != nil {
		for _, b := range a.spec.Kept.Blocks {
			m.Plan.Blocks = append(m.Plan.Blocks, b.Planned)
		}
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
