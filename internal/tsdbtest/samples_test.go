package tsdbtest

import (
	"maps"
	"math"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/promdump/promdump/internal/wire"
)

func float(s Sample) float64 { return math.Float64frombits(s.Value) }

// TestDiffSeesEveryDifference checks that Diff reports all kinds of differences.
func TestDiffSeesEveryDifference(t *testing.T) {
	f := func(t int64, v float64) Sample {
		return Sample{T: t, Kind: chunkenc.ValFloat, Value: math.Float64bits(v)}
	}
	h := Sample{T: 3, Kind: chunkenc.ValHistogram, Histogram: "schema=3", Hint: histogram.NotCounterReset}
	want := Served{"a": {f(1, 1), f(2, math.NaN()), h}, "b": {f(1, 1)}}
	with := func(change func(Served)) Served {
		got := Served{}
		for name, samples := range want {
			got[name] = slices.Clone(samples)
		}
		change(got)
		return got
	}
	for name, got := range map[string]Served{
		"series missing":  with(func(s Served) { delete(s, "b") }),
		"series too many": with(func(s Served) { s["c"] = []Sample{f(1, 1)} }),
		"first missing":   with(func(s Served) { s["a"] = s["a"][1:] }),
		"last missing":    with(func(s Served) { s["a"] = s["a"][:2] }),
		"one too many":    with(func(s Served) { s["b"] = append(s["b"], f(5, 1)) }),
		"twice":           with(func(s Served) { s["b"] = append(s["b"], s["b"]...) }),
		"another time":    with(func(s Served) { s["b"][0].T++ }),
		"another payload": with(func(s Served) { s["a"][1].Value++ }),
		"another kind":    with(func(s Served) { s["a"][2].Kind = chunkenc.ValFloatHistogram }),
		"start timestamp": with(func(s Served) { s["b"][0].ST = 1 }),
		"histogram":       with(func(s Served) { s["a"][2].Histogram = "schema=4" }),
		"gauge":           with(func(s Served) { s["a"][2].Hint = histogram.GaugeType }),
		"false reset":     with(func(s Served) { s["a"][2].Hint = histogram.CounterReset }),
	} {
		if Diff(want, got) == "" {
			t.Errorf("%s: no difference", name)
		}
	}
	same := with(func(s Served) { s["a"][2].Hint = histogram.UnknownCounterReset })
	if diff := Diff(want, same); diff != "" {
		t.Errorf("an unknown hint is a difference: %s", diff)
	}
}

func TestRandomIsReproducible(t *testing.T) {
	read := func(seed uint64) Served {
		d := Random(t, filepath.Join(t.TempDir(), "data"), seed, Options{Duration: 9 * time.Hour})
		return Samples(t, d.DB(), Everything())
	}
	a, b, c := read(7), read(7), read(8)
	if diff := Diff(a, b); diff != "" {
		t.Errorf("two TSDBs of the same seed differ:\n%s", diff)
	}
	if Diff(a, c) == "" {
		t.Error("two seeds have the same samples")
	}
}

func TestSelections(t *testing.T) {
	d := Random(t, filepath.Join(t.TempDir(), "data"), 3, Options{})
	all := Samples(t, d.DB(), Everything())
	var empty, full, some, single int
	types := map[string]bool{}
	for _, sel := range d.Selections(1, 50) {
		got := Samples(t, d.DB(), sel)
		switch n := got.Count(); {
		case n == 0:
			empty++
		case n == all.Count():
			full++
		default:
			some++
		}
		if sel.MinTime == sel.MaxTime {
			single++
		}
		for _, list := range sel.Matchers {
			for _, m := range list {
				types[m.Type] = true
			}
		}
		// The samples of a selection are a part of all samples.
		part := all.Restrict(sel.MinTime, sel.MaxTime)
		maps.DeleteFunc(part, func(name string, _ []Sample) bool { _, ok := got[name]; return !ok })
		if diff := Diff(part, got); diff != "" {
			t.Fatalf("%+v:\n%s", sel, diff)
		}
	}
	if empty < 2 || full < 1 || some < 12 || single < 2 || len(types) != 4 {
		t.Errorf("%d empty, %d full, %d others, %d of one millisecond, matcher types %v", empty, full, some, single, types)
	}
	if _, err := Matchers(wire.Selection{Matchers: [][]wire.Matcher{{{Type: "~", Name: "a"}}}}); err == nil {
		t.Error("no error for an unknown matcher type")
	}
}
