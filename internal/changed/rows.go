package changed

import (
	"cmp"
	"math"
	"slices"
	"strings"
)

// rows makes the rows of a family.
func (t *table) rows() (rows []Row) {
	if t.name == alertMetric {
		return t.alerts()
	}
	burst := t.burst()
	var born []life
	for _, b := range t.births {
		if b.change != nil && !burst && t.existed(b.item) {
			t.keep(*b.change)
			continue
		}
		born = append(born, b.life)
	}
	for _, a := range []Aspect{Level, Rate, Mean, P99, Age} {
		for _, up := range []bool{true, false} {
			for _, kind := range []Kind{Value, Deadline} {
				rows = append(rows, t.valueRows(a, up, kind)...)
			}
		}
	}
	rows = append(rows, t.lifeRows(Born, born)...)
	rows = append(rows, t.lifeRows(Ended, t.ends)...)
	return append(rows, t.lifeRows(Flapping, t.flaps)...)
}

// burst reports whether so many series began that their number is the change, and not
// their values.
func (t *table) burst() bool {
	const many = 50
	return len(t.births) >= many && len(t.births) > t.base/2
}

func (t *table) valueRows(a Aspect, up bool, kind Kind) (rows []Row) {
	var parts []part
	var of []int
	for i := range t.changes {
		c := &t.changes[i]
		if c.aspect == a && c.effect.up == up && c.kind == kind {
			parts = append(parts, part{c.item, c.effect.strength})
			of = append(of, i)
		}
	}
	if len(parts) == 0 {
		return nil
	}
	for _, g := range t.groups(parts) {
		members := make([]*change, len(g.members))
		for i, m := range g.members {
			members[i] = &t.changes[of[m]]
		}
		rows = append(rows, t.valueRow(g, members))
	}
	return rows
}

// valueRow makes a row of changes, the strongest of which is the first.
func (t *table) valueRow(g group, members []*change) Row {
	first := members[0]
	r := Row{
		Kind: first.kind, Metric: t.name, Aspect: first.aspect, Up: first.effect.up, Unit: unit(t.name, first.aspect),
		Series: len(members), Of: len(t.items), Metrics: 1, family: t.name,
	}
	strong, weight := 0.0, 0.0
	before, after, n := 0.0, 0.0, 0
	began := []int64{}
	items := make([]int, 0, len(members))
	for _, m := range members {
		s := m.effect.strength
		strong, weight = strong+s*s, weight+s
		if s >= strongOf*first.effect.strength {
			before, after, n = before+m.effect.before, after+m.effect.after, n+1
			began = append(began, m.at)
			items = append(items, m.item)
		}
	}
	r.strength = strong / weight
	slices.Sort(began)
	r.Began = began[len(began)/4]
	if first.kind == Value {
		before, after = before/float64(n), after/float64(n)
		r.Before, r.After = &before, &after
	}
	r.Labels, r.Common = t.share(items)
	r.Score = r.strength * (0.7 + 0.3*g.fit) * weightOf(t.name)
	r.Score = 1 - math.Pow(1-min(r.Score, 0.99), 1+min(0.1*math.Log2(float64(n)), 0.4))
	t.draw(&r, members)
	r.Reason = reasonValue(t.plan, &r, g, first)
	r.Queries = t.queries(&r, g)
	r.Query = r.Queries[0].Expr
	r.setPairs(t, g)
	return r
}

func (r *Row) setPairs(t *table, g group) {
	for _, id := range g.by {
		r.pairs = append(r.pairs, t.pairs[id].name+"\xff"+t.pairs[id].value)
	}
	slices.Sort(r.pairs)
}

// draw makes the row's small picture: the mean of its strongest series.
func (t *table) draw(r *Row, members []*change) {
	const most = 20
	n := t.plan.sparkLen(0) + t.plan.sparkLen(1)
	sum, there := make([]float64, n), make([]float64, n)
	for _, m := range members[:min(len(members), most)] {
		for i, x := range m.spark {
			if !math.IsNaN(float64(x)) {
				sum[i] += float64(x)
				there[i]++
			}
		}
	}
	r.Spark = make([]*float64, n)
	for i := range sum {
		if there[i] > 0 {
			x := sum[i] / there[i]
			r.Spark[i] = &x
		}
	}
	t.plan.frame(r)
}

