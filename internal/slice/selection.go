package slice

import (
	"fmt"
	"math"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/promdump/promdump/internal/datadir"
	"github.com/promdump/promdump/internal/wire"
)

// Selection is a wire.Selection, ready to be asked.
type Selection struct {
	MinTime, MaxTime int64 // Unix milliseconds, both included
	lists            [][]*labels.Matcher
}

// Compile reads a selection. Its errors are the asker's fault.
func Compile(s wire.Selection) (*Selection, error) {
	if s.MinTime > s.MaxTime {
		return nil, fmt.Errorf("the selection ends (%d) before it begins (%d)", s.MaxTime, s.MinTime)
	}
	out := &Selection{MinTime: s.MinTime, MaxTime: s.MaxTime}
	types := map[string]labels.MatchType{"=": labels.MatchEqual, "!=": labels.MatchNotEqual, "=~": labels.MatchRegexp, "!~": labels.MatchNotRegexp}
	for _, list := range s.Matchers {
		var ms []*labels.Matcher
		for _, m := range list {
			t, ok := types[m.Type]
			if !ok {
				return nil, fmt.Errorf("matcher of label %q has the unknown type %q", m.Name, m.Type)
			}
			compiled, err := labels.NewMatcher(t, m.Name, m.Value)
			if err != nil {
				return nil, fmt.Errorf("matcher of label %q: %w", m.Name, err)
			}
			ms = append(ms, compiled)
		}
		out.lists = append(out.lists, ms)
	}
	return out, nil
}

// Everything selects all series at all times.
func Everything() *Selection { return &Selection{MinTime: math.MinInt64, MaxTime: math.MaxInt64} }

// matches tells whether a series is selected.
func (s *Selection) matches(l labels.Labels) bool {
	if len(s.lists) == 0 {
		return true
	}
next:
	for _, list := range s.lists {
		for _, m := range list {
			if !m.Matches(l.Get(m.Name)) {
				continue next
			}
		}
		return true
	}
	return false
}

// Overlaps tells whether the block's range and the selection's have a
// millisecond in common.
func (s *Selection) Overlaps(m datadir.Meta) bool {
	return m.MinTime <= s.MaxTime && m.MaxTime > s.MinTime
}

// Decide says what happens to a block, and why.
func (s *Selection) Decide(m datadir.Meta, wholeBlocks bool) (wire.Action, string) {
	switch {
	case !s.Overlaps(m):
		return wire.Skip, "outside the range"
	case wholeBlocks:
		return wire.Whole, "overlaps the range, and whole blocks are asked for"
	case len(s.lists) > 0:
		return wire.Cut, "series are selected by matchers"
	case m.MinTime < s.MinTime || m.MaxTime-1 > s.MaxTime:
		return wire.Cut, "reaches beyond the range"
	default:
		return wire.Whole, "inside the range"
	}
}
