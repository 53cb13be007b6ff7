package changed

import (
	"math"
	"slices"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
)

// table has the series of one family: the labels of all, and what changed of some.
type table struct {
	engine *engine
	plan   *plan
	name   string

	classic bool // a classic histogram or a summary
	native  bool // native histograms

	ids   map[pair]uint32
	pairs []pairCount
	items []item
	arena []uint32 // of the items' pairs

	changes []change
	births  []birth
	ends    []life
	flaps   []life
	base    int // items with samples in the baseline
	bornB   int // that began in the baseline
	endedB  int // that ended in it

	cmp     comparison
	buffers [4][]float64
	zero    []float64
	held    int64
}

type pair struct{ name, value string }

type pairCount struct {
	pair
	base int // items that have it and samples in the baseline
}

type item struct{ pairs []uint32 }

// change is an aspect of a series that changed.
type change struct {
	item   int
	aspect Aspect
	effect effect
	spark  []float32
	kind   Kind
	at     int64
}

// life is a series that ended or flapped.
type life struct {
	item int
	at   int64
	n    int
}

// birth is a series that has no sample in the baseline. If its target has others, its
// change is that from nothing.
type birth struct {
	life
	change *change
}

// weakest is the strength from which on a series counts as changed.
const weakest = 0.08

// maxSparks of a family are kept.
const maxSparks = 5000

func newTable(e *engine, name string) *table {
	return &table{engine: e, plan: e.plan, name: name, ids: map[pair]uint32{}}
}

func (t *table) buffer(i int) []float64 {
	if t.buffers[i] == nil {
		t.buffers[i] = make([]float64, t.plan.width)
	}
	return t.buffers[i]
}

// hold reports whether there is room for bytes more, and takes it.
func (t *table) hold(n int64) bool {
	if !t.engine.room(n) {
		return false
	}
	t.held += n
	return true
}

func (t *table) release() { t.engine.release(t.held) }

// maxPairs is the number of distinct labels of a metric by which series are grouped.
const maxPairs = 200_000

// add adds a series.
func (t *table) add(ls labels.Labels, base bool) int {
	from := len(t.arena)
	ls.Range(func(l labels.Label) {
		if l.Name == model.MetricNameLabel {
			return
		}
		id, ok := t.ids[pair{l.Name, l.Value}]
		if !ok {
			if len(t.pairs) >= maxPairs {
				return
			}
			p := pair{strings.Clone(l.Name), strings.Clone(l.Value)}
			id = uint32(len(t.pairs))
			t.ids[p] = id
			t.pairs = append(t.pairs, pairCount{pair: p})
		}
		if base {
			t.pairs[id].base++
		}
		t.arena = append(t.arena, id)
	})
	t.items = append(t.items, item{pairs: t.arena[from:len(t.arena):len(t.arena)]})
	if base {
		t.base++
	}
	return len(t.items) - 1
}

// series adds a series with its samples and compares it.
func (t *table) series(ls labels.Labels, f *fold) error {
	b, w := &f.extent[0], &f.extent[1]
	if b.n == 0 && w.n == 0 {
		return nil // it was there on earlier days alone
	}
	if err := t.engine.charge(int64(ls.Len())*4 + 64); err != nil {
		return err
	}
	i := t.add(ls, b.n > 0)
	name := ls.Get(model.MetricNameLabel)
	t.native = t.native || f.native
	vectors := t.vectors(f, name)
	if b.n == 0 {
		t.born(i, w, vectors[0])
		return nil
	}
	t.lives(i, f)
	// The age of a time that never changes rises, and is no change.
	if vectors[0].aspect != Age || f.least != f.most {
		for _, v := range vectors {
			t.value(i, name, v)
		}
	}
	if vectors[0].aspect == Age && b.future && b.past == 0 && w.past != 0 {
		c := change{item: i, aspect: Age, kind: Deadline, at: w.past, effect: effect{strength: 0.8, up: true}}
		c.spark = t.spark(vectors[0].values)
		t.keep(c)
	}
	return nil
}

