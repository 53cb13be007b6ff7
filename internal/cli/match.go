package cli

import (
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/promdump/promdump/internal/wire"
)

// compileMatch reads selectors as PromQL does, with its rule that a selector must
// have a matcher which does not match the empty string: {} would be a long way to
// write nothing, and {pod=~".*"} most often is a mistake.
func compileMatch(selectors []string) ([][]wire.Matcher, error) {
	p := parser.NewParser(parser.Options{})
	var lists [][]wire.Matcher
	for _, s := range selectors {
		matchers, err := p.ParseMetricSelector(s)
		if err != nil {
			return nil, usagef(`selectors are like up, {namespace="shop"}, http_requests_total{code=~"5.."}, {"name.in.utf8"}`, "--match %s: %w", s, err)
		}
		list := make([]wire.Matcher, 0, len(matchers))
		selects := false
		for _, m := range matchers {
			selects = selects || !m.Matches("")
			list = append(list, wire.Matcher{Type: m.Type.String(), Name: m.Name, Value: m.Value})
		}
		if !selects {
			return nil, usagef(`leave --match out to take every series; to ask for a label that is missing: {__name__!="",pod=""}`,
				"--match %s: at least one matcher must not match the empty string", s)
		}
		lists = append(lists, list)
	}
	return lists, nil
}