// frame sets the times of the row's picture.
func (p *plan) frame(r *Row) {
	r.SparkStep = p.segments[1].Length() / int64(max(p.sparkLen(1), 1))
	r.SparkFrom = []int64{p.segments[0].From, p.segments[1].From}
	r.SparkLen = []int{p.sparkLen(0), p.sparkLen(1)}
}

func (t *table) lifeRows(kind Kind, lives []life) (rows []Row) {
	if len(lives) == 0 {
		return nil
	}
	parts := make([]part, len(lives))
	for i, l := range lives {
		parts[i] = part{l.item, 1}
	}
	for _, g := range t.groups(parts) {
		items, times := make([]int, len(g.members)), make([]int64, len(g.members))
		breaks := 0
		for i, m := range g.members {
			items[i], times[i] = lives[m].item, lives[m].at
			breaks += lives[m].n
		}
		slices.Sort(times)
		r := Row{
			Kind: kind, Metric: t.name, Up: kind == Born, Began: times[len(times)/4], Series: len(items), Of: len(t.items),
			Metrics: 1, family: t.name,
		}
		r.Labels, r.Common = t.share(items)
		r.Score = t.lifeScore(&r, g, float64(breaks)/float64(len(items)))
		r.strength = r.Score
		r.Score *= weightOf(t.name)
		t.population(&r, times)
		r.Reason = t.reasonLife(&r, items)
		r.Queries = t.queries(&r, g)
		r.Query = r.Queries[0].Expr
		r.setPairs(t, g)
		rows = append(rows, r)
	}
	return rows
}

// lifeScore weighs what began or ended by what the metric has, and by what began and
// ended in the baseline too.
func (t *table) lifeScore(r *Row, g group, breaks float64) float64 {
	n, births, ends := float64(r.Series), float64(len(t.births)), float64(len(t.ends))
	had := float64(max(t.base, 1))
	p := t.plan
	scale := float64(p.segments[1].n) / float64(p.segments[0].n) // as long as the window
	switch r.Kind {
	case Born:
		usual := scale * float64(t.bornB)
		more := max(births-ends-2*usual, 0) * n / births
		if more == 0 && ends > 0 {
			return 0.1 * g.fit
		}
		growth := math.Log2((had + more) / had)
		if t.base == 0 {
			return 0.3
		}
		return 0.95 * growth / (growth + halfFold) * n / (n + 2)
	case Flapping:
		return 0.5 * breaks / (breaks + 2) * (0.5 + 0.5*g.fit)
	}
	usual := scale * float64(t.endedB)
	score := (0.4 + 0.35*n/had) * (0.5 + 0.5*g.fit) * ends / (ends + 2*usual)
	if births >= 0.7*ends {
		r.Kind = Replaced
		score *= 0.35
	}
	return score
}

// population draws how many series there are.
func (t *table) population(r *Row, times []int64) {
	p := t.plan
	p.frame(r)
	n := float64(len(times))
	for seg := range 2 {
		s := p.segments[seg]
		for k := range p.sparkLen(seg) {
			at := s.From + s.Length()*int64(k+1)/int64(p.sparkLen(seg))
			passed, _ := slices.BinarySearch(times, at)
			x := float64(passed)
			if r.Kind != Born {
				x = n - x
			}
			r.Spark = append(r.Spark, &x)
		}
	}
	before, after := 0.0, n
	if r.Kind != Born {
		before, after = n, 0
	}
	if r.Kind != Flapping {
		r.Before, r.After = &before, &after
	}
}

// news returns the label with the most distinct values among items, and their number.
func (t *table) news(items []int) (name string, n int) {
	values := map[string]int{}
	seen := map[uint32]bool{}
	for _, i := range items {
		for _, id := range t.items[i].pairs {
			if !seen[id] && t.pairs[id].base == 0 {
				seen[id] = true
				values[t.pairs[id].name]++
			}
		}
	}
	for k, v := range values {
		if v > n || v == n && cmp.Less(k, name) {
			name, n = k, v
		}
	}
	return name, n
}

// weightOf a metric's name: what people act on is before what explains it.
func weightOf(name string) float64 {
	for _, end := range []string{"_created", "_info", "_labels", "_annotations"} {
		if strings.HasSuffix(name, end) {
			return 0.5
		}
	}
	for _, begin := range []string{"go_", "scrape_", "prometheus_", "promhttp_", "net_conntrack_"} {
		if strings.HasPrefix(name, begin) {
			return 0.85
		}
	}
	return 1
}
