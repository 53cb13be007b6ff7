package block

import (
	"context"
	"os"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/record"

	"github.com/promdump/promdump/internal/wire"
)

func TestHeadMalformed(t *testing.T) {
	span := func(n ...byte) []byte { // a histogram record up to its spans
		rec := append([]byte{byte(record.HistogramSamples)}, make([]byte, 16)...)
		rec = append(rec, 0, 0 /* refs */, 0, 2 /* schema 1 */)
		rec = append(rec, make([]byte, 8+1+1+8)...)
		return append(rec, n...)
	}
	for _, c := range []struct {
		name string
		rec  []byte
		want string
	}{
		{"series cut", seriesRecord(1)[:12], "decode series record"},
		{"endless labels", append([]byte{1, 0, 0, 0, 0, 0, 0, 0, 1}, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f), "decode series record"},
		{"label twice", plainSeries("a", "1", "a", "2"), "decode series record: duplicate label name"},
		{"no labels", plainSeries(), "decode series record: a series has no labels"},
		{"samples cut", floatsRecord(plain, record.RefSample{Ref: 1, T: 1, V: 1})[:20], "decode samples record"},
		{"samples of two cut", floatsRecord(withST, record.RefSample{Ref: 1, T: 1, V: 1})[:5], "decode samples_v2 record"},
		{"tombstone cut", stone(1, 2, 3)[:9], "decode tombstones record"},
		{"spans for 64 GiB", span(0x80, 0x80, 0x80, 0x80, 0x80, 0x01), "decode histogram_samples record: histogram 1: a length"},
		{"a span of 4 billion buckets", span(1, 0, 0xff, 0xff, 0xff, 0xff, 0x0f, 0, 1, 1, 0), "do not match its buckets"},
		{"fewer buckets than spans have", span(1, 0, 2, 0, 1, 1, 0), "do not match its buckets"},
		{"float histogram cut", append([]byte{byte(record.FloatHistogramSamplesV2)}, 1, 1, 1, 1), "decode float_histogram_samples_v2 record"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h, err := NewHeadBuilder(HeadSpec{Parent: t.TempDir(), MaxTime: 10})
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := h.Discard(); err != nil {
					t.Error(err)
				}
			}()
			good := seriesRecord(2)
			if err := h.Records(&wire.Records{Log: wire.WAL, Records: [][]byte{c.rec, good}}); err != nil {
				t.Fatal(err)
			}
			if err := h.Records(&wire.Records{Log: wire.WAL, Records: [][]byte{floatsRecord(plain, record.RefSample{Ref: 2, T: 5, V: 1})}}); err != nil {
				t.Fatal(err)
			}
			built, err := h.Finish(context.Background())
			if err != nil || len(built) != 1 || built[0].Meta.Stats.NumSamples != 1 {
				t.Fatalf("the records beside it: %v, %v", built, err)
			}
			ignored := h.Ignored()
			if ignored.BadRecords != 1 || ignored.BadRecord == nil || !strings.Contains(ignored.BadRecord.Error(), c.want) {
				t.Errorf("%d bad records, error %v, want one with %q", ignored.BadRecords, ignored.BadRecord, c.want)
			}
			if err := h.Records(&wire.Records{Log: wire.WAL}); err == nil {
				t.Error("no error for records after Finish")
			}
			if _, err := h.Finish(context.Background()); err == nil {
				t.Error("finished twice")
			}
		})
	}
}

// TestHeadSortsLabels adds a series with unsorted labels, which a server logs as a client sent them.
func TestHeadSortsLabels(t *testing.T) {
	sample := floatsRecord(plain, record.RefSample{Ref: 1, T: 5, V: 1})
	built := buildHead(t, HeadSpec{Parent: t.TempDir(), MaxTime: 10}, [][]byte{plainSeries("b", "1", "a", "2"), sample}, nil)
	eachChunk(t, built[0], func(series string, _ chunks.Meta, _ bool) {
		if series != `{a="2", b="1"}` {
			t.Errorf("series %s", series)
		}
	})
}

func plainSeries(pairs ...string) []byte {
	b := append([]byte{1, 0, 0, 0, 0, 0, 0, 0, 1}, byte(len(pairs)/2))
	for _, s := range pairs {
		b = append(append(b, byte(len(s))), s...)
	}
	return b
}

func TestHeadDiscard(t *testing.T) {
	dir := t.TempDir()
	h, err := NewHeadBuilder(HeadSpec{Parent: dir, MaxTime: 10})
	if err != nil {
		t.Fatal(err)
	}
	feed(t, h, wire.WAL, [][]byte{seriesRecord(1), floatsRecord(plain, record.RefSample{Ref: 1, T: 1, V: 1})})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := h.Finish(ctx); err == nil {
		t.Error("no error for a canceled context")
	}
	for range 2 {
		if err := h.Discard(); err != nil {
			t.Error(err)
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

func FuzzHeadRecords(f *testing.F) {
	for seed := range uint64(3) {
		wal, wbl := newGenerator(seed).logs()
		// Each record follows a byte for its log and its length.
		var data []byte
		for i, rec := range append(wal[:60:60], wbl[:20]...) {
			if len(rec) < 256 {
				data = append(append(data, byte(i/60), byte(len(rec))), rec...)
			}
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		h, err := NewHeadBuilder(HeadSpec{Parent: dir, MinTime: 0, MaxTime: 1 << 33, BlockRange: 1 << 32})
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := h.Discard(); err != nil {
				t.Error(err)
			}
		}()
		for len(data) > 2 {
			log, n := wire.WAL+wire.Log(data[0]%2), int(data[1])
			n = min(n, len(data)-2)
			if err := h.Records(&wire.Records{Log: log, Records: [][]byte{data[2 : 2+n]}}); err != nil {
				return
			}
			data = data[2+n:]
		}
		built, err := h.Finish(context.Background())
		if err != nil {
			return
		}
		for _, b := range built {
			if _, err := Verify(context.Background(), b.Dir, func(f Finding) { t.Errorf("verify: %v", f) }); err != nil {
				t.Error(err)
			}
		}
	})
}
