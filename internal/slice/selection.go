package slice

import (
	"fmt"
	"math"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/promdump/promdump/internal/datadir"
	"github.com/promdump/promdump/internal/wire"
)

// Selection is a compiled [wire.Selection]: a time range and series matchers.
type Selection struct {
	MinTime, MaxTime int64               // Unix milliseconds, inclusive
	lists            [][]*labels.Matcher // a series must match all matchers of one list; empty: all series
}

// Compile compiles a selection. An error means that the request is invalid: the range is
// empty, or a matcher has an unknown type or an invalid regular expression.
func Compile(s wire.Selection) (*Selection, error) {
	if s.MinTime > s.MaxTime {
		return nil, fmt.Errorf("empty time range: the end (%d) is before the start (%d)", s.MaxTime, s.MinTime)
	}
	out := &Selection{MinTime: s.MinTime, MaxTime: s.MaxTime}
	types := map[string]labels.MatchType{
		"=": labels.MatchEqual, "!=": labels.MatchNotEqual, "=~": labels.MatchRegexp, "!~": labels.MatchNotRegexp,
	}
	for _, list := range s.Matchers {
		var ms []*labels.Matcher
		for _, m := range list {
			t, ok := types[m.Type]
			if !ok {
				return nil, fmt.Errorf("matcher of label %q has unknown type %q", m.Name, m.Type)
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

// Everything returns the selection of all series at all times.
func Everything() *Selection { return &Selection{MinTime: math.MinInt64, MaxTime: math.MaxInt64} }

// matches reports whether the matchers select a series with these labels.
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

// Overlaps reports whether the block's time range and the selection's have a millisecond in
// common.
func (s *Selection) Overlaps(m datadir.Meta) bool {
	return m.MinTime <= s.MaxTime && m.MaxTime > s.MinTime
}

// Decide returns what a dump does with a block, and the reason for the plan that users see.
// With wholeBlocks it never cuts a block.
func (s *Selection) Decide(m datadir.Meta, wholeBlocks bool) (wire.Action, string) {
	switch {
	case !s.Overlaps(m):
		return wire.Skip, "outside the range"
	case wholeBlocks:
		return wire.Whole, "overlaps the range, and whole blocks are requested"
	case len(s.lists) > 0:
		return wire.Cut, "matchers select some of its series"
	case m.MinTime < s.MinTime || m.MaxTime-1 > s.MaxTime:
		return wire.Cut, "extends beyond the range"
	default:
		return wire.Whole, "inside the range"
	}
}
