package block

import (
	"context"
	"fmt"
	"math"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// answer is a sample as a querier returns it: its exact value as text, and the counter reset hint.
type answer struct {
	text string
	hint histogram.CounterResetHint
}

// queryBlock returns all samples of a block in [mint, maxt] as the TSDB library reads them. It
// trims them itself: with deletions the library's trimming can panic (v0.315.0,
// tombstones.Intervals.Add).
func queryBlock(t testing.TB, dir string, mint, maxt int64) map[string][]answer {
	t.Helper()
	b, err := tsdb.OpenBlock(nil, dir, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	q, err := tsdb.NewBlockQuerier(b, math.MinInt64, math.MaxInt64)
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	out := map[string][]answer{}
	set := q.Select(context.Background(), true, nil, labels.MustNewMatcher(labels.MatchRegexp, "__name__", ".*"))
	for set.Next() {
		s := set.At()
		answers, err := answersOf(s, mint, maxt)
		if err != nil {
			t.Fatal(err)
		}
		if len(answers) > 0 {
			out[s.Labels().String()] = answers
		}
	}
	if err := set.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

func answersOf(s storage.Series, mint, maxt int64) ([]answer, error) {
	var out []answer
	it := s.Iterator(nil)
	for typ := it.Next(); typ != chunkenc.ValNone; typ = it.Next() {
		if it.AtT() < mint || it.AtT() > maxt {
			continue
		}
		a := answer{}
		switch typ {
		case chunkenc.ValFloat:
			_, v := it.At()
			a.text = fmt.Sprintf("%x", math.Float64bits(v))
		case chunkenc.ValHistogram:
			_, h := it.AtHistogram(nil)
			a.hint = h.CounterResetHint
			h = h.Copy()
			h.CounterResetHint = 0
			a.text = fmt.Sprintf("int %x %+v", math.Float64bits(h.Sum), *h)
		case chunkenc.ValFloatHistogram:
			_, h := it.AtFloatHistogram(nil)
			a.hint = h.CounterResetHint
			h = h.Copy()
			h.CounterResetHint = 0
			a.text = fmt.Sprintf("float %x %+v", math.Float64bits(h.Sum), *h)
		}
		a.text = fmt.Sprintf("%d st %d: %s", it.AtT(), it.AtST(), a.text)
		out = append(out, a)
	}
	return out, it.Err()
}

// sameAnswers compares the samples of two blocks. In a trimmed chunk the counter reset hint of the
// first histogram may be unknown.
func sameAnswers(t testing.TB, want, got map[string][]answer) {
	t.Helper()
	for name, w := range want {
		g := got[name]
		if len(g) != len(w) {
			t.Errorf("series %.200s has %d samples, not %d", name, len(g), len(w))
			continue
		}
		for i := range w {
			if g[i].text != w[i].text {
				t.Errorf("series %.200s sample %d is %s, not %s", name, i, g[i].text, w[i].text)
				break
			}
			if g[i].hint != w[i].hint && (g[i].hint != histogram.UnknownCounterReset || w[i].hint != histogram.NotCounterReset) {
				t.Errorf("series %.200s sample %d has hint %d, not %d", name, i, g[i].hint, w[i].hint)
				break
			}
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok {
			t.Errorf("series %.200s is not in the selection", name)
		}
	}
}
