package changed

import (
	"cmp"
	"slices"
)

// group is a set of items that the same labels select.
type group struct {
	by      []uint32 // the labels that select it; none: all items
	members []int    // indices of what is grouped, the strongest first
	fit     float64  // harmonic mean of purity and coverage, from 0 to 1
	of      int      // items that the labels select
}

// part is what is grouped: an item with a weight.
type part struct {
	item   int
	weight float64
}

const (
	maxGroups = 4    // of one metric, aspect and direction
	maxBy     = 3    // labels that select a group
	better    = 1.03 // by which a further label must improve the fit
	strongOf  = 0.5  // of the strongest: what is grouped at once
)

// groups finds the labels that the strongest parts share and other items lack, takes
// what they select, and repeats that with the rest.
func (t *table) groups(parts []part) (out []group) {
	left := make([]int, len(parts))
	for i := range left {
		left[i] = i
	}
	slices.SortStableFunc(left, func(a, b int) int { return cmp.Compare(parts[b].weight, parts[a].weight) })
	weights := make([]float64, len(t.items))
	for len(left) > 0 && len(out) < maxGroups {
		limit := parts[left[0]].weight * strongOf
		clear(weights)
		strong := 0
		for _, i := range left {
			if parts[i].weight >= limit {
				weights[parts[i].item] = parts[i].weight
				strong++
			}
		}
		g := t.best(weights, strong)
		rest := left[:0:0]
		for _, i := range left {
			if t.has(parts[i].item, g.by) {
				g.members = append(g.members, i)
			} else {
				rest = append(rest, i)
			}
		}
		out = append(out, g)
		left = rest
	}
	return out
}

// best finds the labels that select the items with weights and few others.
func (t *table) best(weights []float64, strong int) group {
	all := 0.0
	for _, w := range weights {
		all += w
	}
	g := group{of: len(t.items), fit: fit(1, float64(strong)/float64(len(t.items)))}
	if strong == len(t.items) {
		return g
	}
	count, weight, found := make([]int, len(t.pairs)), make([]float64, len(t.pairs)), make([]int, len(t.pairs))
	for len(g.by) < maxBy {
		clear(count)
		clear(weight)
		clear(found)
		n := 0
		for i := range t.items {
			if !t.has(i, g.by) {
				continue
			}
			n++
			for _, id := range t.items[i].pairs {
				count[id]++
				weight[id] += weights[i]
				if weights[i] > 0 {
					found[id]++
				}
			}
		}
		pick, pickFit := -1, g.fit*better
		for id := range t.pairs {
			if weight[id] == 0 || count[id] == n {
				continue
			}
			f := fit(weight[id]/all, float64(found[id])/float64(count[id]))
			if f > pickFit || pick >= 0 && f >= pickFit*0.9999 && t.nearer(uint32(id), uint32(pick)) {
				pick, pickFit = id, f
			}
		}
		if pick < 0 {
			break
		}
		g.by, g.fit, g.of = append(g.by, uint32(pick)), pickFit, count[pick]
	}
	return g
}

func fit(coverage, purity float64) float64 {
	if coverage+purity == 0 {
		return 0
	}
	return 2 * coverage * purity / (coverage + purity)
}

// nearer reports whether a label says more of the place of a change than another one
// that selects the same series.
func (t *table) nearer(a, b uint32) bool {
	place := func(id uint32) int {
		if i := slices.Index(targetLabels, t.pairs[id].name); i >= 0 {
			return i
		}
		return len(targetLabels)
	}
	if pa, pb := place(a), place(b); pa != pb {
		return pa < pb
	}
	return t.pairs[a].name < t.pairs[b].name
}

func (t *table) has(item int, by []uint32) bool {
	for _, id := range by {
		if !slices.Contains(t.items[item].pairs, id) {
			return false
		}
	}
	return true
}

// share returns the labels of a group: those that all of its members have and few other
// items, and those that all items have.
func (t *table) share(items []int) (own, common map[string]string) {
	own, common = map[string]string{}, map[string]string{}
	if len(items) == 0 {
		return own, common
	}
	in, everywhere := map[uint32]int{}, make([]int, len(t.pairs))
	for _, i := range items {
		for _, id := range t.items[i].pairs {
			in[id]++
		}
	}
	for i := range t.items {
		for _, id := range t.items[i].pairs {
			everywhere[id]++
		}
	}
	others := len(t.items) - len(items)
	for id, n := range in {
		if n < len(items) {
			continue
		}
		p := t.pairs[id].pair
		switch outside := everywhere[id] - n; {
		case others == 0, outside*2 < others:
			own[p.name] = p.value
		case outside == others:
			common[p.name] = p.value
		}
	}
	return own, common
}
