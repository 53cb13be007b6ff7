package slice

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/record"
	"github.com/prometheus/prometheus/tsdb/tombstones"
	"github.com/prometheus/prometheus/tsdb/wlog"
	"github.com/prometheus/prometheus/util/compression"

	"github.com/promdump/promdump/internal/datadir"
	"github.com/promdump/promdump/internal/wire"
)

var (
	quiet = slog.New(slog.DiscardHandler)
	enc   record.Encoder
	encST = record.Encoder{EnableSTStorage: true}
)

func series(ref uint64, namespace string) record.RefSeries {
	return record.RefSeries{Ref: chunks.HeadSeriesRef(ref), Labels: labels.FromStrings("__name__", "m", "namespace", namespace, "ref", fmt.Sprint(ref))}
}

func sample(ref uint64, t int64, v float64) record.RefSample {
	return record.RefSample{Ref: chunks.HeadSeriesRef(ref), T: t, V: v}
}

func hist(ref uint64, t int64, custom bool) record.RefHistogramSample {
	h := &histogram.Histogram{Count: 3, Sum: 1, PositiveSpans: []histogram.Span{{Offset: 0, Length: 1}}, PositiveBuckets: []int64{3}}
	if custom {
		h.Schema, h.CustomValues = histogram.CustomBucketsSchema, []float64{1, 2}
	}
	return record.RefHistogramSample{Ref: chunks.HeadSeriesRef(ref), T: t, H: h}
}

func floatHist(ref uint64, t int64, custom bool) record.RefFloatHistogramSample {
	return record.RefFloatHistogramSample{Ref: chunks.HeadSeriesRef(ref), T: t, FH: hist(ref, t, custom).H.ToFloat(nil)}
}

