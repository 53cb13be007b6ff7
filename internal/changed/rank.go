package changed

import (
	"cmp"
	"math"
	"slices"
	"strings"
)

// least is the score from which on a row is shown.
const least = 0.06

// stronger orders rows by their score; the rest makes the order the same each time.
func stronger(a, b Row) int {
	return cmp.Or(cmp.Compare(b.Score, a.Score), cmp.Compare(a.Began, b.Began), cmp.Compare(a.Metric, b.Metric),
		cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Aspect, b.Aspect), slices.Compare(a.pairs, b.pairs))
}

// rank merges rows that say the same, orders them and cuts them at the limit.
func rank(p *plan, rows []Row, by Sort, limit int) (out []Row, leftOut int) {
	rows = slices.DeleteFunc(rows, func(r Row) bool { return r.Score < least })
	slices.SortFunc(rows, stronger)
	rows = mergeLives(rows)
	slices.SortFunc(rows, stronger)
	rows = mergeAlike(rows)
	for i := range rows {
		early(p, &rows[i])
	}
	slices.SortFunc(rows, stronger)
	spread(rows)
	if by == ByStart {
		// What is weak moved first by chance.
		strong := rows[:min(len(rows), 3*limit)]
		slices.SortStableFunc(strong, func(a, b Row) int { return cmp.Compare(a.Began, b.Began) })
	}
	leftOut = max(len(rows)-limit, 0)
	rows = rows[:min(len(rows), limit)]
	for i := range rows {
		rows[i].Rank = i + 1
		rows[i].Score = math.Round(rows[i].Score*1000) / 1000
	}
	if rows == nil {
		rows = []Row{}
	}
	return rows, leftOut
}

// mergeLives makes one row of the metrics that a target had: they begin and end
// together.
func mergeLives(rows []Row) (out []Row) {
	at := map[string]int{}
	for _, r := range rows {
		if r.Kind != Born && r.Kind != Ended && r.Kind != Replaced && r.Kind != Flapping || len(r.pairs) == 0 {
			out = append(out, r)
			continue
		}
		key := string(r.Kind) + "\xfe" + strings.Join(r.pairs, "\xfe")
		i, ok := at[key]
		if !ok {
			at[key] = len(out)
			out = append(out, r)
			continue
		}
		first := &out[i]
		if r.Metric == "up" { // who looks for a target looks for this one
			merged := *first
			score := max(first.Score, r.Score)
			*first = r
			first.Metrics, first.Also, first.Score = merged.Metrics, append([]string{merged.Metric}, merged.Also...), score
		} else if len(first.Also) < mostAlso {
			first.Also = append(first.Also, r.Metric)
		}
		first.Metrics++
	}
	for i := range out {
		if n := out[i].Metrics; n > 1 {
			out[i].Score = min(out[i].Score*(1+0.04*math.Log2(float64(n))), 0.95)
		}
	}
	return out
}

const mostAlso = 30

// mergeAlike makes one row of the aspects of a metric, and of the metrics of one
// component, that changed for the same labels at the same time.
func mergeAlike(rows []Row) (out []Row) {
	at := map[string][]int{}
	for _, r := range rows {
		if r.Kind != Value {
			out = append(out, r)
			continue
		}
		key := strings.Join(r.pairs, "\xfe")
		merged := false
		for _, i := range at[key] {
			first := &out[i]
			if first.Metric == r.Metric && first.Aspect != r.Aspect || alike(first, &r) {
				if name := also(&r, first); len(first.Also) < mostAlso {
					first.Also = append(first.Also, name)
				}
				merged = true
				break
			}
		}
		if !merged {
			at[key] = append(at[key], len(out))
			out = append(out, r)
		}
	}
	return out
}

func also(r, first *Row) string {
	if r.Metric == first.Metric || r.Aspect == Mean || r.Aspect == P99 {
		return r.Metric + " (" + string(r.Aspect) + ")"
	}
	return r.Metric
}

// alike reports whether two metrics are of one component and their pictures are the
// same but for their scale.
func alike(a, b *Row) bool {
	return a.Metric != b.Metric && component(a.Metric) == component(b.Metric) && correlation(a.Spark, b.Spark) > 0.95
}

// component is the first two words of a metric's name.
func component(name string) string {
	first, rest, _ := strings.Cut(name, "_")
	second, _, _ := strings.Cut(rest, "_")
	return first + "_" + second
}

func correlation(a, b []*float64) float64 {
	var n, sa, sb, saa, sbb, sab float64
	for i := range a {
		if i >= len(b) || a[i] == nil || b[i] == nil {
			continue
		}
		x, y := *a[i], *b[i]
		n, sa, sb, saa, sbb, sab = n+1, sa+x, sb+y, saa+x*x, sbb+y*y, sab+x*y
	}
	va, vb := n*saa-sa*sa, n*sbb-sb*sb
	if va <= 0 || vb <= 0 {
		return 0
	}
	return (n*sab - sa*sb) / math.Sqrt(va*vb)
}

// early raises what began early in the window a little: causes are before effects.
func early(p *plan, r *Row) {
	part := float64(r.Began-p.window.From) / float64(max(p.window.Length(), 1))
	r.Score *= 1 + 0.08*(1-min(max(part, 0), 1))
	r.Score = min(r.Score, 1)
}

// spread lowers the rows of labels and of metrics that many rows above have, so that one
// change with many effects does not hide the others.
func spread(rows []Row) {
	labels, metrics := map[string]int{}, map[string]int{}
	const free = 2
	for range 2 { // the order changes by it
		clear(labels)
		clear(metrics)
		alerts := 0
		for i := range rows {
			r := &rows[i]
			key := strings.Join(r.pairs, "\xfe")
			n := labels[key] - free
			m := metrics[r.family]
			labels[key]++
			metrics[r.family]++
			k := 0
			if r.Kind == Firing {
				k = alerts
				alerts++
			}
			r.sortKey = r.Score * math.Pow(0.93, float64(max(n, 0))) * math.Pow(0.9, float64(m)) * math.Pow(0.85, float64(k))
		}
		slices.SortStableFunc(rows, func(a, b Row) int { return cmp.Compare(b.sortKey, a.sortKey) })
	}
}