// value compares one aspect of a series.
func (t *table) value(i int, name string, v aspectVector) {
	t.cmp.base, t.cmp.window = t.plan.part(v.values, 0), t.plan.part(v.values, 1)
	t.cmp.floor, t.cmp.event = v.floor, v.event
	t.cmp.days = t.cmp.days[:0]
	for d := range t.plan.days {
		t.cmp.days = append(t.cmp.days, [2][]float64{t.plan.part(v.values, 2+2*d), t.plan.part(v.values, 3+2*d)})
	}
	e := t.cmp.compare()
	if e.strength < weakest {
		return
	}
	t.keep(change{item: i, aspect: v.aspect, effect: e, kind: Value, at: t.plan.start(e.began), spark: t.spark(v.values)})
}

func (t *table) keep(c change) {
	t.engine.changed.Add(1)
	t.changes = append(t.changes, c)
}

// spark reduces the values to what a small picture shows.
func (t *table) spark(v []float64) []float32 {
	if len(t.changes) >= maxSparks {
		return nil
	}
	out := make([]float32, 0, 2*sparkParts)
	for seg := range 2 {
		part := t.plan.part(v, seg)
		n := t.plan.sparkLen(seg)
		for k := range n {
			sum, there := 0.0, 0
			for _, x := range part[k*len(part)/n : (k+1)*len(part)/n] {
				if !math.IsNaN(x) {
					sum += x
					there++
				}
			}
			out = append(out, float32(sum/float64(there))) // NaN where there is none
		}
	}
	return out
}

// sparkParts is the number of values of a spark for the window.
const sparkParts = 30

func (p *plan) sparkLen(seg int) int { return min(sparkParts, p.segments[seg].n) }

// born adds a series that the baseline lacks.
func (t *table) born(i int, w *extent, v aspectVector) {
	b := birth{life: life{item: i, at: w.first}}
	if t.zero == nil {
		t.zero = make([]float64, t.plan.segments[0].n)
	}
	t.cmp.base, t.cmp.window, t.cmp.days = t.zero, t.plan.part(v.values, 1), nil
	t.cmp.floor, t.cmp.event = v.floor, v.event
	if v.aspect != Age {
		if e := t.cmp.compare(); e.strength >= weakest && len(t.births) < maxSparks {
			b.change = &change{item: i, aspect: v.aspect, effect: e, kind: Value, at: w.first, spark: t.spark(v.values)}
		}
	}
	t.births = append(t.births, b)
}

// lives counts ends and gaps of a series.
func (t *table) lives(i int, f *fold) {
	b, w := &f.extent[0], &f.extent[1]
	interval := int64(minStep)
	if n := b.n + w.n; n > 2 {
		interval = max(b.last-b.first, w.last-w.first) / int64(max(max(b.n, w.n)-1, 1))
	}
	quiet := max(4*interval, 2*t.plan.step)
	base, window := t.plan.segments[0].Span, t.plan.segments[1].Span
	if b.first > base.From+quiet {
		t.bornB++
	}
	switch {
	case w.n == 0 && b.last < base.To-max(quiet, base.Length()/10):
		t.endedB++
	case w.n == 0:
		t.ends = append(t.ends, life{item: i, at: b.last})
	case w.last < window.To-quiet:
		at := w.last
		if w.stale != 0 {
			at = w.stale
		}
		t.ends = append(t.ends, life{item: i, at: at})
	case w.breaks >= 2 && w.breaks > 2*b.breaks:
		t.flaps = append(t.flaps, life{item: i, at: w.first, n: w.breaks})
	}
}

// existed reports whether the target of a series had other series of the metric in the
// baseline.
func (t *table) existed(i int) bool {
	for _, id := range t.items[i].pairs {
		p := &t.pairs[id]
		if p.base == 0 && slices.Contains(targetLabels, p.name) {
			return false
		}
	}
	return true
}

// targetLabels are the labels that name what is scraped, or what it tells of.
var targetLabels = []string{
	"pod", "instance", "node", "container", "namespace", "job", "service", "exported_pod", "exported_namespace", "uid",
	"deployment", "statefulset", "daemonset", "cluster", "host", "hostname", "nodename", "id", "name", "pod_name", "replicaset",
	"job_name", "persistentvolumeclaim", "exported_job", "exported_instance", "container_name", "kubernetes_pod_name",
}
