package cli

import (
	"errors"

	"github.com/promdump/promdump/internal/dump"
	"github.com/promdump/promdump/internal/wire"
)

func compileMatch(selectors []string) ([][]wire.Matcher, error) {
	var lists [][]wire.Matcher
	for _, s := range selectors {
		list, err := dump.ParseSelector(s)
		if errors.Is(err, dump.ErrSelectsAll) {
			return nil, usagef(`leave --match out to take every series; to ask for a label that is missing: {__name__!="",pod=""}`, "--match %s: %w", s, err)
		}
		if err != nil {
			return nil, usagef(`selectors are like up, {namespace="shop"}, http_requests_total{code=~"5.."}, {"name.in.utf8"}`, "--match %s: %w", s, err)
		}
		lists = append(lists, list)
	}
	return lists, nil
}
