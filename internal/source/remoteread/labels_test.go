package remoteread

import (
	"bytes"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/tsdb"

	"github.com/promdump/promdump/internal/dump"
	"github.com/promdump/promdump/internal/source/sourcetest"
	"github.com/promdump/promdump/internal/tsdbtest"
	"github.com/promdump/promdump/internal/wire"
)

// External labels come off, and those that a series has itself stay.
func TestExternalLabels(t *testing.T) {
	db, err := tsdb.Open(t.TempDir(), nil, nil, tsdb.DefaultOptions(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	start := time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC).UnixMilli()
	app := db.Appender(t.Context())
	for i, l := range []labels.Labels{
		labels.FromStrings("__name__", "a", "x", "1"),
		labels.FromStrings("__name__", "own", "cluster", "eu"),
		labels.FromStrings("__name__", "other", "cluster", "us"),
		labels.FromStrings("__name__", "both", "cluster", "eu", "zone", "z"),
		labels.FromStrings("__name__", "zone", "zone", "z"),
		labels.FromStrings("__name__", "twin"), // two series that differ in nothing else
		labels.FromStrings("__name__", "twin", "cluster", "eu"),
		labels.FromStrings("__name__", "order", "a", "1"), // before the next, and after it with an external label
		labels.FromStrings("__name__", "order", "a", "1", "b", "1"),
		labels.FromStrings("__name__", "order", "a", "1", "d", "1"),
	} {
		for n := range int64(300) {
			if _, err := app.Append(0, l, start+n*60_000, float64(i)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := app.Commit(); err != nil {
		t.Fatal(err)
	}
	external := map[string]string{"cluster": "eu", "zone": "z", "alpha": "1.*", "replica": "0"}
	s := serve(t, db, db, func(s *server) { s.external = external })
	read := func(t *testing.T, s *server, keep bool, matchers ...[]wire.Matcher) (tsdbtest.Served, *notes) {
		t.Helper()
		told := &notes{}
		src := s.source(t, func(o *Options) { o.KeepExternalLabels = keep; o.Note = told.note })
		sel := wire.Selection{MinTime: start, MaxTime: start + 300*60_000, Matchers: matchers}
		dir, report, _, err := sourcetest.Dump(t, src, wire.Request{Head: wire.HeadBlock, Selection: sel})
		if report.Plan != nil {
			told.all = append(told.all, report.Plan.Notes...)
		}
		if _, empty := errors.AsType[*dump.EmptyError](err); empty {
			return tsdbtest.Served{}, told
		}
		if err != nil {
			t.Fatal(err)
		}
		return tsdbtest.SamplesDir(t, dir, tsdbtest.Everything()), told
	}
	served := func(matchers ...[]wire.Matcher) tsdbtest.Served {
		return tsdbtest.Samples(t, db, wire.Selection{MinTime: start, MaxTime: start + 300*60_000, Matchers: matchers})
	}
	for what, ms := range map[string][][]wire.Matcher{
		"all":        nil,
		"own":        {{{Type: "=", Name: "cluster", Value: "eu"}}},
		"without":    {{{Type: "=", Name: "cluster", Value: ""}}},
		"other":      {{{Type: "!=", Name: "cluster", Value: "eu"}}, {{Type: "=", Name: "zone", Value: "z"}}},
		"everywhere": {{{Type: "=", Name: "alpha", Value: "1.*"}}},
	} {
		got, told := read(t, s, false, ms...)
		if d := tsdbtest.Diff(served(ms...), got); d != "" {
			t.Errorf("%s:\n%s", what, d)
		}
		if note := told.has("is an external label of the server"); note != (what == "everywhere") {
			t.Errorf("%s: %q", what, told.all)
		}
	}

	// Kept, they are in another order than the server's.
	noTwin := []wire.Matcher{{Type: "!=", Name: "__name__", Value: "twin"}}
	want := tsdbtest.Served{}
	for name, samples := range served(noTwin) {
		l := map[string]string{}
		maps.Copy(l, external)
		for _, pair := range strings.Split(strings.Trim(name, "{}"), ", ") {
			k, v, _ := strings.Cut(pair, "=")
			l[k] = strings.Trim(v, `"`)
		}
		want[labels.FromMap(l).String()] = samples
	}
	got, _ := read(t, s, true, noTwin)
	if d := tsdbtest.Diff(want, got); d != "" {
		t.Errorf("kept:\n%s", d)
	}
	bare := serve(t, db, db, func(s *server) { s.external, s.bare = external, true })
	got, told := read(t, bare, false, noTwin)
	if d := tsdbtest.Diff(want, got); d != "" || !told.has("does not tell its external labels") {
		t.Errorf("not told: %q\n%s", told.all, d)
	}
	if _, err := bare.source(t, nil).Inventory(t.Context()); err == nil {
		t.Error("an inventory of a server that tells nothing")
	}
}

func TestUnknownBounds(t *testing.T) {
	db := tsdbtest.Random(t, t.TempDir(), 3, tsdbtest.Options{Plain: true})
	for what, change := range map[string]func(*server){
		"back end": func(s *server) { s.backEnds = 1 },
		"bare":     func(s *server) { s.bare = true },
	} {
		s := serve(t, db.DB(), db.DB(), change)
		req := wire.Request{Version: wire.Version, Head: wire.HeadBlock, Selection: wire.Selection{MinTime: 0, MaxTime: db.MaxTime}}
		for _, err := range s.source(t, nil).Read(t.Context(), req) {
			if e, ok := errors.AsType[*ServerError](err); !ok || !strings.Contains(e.Hint(), "--min-time") {
				t.Errorf("%s: %v", what, err)
			}
		}
		req.Selection.MinTime = db.MaxTime - windowLength
		if _, _, file, err := sourcetest.Dump(t, s.source(t, nil), req); err != nil || len(file) == 0 {
			t.Errorf("%s: %d bytes, %v", what, len(file), err)
		}
	}
}

// Keys sort as labels do, and give them back.
func TestKeys(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	word := func() string {
		b := make([]byte, r.IntN(4))
		for i := range b {
			b[i] = []byte{0, 1, 'a', 'b', 0xff}[r.IntN(5)]
		}
		return string(b)
	}
	set := func() []prompb.Label {
		m := map[string]string{"n": "1"}
		for range r.IntN(4) {
			m[word()+"x"] = word() + "y"
		}
		var ls []prompb.Label
		for _, name := range slices.Sorted(maps.Keys(m)) {
			ls = append(ls, prompb.Label{Name: name, Value: m[name]})
		}
		return ls
	}
	ours := func(ls []prompb.Label) labels.Labels {
		b := labels.NewScratchBuilder(0)
		for _, l := range ls {
			b.Add(l.Name, l.Value)
		}
		return b.Labels()
	}
	for range 5000 {
		x, y := set(), set()
		kx, err1 := appendKey(nil, x, nil)
		ky, err2 := appendKey(nil, y, nil)
		if err1 != nil || err2 != nil {
			t.Fatal(err1, err2)
		}
		if got, want := bytes.Compare(kx, ky), labels.Compare(ours(x), ours(y)); got != min(max(want, -1), 1) {
			t.Fatalf("%q and %q: %d, want %d", x, y, got, want)
		}
		var back []string
		parts(kx, func(s string) { back = append(back, s) })
		var want []string
		for _, l := range x {
			want = append(want, l.Name, l.Value)
		}
		if !slices.Equal(back, want) {
			t.Fatalf("%q gives %q", want, back)
		}
	}
	if _, err := appendKey(nil, []prompb.Label{{Name: "a", Value: "1"}, {Name: "a", Value: "2"}}, nil); err == nil {
		t.Error("a label twice")
	}
}

func TestParseURL(t *testing.T) {
	for text, want := range map[string]string{
		"http://a:9090":                    "http://a:9090",
		"https://a/prom/":                  "https://a/prom",
		"https://a/prom/api/v1/read":       "https://a/prom",
		"https://jane:secret@a":            "https://a",
		"a:9090":                           "",
		"http://":                          "",
		"http://a?token=secret":            "",
		"https://jane:sec\x7fret@a":        "",
		"ftp://a":                          "",
		"http://a/prometheus/api/v1/read/": "http://a/prometheus",
	} {
		u, err := ParseURL(text)
		if (err == nil) != (want != "") || err != nil && strings.Contains(err.Error(), "sec") {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if err == nil && New(Options{URL: u}).String() != want {
			t.Errorf("%q is %q", text, New(Options{URL: u}))
		}
	}
}
