package block

import (
	"fmt"
	"strings"
)

// Of returns the findings with one of the levels, in their order.
func Of(findings []Finding, levels ...Level) (of []Finding) {
	for _, f := range findings {
		for _, l := range levels {
			if f.Level == l {
				of = append(of, f)
			}
		}
	}
	return of
}

// Count returns the number of problems in the findings, including those that [Finding].More
// counts.
func Count(findings []Finding) (n int) {
	for _, f := range findings {
		n += max(f.More, 1)
	}
	return n
}

// Notes returns a note for each level of findings but Unloadable: what Prometheus does with
// such a block, and the first places. It has none for Unloadable, because such a block
// cannot be used.
func Notes(findings []Finding) (notes []string) {
	for _, l := range []struct {
		level Level
		means string
	}{
		{Unreadable, "damaged: a server serves all other blocks, but queries of these places fail or miss samples"},
		{Odd, "odd, but Prometheus serves all of it"},
	} {
		of := Of(findings, l.level)
		if len(of) == 0 {
			continue
		}
		const most = 3
		var places []string
		for _, f := range of[:min(len(of), most)] {
			places = append(places, f.String())
		}
		if n := Count(of) - len(places); n > 0 {
			places = append(places, fmt.Sprintf("and %d more", n))
		}
		notes = append(notes, l.means+": "+strings.Join(places, "; "))
	}
	return notes
}