// head writes the logs into a data dir and opens it.
func head(t *testing.T, wal, wbl [][]byte) *datadir.Head {
	t.Helper()
	dir := t.TempDir()
	for name, recs := range map[string][][]byte{"wal": wal, "wbl": wbl} {
		w, err := wlog.New(quiet, nil, filepath.Join(dir, name), compression.Snappy)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Log(recs...); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return &opened(t, dir).Head
}

// told gives what was told of a head, decoded, one text for each thing.
func toldOf(t *testing.T, h *datadir.Head, s wire.Selection) (things []string, raw [][]byte, end wire.HeadEnd) {
	t.Helper()
	sel, err := Compile(s)
	if err != nil {
		t.Fatal(err)
	}
	dec := record.NewDecoder(labels.NewSymbolTable(), quiet)
	err = Head(t.Context(), h, sel, func(m wire.Message) bool {
		switch m := m.(type) {
		case *wire.Records:
			for _, rec := range m.Records {
				raw = append(raw, bytes.Clone(rec))
				things = append(things, decoded(t, dec, m.Log, rec)...)
			}
		case *wire.HeadEnd:
			end = *m
		}
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	return things, raw, end
}

func decoded(t *testing.T, dec record.Decoder, log wire.Log, rec []byte) (out []string) {
	t.Helper()
	var err error
	say := func(format string, args ...any) {
		out = append(out, fmt.Sprintf("%d ", log)+fmt.Sprintf(format, args...))
	}
	switch kind := dec.Type(rec); kind {
	case record.Series:
		var ss []record.RefSeries
		ss, err = dec.Series(rec, nil)
		for _, s := range ss {
			say("series %d %s", s.Ref, s.Labels.Get("namespace"))
		}
	case record.Samples, record.SamplesV2:
		var ss []record.RefSample
		ss, err = dec.Samples(rec, nil)
		for _, s := range ss {
			say("sample %d @%d st %d %v", s.Ref, s.T, s.ST, s.V)
		}
	case record.HistogramSamples, record.CustomBucketsHistogramSamples, record.HistogramSamplesV2:
		var ss []record.RefHistogramSample
		ss, err = dec.HistogramSamples(rec, nil)
		for _, s := range ss {
			say("histogram %d @%d st %d stale %v custom %v", s.Ref, s.T, s.ST, value.IsStaleNaN(s.H.Sum), s.H.CustomValues)
		}
	case record.FloatHistogramSamples, record.CustomBucketsFloatHistogramSamples, record.FloatHistogramSamplesV2:
		var ss []record.RefFloatHistogramSample
		ss, err = dec.FloatHistogramSamples(rec, nil)
		for _, s := range ss {
			say("float histogram %d @%d st %d stale %v custom %v", s.Ref, s.T, s.ST, value.IsStaleNaN(s.FH.Sum), s.FH.CustomValues)
		}
	case record.Tombstones:
		var ss []tombstones.Stone
		ss, err = dec.Tombstones(rec, nil)
		for _, s := range ss {
			say("tombstone %d %v", s.Ref, s.Intervals)
		}
	default:
		say("record of kind %d", kind)
	}
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func everything() wire.Selection {
	return wire.Selection{MinTime: math.MinInt64, MaxTime: math.MaxInt64}
}

func only(namespace string, min, max int64) wire.Selection {
	return wire.Selection{MinTime: min, MaxTime: max, Matchers: [][]wire.Matcher{{{Type: "=", Name: "namespace", Value: namespace}}}}
}

func check(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("%s:\n%s", what, d)
	}
}

func TestHeadTimes(t *testing.T) {
	h := head(t, [][]byte{
		enc.Series([]record.RefSeries{series(1, "a")}, nil),
		enc.Samples([]record.RefSample{sample(1, 9, 1), sample(1, 10, 2), sample(1, 15, 3), sample(1, 20, 4), sample(1, 21, 5)}, nil),
	}, [][]byte{
		enc.Samples([]record.RefSample{sample(1, 3, 1), sample(1, 11, 2)}, nil),
	})
	got, _, end := toldOf(t, h, wire.Selection{MinTime: 10, MaxTime: 20})
	check(t, "both ends are included", got, "1 series 1 a", "1 sample 1 @10 st 0 2", "1 sample 1 @15 st 0 3", "1 sample 1 @20 st 0 4", "2 sample 1 @11 st 0 2")
	if want := (wire.HeadEnd{MinTime: 3, MaxTime: 21, Series: 1, Samples: 4}); !cmp.Equal(end, want) {
		t.Errorf("end %+v, want %+v", end, want)
	}

	// What is in a block is not told again; out-of-order samples are in another one.
	h.MinValidTime = 15
	got, _, end = toldOf(t, h, everything())
	check(t, "from where the blocks end", got, "1 series 1 a", "1 sample 1 @15 st 0 3", "1 sample 1 @20 st 0 4", "1 sample 1 @21 st 0 5", "2 sample 1 @3 st 0 1", "2 sample 1 @11 st 0 2")
	if want := (wire.HeadEnd{MinTime: 3, MaxTime: 21, Series: 1, Samples: 5}); !cmp.Equal(end, want) {
		t.Errorf("end %+v, want %+v", end, want)
	}
}

func TestHeadMatchers(t *testing.T) {
	all := tombstones.Intervals{{Mint: math.MinInt64, Maxt: math.MaxInt64}}
	h := head(t, [][]byte{
		enc.Series([]record.RefSeries{series(1, "a"), series(2, "b"), series(700_000, "a")}, nil),
		enc.Samples([]record.RefSample{sample(1, 10, 1), sample(2, 10, 2), sample(700_000, 10, 3)}, nil),
		enc.Tombstones([]tombstones.Stone{{Ref: storage.SeriesRef(1), Intervals: all}, {Ref: storage.SeriesRef(2), Intervals: all}}, nil),
		// A log that began anew gives its refs to other series.
		enc.Series([]record.RefSeries{series(1, "b"), series(2, "a")}, nil),
		enc.Samples([]record.RefSample{sample(1, 20, 1), sample(2, 20, 2), sample(3, 20, 3)}, nil),
		// Nothing that a block holds.
		enc.Exemplars([]record.RefExemplar{{Ref: 1, T: 20}}, nil),
		enc.Metadata([]record.RefMetadata{{Ref: 1, Unit: "s"}}, nil),
	}, [][]byte{
		enc.MmapMarkers([]record.RefMmapMarker{{Ref: 2}}, nil),
		enc.Samples([]record.RefSample{sample(1, 5, 1), sample(2, 5, 2)}, nil),
	})
	got, _, end := toldOf(t, h, only("a", 0, 100))
	check(t, "one namespace", got,
		"1 series 1 a", "1 series 700000 a", "1 sample 1 @10 st 0 1", "1 sample 700000 @10 st 0 3",
		fmt.Sprintf("1 tombstone 1 %v", all), "1 series 2 a", "1 sample 2 @20 st 0 2", "2 sample 2 @5 st 0 2")
	if end.Series != 4 || end.Samples != 4 {
		t.Errorf("end %+v, want 4 series in the head and 4 samples told", end)
	}
}

// What is selected as a whole goes out as it is, to the byte.
func TestHeadKeepsWholeRecords(t *testing.T) {
	h1, custom1 := encST.HistogramSamples([]record.RefHistogramSample{hist(1, 10, false)}, nil)
	if len(custom1) > 0 {
		t.Fatal("no custom buckets were given")
	}
	wal := [][]byte{
		enc.Series([]record.RefSeries{series(1, "a"), series(2, "b")}, nil),
		encST.Samples([]record.RefSample{{Ref: 1, ST: 5, T: 9, V: 1}, {Ref: 2, ST: 6, T: 10, V: 2}}, nil),
		h1,
		enc.CustomBucketsHistogramSamples([]record.RefHistogramSample{hist(2, 11, true)}, nil),
	}
	_, raw, _ := toldOf(t, head(t, wal, nil), everything())
	if d := cmp.Diff(wal, raw); d != "" {
		t.Error(d)
	}
}

// A part of a record keeps its kind: start timestamps, custom buckets.
func TestHeadCutsRecords(t *testing.T) {
	for _, e := range []record.Encoder{enc, encST} {
		st := int64(0)
		if e.EnableSTStorage {
			st = 4
		}
		two := func(h record.RefHistogramSample) record.RefHistogramSample { h.ST = st; return h }
		twoF := func(h record.RefFloatHistogramSample) record.RefFloatHistogramSample { h.ST = st; return h }
		ints, customInts := e.HistogramSamples([]record.RefHistogramSample{two(hist(1, 10, false)), two(hist(1, 11, false)), two(hist(2, 10, true)), two(hist(2, 11, true))}, nil)
		floats, customFloats := e.FloatHistogramSamples([]record.RefFloatHistogramSample{twoF(floatHist(3, 10, false)), twoF(floatHist(3, 11, false)), twoF(floatHist(4, 10, true)), twoF(floatHist(4, 11, true))}, nil)
		wal := [][]byte{
			enc.Series([]record.RefSeries{series(1, "a"), series(2, "a"), series(3, "a"), series(4, "a"), series(5, "a")}, nil),
			e.Samples([]record.RefSample{{Ref: 5, ST: st, T: 10, V: 1}, {Ref: 5, ST: st, T: 11, V: 2}}, nil),
			ints, floats,
		}
		if len(customInts) > 0 {
			wal = append(wal, e.CustomBucketsHistogramSamples(customInts, nil), e.CustomBucketsFloatHistogramSamples(customFloats, nil))
		}
		got, _, _ := toldOf(t, head(t, wal, nil), wire.Selection{MinTime: 11, MaxTime: 11})
		want := map[string]bool{}
		for _, s := range got[5:] {
			want[s] = true
		}
		for _, s := range []string{
			fmt.Sprintf("1 sample 5 @11 st %d 2", st),
			fmt.Sprintf("1 histogram 1 @11 st %d stale false custom []", st),
			fmt.Sprintf("1 histogram 2 @11 st %d stale false custom [1 2]", st),
			fmt.Sprintf("1 float histogram 3 @11 st %d stale false custom []", st),
			fmt.Sprintf("1 float histogram 4 @11 st %d stale false custom [1 2]", st),
		} {
			if !want[s] {
				t.Errorf("start timestamps %v: %q is missing in %q", e.EnableSTStorage, s, got)
			}
		}
		if len(got) != 10 {
			t.Errorf("start timestamps %v: %d things were told, want 5 series and 5 samples: %q", e.EnableSTStorage, len(got), got)
		}
	}
}

// The log has stale markers as floats. Of a histogram they are told as one, also
// when the histogram itself lies outside of the selection.
func TestHeadStaleMarkers(t *testing.T) {
	stale := math.Float64frombits(value.StaleNaN)
	ints, _ := enc.HistogramSamples([]record.RefHistogramSample{hist(1, 10, false), hist(3, 10, false)}, nil)
	floats, _ := enc.FloatHistogramSamples([]record.RefFloatHistogramSample{floatHist(2, 10, false)}, nil)
	h := head(t, [][]byte{
		enc.Series([]record.RefSeries{series(1, "a"), series(2, "a"), series(3, "a"), series(4, "a")}, nil),
		ints, floats,
		enc.Samples([]record.RefSample{sample(3, 20, 7), sample(4, 20, 7)}, nil), // 3 becomes a float
		enc.Samples([]record.RefSample{sample(1, 30, stale), sample(2, 30, stale), sample(3, 30, stale), sample(4, 30, stale)}, nil),
	}, nil)
	got, _, _ := toldOf(t, h, wire.Selection{MinTime: 30, MaxTime: 30})
	check(t, "stale markers", got[4:],
		"1 histogram 1 @30 st 0 stale true custom []", "1 float histogram 2 @30 st 0 stale true custom []",
		"1 sample 3 @30 st 0 NaN", "1 sample 4 @30 st 0 NaN")
}

// Records that are not known, or do not decode, are counted and left out.
func TestHeadOddRecords(t *testing.T) {
	h := head(t, [][]byte{
		enc.Series([]record.RefSeries{series(1, "a")}, nil), {250, 1, 2},
		enc.Samples([]record.RefSample{sample(1, 10, 1)}, nil)[:12],
		enc.Samples([]record.RefSample{sample(1, 11, 1)}, nil),
	}, nil)
	things, _, end := toldOf(t, h, everything())
	check(t, "sent", things, "1 series 1 a", "1 sample 1 @11 st 0 1")
	if end.UnknownRecords != 1 || end.BadRecords != 1 || end.BadRecord == "" {
		t.Errorf("%+v", end)
	}
}

func TestHeadInventory(t *testing.T) {
	h := head(t, [][]byte{
		enc.Series([]record.RefSeries{series(1, "a"), series(2, "b"), series(3, "c")}, nil),
		enc.Samples([]record.RefSample{sample(1, 10, 1), sample(2, 20, 2), sample(2, 30, 2)}, nil),
	}, nil)
	inv, err := HeadInventory(t.Context(), h)
	if err != nil {
		t.Fatal(err)
	}
	if want := (wire.HeadInventory{MinTime: 10, MaxTime: 30, Series: 2, Bytes: h.Bytes()}); !cmp.Equal(inv, want) {
		t.Errorf("%+v, want %+v", inv, want)
	}
}

// Records come from a disk; a checksum makes them no better.
func FuzzFilter(f *testing.F) {
	ints, _ := enc.HistogramSamples([]record.RefHistogramSample{hist(1, 10, false)}, nil)
	for _, rec := range [][]byte{
		enc.Series([]record.RefSeries{series(1, "a")}, nil),
		enc.Samples([]record.RefSample{sample(1, 9, 1), sample(1, 10, 2)}, nil),
		encST.Samples([]record.RefSample{sample(1, 9, 1), sample(1, 10, 2)}, nil),
		enc.Tombstones([]tombstones.Stone{{Ref: 1, Intervals: tombstones.Intervals{{Mint: 1, Maxt: 2}}}}, nil),
		ints, {},
	} {
		f.Add(rec)
	}
	f.Fuzz(func(t *testing.T, rec []byte) {
		for _, s := range []wire.Selection{everything(), only("a", 0, 10)} {
			sel, err := Compile(s)
			if err != nil {
				t.Fatal(err)
			}
			filter := newFilter(sel)
			if filter.filter(rec) == nil {
				filter.take()
			}
		}
	})
}

// Of a repair that did not end nothing is lost, since the old segment is read.
func TestHeadRepair(t *testing.T) {
	dir := t.TempDir()
	w, err := wlog.New(quiet, nil, filepath.Join(dir, "wal"), compression.None)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		rec := enc.Samples([]record.RefSample{sample(1, int64(10+i), 1)}, nil)
		if i == 0 {
			err = w.Log(enc.Series([]record.RefSeries{series(1, "shop")}, nil))
		}
		if err = errors.Join(err, w.Log(rec)); err != nil {
			t.Fatal(err)
		}
		if _, err = w.NextSegment(); err != nil {
			t.Fatal(err)
		}
	}
	second := wlog.SegmentName(filepath.Join(dir, "wal"), 1)
	if err = errors.Join(w.Close(), os.Rename(second, second+".repair")); err != nil {
		t.Fatal(err)
	}
	_, _, end := toldOf(t, &opened(t, dir).Head, everything())
	want := []wire.HeadDamage{{File: "wal/00000001.repair", Reason: datadir.ErrRepair.Error(), Fatal: true}}
	if diff := cmp.Diff(want, end.Damage); diff != "" {
		t.Error(diff)
	}
}
