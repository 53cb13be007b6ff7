// Package suggest finds names that are similar to a mistyped one: of commands, flags, pods and
// contexts.
//
// Suggestions are for display only. Callers must never use one in place of the typed name.
package suggest

import (
	"cmp"
	"slices"
	"strings"
)

// Nearest returns at most three names that are similar to name, the most similar first: those that
// contain it or are contained in it, and those with few different letters.
func Nearest(name string, names []string) []string {
	type scored struct {
		name string
		far  int
	}
	var near []scored
	for _, n := range names {
		far := distance(name, n)
		inside := len(name) >= 3 && strings.Contains(n, name) || len(n) >= 3 && strings.Contains(name, n)
		if inside {
			far = min(far, 1)
		}
		if inside || far <= 1+len(name)/4 {
			near = append(near, scored{n, far})
		}
	}
	slices.SortFunc(near, func(a, b scored) int {
		return cmp.Or(cmp.Compare(a.far, b.far), cmp.Compare(a.name, b.name))
	})
	var found []string
	for _, s := range near[:min(len(near), 3)] {
		found = append(found, s.name)
	}
	return found
}

// distance returns the number of bytes that must be changed, added or removed to turn a into b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}
