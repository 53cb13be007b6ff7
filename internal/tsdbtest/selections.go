package tsdbtest

import (
	"math/rand/v2"

	"github.com/promdump/promdump/internal/wire"
)

// Selections returns n random selections of this TSDB, which depend on seed only: time ranges inside
// blocks, at borders and one millisecond beside them, single milliseconds, ranges without samples and with
// all; matchers of all types, several lists, and some that match no series. The first one selects
// everything.
func (d *TSDB) Selections(seed uint64, n int) []wire.Selection {
	r := rand.New(rand.NewPCG(seed, 2))
	all := wire.Selection{MinTime: d.MinTime, MaxTime: d.MaxTime}
	selections := []wire.Selection{all}
	for len(selections) < n {
		sel := all
		switch r.IntN(8) {
		case 0: // everything
		case 1, 2: // two borders
			sel.MinTime, sel.MaxTime = d.border(r), d.border(r)
		case 3: // from a border to a random time
			sel.MinTime, sel.MaxTime = d.border(r), d.anywhere(r)
		case 4: // one millisecond
			sel.MinTime = d.border(r)
			sel.MaxTime = sel.MinTime
		case 5: // before or after all samples
			sel.MinTime, sel.MaxTime = d.MaxTime+1e9, d.MaxTime+2e9
			if r.IntN(2) == 0 {
				sel.MinTime, sel.MaxTime = d.MinTime-2e9, d.MinTime-1e9
			}
		default:
			sel.MinTime, sel.MaxTime = d.anywhere(r), d.anywhere(r)
		}
		if sel.MinTime > sel.MaxTime {
			sel.MinTime, sel.MaxTime = sel.MaxTime, sel.MinTime
		}
		for range []int{0, 1, 1, 2, 3}[r.IntN(5)] {
			sel.Matchers = append(sel.Matchers, d.matchers(r))
		}
		selections = append(selections, sel)
	}
	return selections
}

func (d *TSDB) border(r *rand.Rand) int64 {
	return d.Borders[r.IntN(len(d.Borders))] + r.Int64N(3) - 1
}

func (d *TSDB) anywhere(r *rand.Rand) int64 {
	return d.MinTime + r.Int64N(d.MaxTime-d.MinTime+1)
}

func (d *TSDB) matchers(r *rand.Rand) []wire.Matcher {
	lists := [][]wire.Matcher{
		{{Type: "=", Name: "namespace", Value: "ns-1"}},
		{{Type: "!=", Name: "namespace", Value: "ns-2"}},
		{{Type: "=~", Name: "namespace", Value: "ns-(0|3)"}, {Type: "!~", Name: "pod", Value: "pod-[0-2]"}},
		{{Type: "=~", Name: "__name__", Value: "latency.*|queue.*|custom.*"}},
		{{Type: "!~", Name: "__name__", Value: ".+_0"}},
		{{Type: "=", Name: "quoted", Value: "a\"b\\c\nd\te{}=~!,'`"}},
		{{Type: "=", Name: "quoted", Value: ""}}, // series without the label
		{{Type: "=", Name: "i", Value: "9"}},     // the huge value
		{{Type: "!=", Name: "huge", Value: ""}},
		{{Type: "=", Name: "namespace", Value: "nowhere"}},
		{{Type: "=~", Name: "nolabel", Value: ".+"}},
		{{Type: "=~", Name: "namespace", Value: ""}, {Type: "=", Name: "__name__", Value: "never"}},
		{{Type: "=~", Name: "i", Value: "deleted|never|4|5"}},
	}
	if !d.opts.Plain {
		lists = append(lists, [][]wire.Matcher{
			{{Type: "=", Name: "größe", Value: "groß"}},
			{{Type: "=~", Name: "größe", Value: "🐘|klein"}, {Type: "!=", Name: "http.status", Value: "200"}},
			{{Type: "=~", Name: "__name__", Value: "日本.+"}},
		}...)
	}
	return lists[r.IntN(len(lists))]
}
