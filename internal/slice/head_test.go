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

// head writes the records of both logs into a data directory and opens its head.
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

// sentOf returns the records that Head sends: decoded, one text for each item, and raw.
func sentOf(t *testing.T, h *datadir.Head, s wire.Selection) (things []string, raw [][]byte, end wire.HeadEnd) {
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

// decoded returns a text for each item of a record.
func decoded(t *testing.T, dec record.Decoder, log wire.Log, rec []byte) (out []string) {
	t.Helper()
	var err error
	add := func(format string, args ...any) {
		out = append(out, fmt.Sprintf("%d ", log)+fmt.Sprintf(format, args...))
	}
	switch kind := dec.Type(rec); kind {
	case record.Series:
		var ss []record.RefSeries
		ss, err = dec.Series(rec, nil)
		for _, s := range ss {
			add("series %d %s", s.Ref, s.Labels.Get("namespace"))
		}
	case record.Samples, record.SamplesV2:
		var ss []record.RefSample
		ss, err = dec.Samples(rec, nil)
		for _, s := range ss {
			add("sample %d @%d st %d %v", s.Ref, s.T, s.ST, s.V)
		}
	case record.HistogramSamples, record.CustomBucketsHistogramSamples, record.HistogramSamplesV2:
		var ss []record.RefHistogramSample
		ss, err = dec.HistogramSamples(rec, nil)
		for _, s := range ss {
			add("histogram %d @%d st %d stale %v custom %v", s.Ref, s.T, s.ST, value.IsStaleNaN(s.H.Sum), s.H.CustomValues)
		}
	case record.FloatHistogramSamples, record.CustomBucketsFloatHistogramSamples, record.FloatHistogramSamplesV2:
		var ss []record.RefFloatHistogramSample
		ss, err = dec.FloatHistogramSamples(rec, nil)
		for _, s := range ss {
			add("float histogram %d @%d st %d stale %v custom %v", s.Ref, s.T, s.ST, value.IsStaleNaN(s.FH.Sum), s.FH.CustomValues)
		}
	case record.Tombstones:
		var ss []tombstones.Stone
		ss, err = dec.Tombstones(rec, nil)
		for _, s := range ss {
			add("tombstone %d %v", s.Ref, s.Intervals)
		}
	default:
		add("record of kind %d", kind)
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
	got, _, end := sentOf(t, h, wire.Selection{MinTime: 10, MaxTime: 20})
	check(t, "both ends are inclusive", got, "1 series 1 a", "1 sample 1 @10 st 0 2", "1 sample 1 @15 st 0 3", "1 sample 1 @20 st 0 4", "2 sample 1 @11 st 0 2")
	if want := (wire.HeadEnd{MinTime: 3, MaxTime: 21, Series: 1, Samples: 4}); !cmp.Equal(end, want) {
		t.Errorf("end %+v, want %+v", end, want)
	}

	// In-order samples before MinValidTime are in a block. It does not apply to out-of-order
	// samples.
	h.MinValidTime = 15
	got, _, end = sentOf(t, h, everything())
	check(t, "from MinValidTime", got, "1 series 1 a", "1 sample 1 @15 st 0 3", "1 sample 1 @20 st 0 4", "1 sample 1 @21 st 0 5", "2 sample 1 @3 st 0 1", "2 sample 1 @11 st 0 2")
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
		// A server that starts with an empty log reuses refs for other series.
		enc.Series([]record.RefSeries{series(1, "b"), series(2, "a")}, nil),
		enc.Samples([]record.RefSample{sample(1, 20, 1), sample(2, 20, 2), sample(3, 20, 3)}, nil),
		// A block has no exemplars and no metadata.
		enc.Exemplars([]record.RefExemplar{{Ref: 1, T: 20}}, nil),
		enc.Metadata([]record.RefMetadata{{Ref: 1, Unit: "s"}}, nil),
	}, [][]byte{
		enc.MmapMarkers([]record.RefMmapMarker{{Ref: 2}}, nil),
		enc.Samples([]record.RefSample{sample(1, 5, 1), sample(2, 5, 2)}, nil),
	})
	got, _, end := sentOf(t, h, only("a", 0, 100))
	check(t, "one namespace", got,
		"1 series 1 a", "1 series 700000 a", "1 sample 1 @10 st 0 1", "1 sample 700000 @10 st 0 3",
		fmt.Sprintf("1 tombstone 1 %v", all), "1 series 2 a", "1 sample 2 @20 st 0 2", "2 sample 2 @5 st 0 2")
	if end.Series != 4 || end.Samples != 4 {
		t.Errorf("end %+v, want 4 series in the head and 4 samples sent", end)
	}
}

// TestHeadKeepsWholeRecords sends records that are selected completely without a change.
func TestHeadKeepsWholeRecords(t *testing.T) {
	h1, custom1 := encST.HistogramSamples([]record.RefHistogramSample{hist(1, 10, false)}, nil)
	if len(custom1) > 0 {
		t.Fatal("the encoder returns histograms with custom buckets, and the test has none")
	}
	wal := [][]byte{
		enc.Series([]record.RefSeries{series(1, "a"), series(2, "b")}, nil),
		encST.Samples([]record.RefSample{{Ref: 1, ST: 5, T: 9, V: 1}, {Ref: 2, ST: 6, T: 10, V: 2}}, nil),
		h1,
		enc.CustomBucketsHistogramSamples([]record.RefHistogramSample{hist(2, 11, true)}, nil),
	}
	_, raw, _ := sentOf(t, head(t, wal, nil), everything())
	if d := cmp.Diff(wal, raw); d != "" {
		t.Error(d)
	}
}

// TestHeadCutsRecords selects a part of each record. The part keeps start timestamps and
// custom buckets.
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
		got, _, _ := sentOf(t, head(t, wal, nil), wire.Selection{MinTime: 11, MaxTime: 11})
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
			t.Errorf("start timestamps %v: %d items sent, want 5 series and 5 samples: %q", e.EnableSTStorage, len(got), got)
		}
	}
}

// TestHeadStaleMarkers sends the stale marker of a histogram, a float in the log, as a
// histogram, also if the histogram before it is outside the selection.
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
	got, _, _ := sentOf(t, h, wire.Selection{MinTime: 30, MaxTime: 30})
	check(t, "stale markers", got[4:],
		"1 histogram 1 @30 st 0 stale true custom []", "1 float histogram 2 @30 st 0 stale true custom []",
		"1 sample 3 @30 st 0 NaN", "1 sample 4 @30 st 0 NaN")
}

// TestHeadOddRecords counts unknown and invalid records and does not send them.
func TestHeadOddRecords(t *testing.T) {
	h := head(t, [][]byte{
		enc.Series([]record.RefSeries{series(1, "a")}, nil), {250, 1, 2},
		enc.Samples([]record.RefSample{sample(1, 10, 1)}, nil)[:12],
		enc.Samples([]record.RefSample{sample(1, 11, 1)}, nil),
	}, nil)
	things, _, end := sentOf(t, h, everything())
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

// FuzzFilter filters arbitrary records: a valid checksum does not make a record valid.
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

// TestHeadRepair reports an interrupted repair without a range of lost samples, because the
// original segment is read.
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
	_, _, end := sentOf(t, &opened(t, dir).Head, everything())
	want := []wire.HeadDamage{{File: "wal/00000001.repair", Reason: datadir.ErrRepair.Error(), Fatal: true}}
	if diff := cmp.Diff(want, end.Damage); diff != "" {
		t.Error(diff)
	}
}
