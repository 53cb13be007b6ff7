package dump

import (
	"errors"

	"github.com/prometheus/prometheus/promql/parser"

	"github.com/promdump/promdump/internal/wire"
)

// ErrSelectsAll refuses a selector that says nothing: {} would be a long way to
// write no selector, and {pod=~".*"} most often is a mistake.
var ErrSelectsAll = errors.New("at least one matcher must not match the empty string")

// ParseSelector reads a selector as PromQL does, with its rule that one of its
// matchers must not match the empty string: else it is ErrSelectsAll.
func ParseSelector(s string) ([]wire.Matcher, error) {
	matchers, err := parser.NewParser(parser.Options{}).ParseMetricSelector(s)
	if err != nil {
		return nil, err
	}
	list := make([]wire.Matcher, 0, len(matchers))
	selects := false
	for _, m := range matchers {
		selects = selects || !m.Matches("")
		list = append(list, wire.Matcher{Type: m.Type.String(), Name: m.Name, Value: m.Value})
	}
	if !selects {
		return nil, ErrSelectsAll
	}
	return list, nil
}
