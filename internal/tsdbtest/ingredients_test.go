package tsdbtest

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"
	"github.com/prometheus/prometheus/tsdb/record"
	"github.com/prometheus/prometheus/tsdb/wlog"
)

// TestRandomHasEveryIngredient checks that random TSDBs have all forms of data. Property tests that use
// them prove nothing about missing ones.
func TestRandomHasEveryIngredient(t *testing.T) {
	for seed, opts := range []Options{{}, {StartTimestamps: true}} {
		d := Random(t, filepath.Join(t.TempDir(), "data"), uint64(seed), opts)
		has := map[string]int{}
		inBlocks(t, d, has)
		inLogs(t, d, has)
		inSamples(t, d, has)
		needed := []string{
			"fresh block", "merged block", "out-of-order block", "overlapping blocks", "tombstones", "block sizes", "several chunks of a series",
			"wal segments", "wal checkpoint", "head chunks", "wal tombstones", "wal series", "wal custom buckets", "wbl samples", "wbl histograms",
			"wbl float histograms", "wbl m-map markers", "deleted series in head",
			"NaN payloads", "+Inf", "-Inf", "-0", "stale float", "stale histogram", "stale float histogram",
			"histogram", "float histogram", "custom buckets", "gauge histogram", "histogram reset", "counter reset",
			"begins late", "ends early", "one sample", "float becomes histogram", "UTF-8 name", "UTF-8 value", "huge value", "newline",
		}
		if opts.StartTimestamps {
			needed = append(needed, "start timestamp", "encoding 4", "encoding 5", "encoding 6")
		} else {
			needed = append(needed, "encoding 1", "encoding 2", "encoding 3")
		}
		for _, name := range needed {
			if has[name] == 0 {
				t.Errorf("seed %d, start timestamps %v: no %s", seed, opts.StartTimestamps, name)
			}
		}
		t.Logf("seed %d, start timestamps %v: %v", seed, opts.StartTimestamps, has)
		if has["block sizes"] < 2 || has["NaN payloads"] < 3 || has["wal segments"] < 2 {
			t.Errorf("seed %d: too uniform: %v", seed, has)
		}
	}
}

func inBlocks(t *testing.T, d *TSDB, has map[string]int) {
	sizes := map[int64]bool{}
	var metas []tsdb.BlockMeta
	for _, b := range d.DB().Blocks() {
		m := b.Meta()
		metas = append(metas, m)
		sizes[m.MaxTime-m.MinTime] = true
		if m.Compaction.Level == 1 {
			has["fresh block"]++
		} else {
			has["merged block"]++
		}
		if m.Compaction.FromOutOfOrder() {
			has["out-of-order block"]++
		}
		has["tombstones"] += int(m.Stats.NumTombstones)
		ir, err := index.NewFileReader(filepath.Join(b.Dir(), "index"), index.DecodePostingsRaw)
		if err != nil {
			t.Fatal(err)
		}
		cr, err := chunks.NewDirReader(filepath.Join(b.Dir(), "chunks"), nil)
		if err != nil {
			t.Fatal(err)
		}
		p := ir.PostingsForAllLabelValues(t.Context(), "__name__")
		var builder labels.ScratchBuilder
		var cs []chunks.Meta
		for p.Next() {
			if err := ir.Series(p.At(), &builder, &cs); err != nil {
				t.Fatal(err)
			}
			if len(cs) > 1 {
				has["several chunks of a series"]++
			}
			for _, c := range cs {
				chunk, _, err := cr.ChunkOrIterable(c)
				if err != nil {
					t.Fatal(err)
				}
				has["encoding "+string(rune('0'+chunk.Encoding()))]++
			}
		}
		if err := ir.Close(); err != nil {
			t.Fatal(err)
		}
		if err := cr.Close(); err != nil {
			t.Fatal(err)
		}
	}
	has["block sizes"] = len(sizes)
	has["overlapping blocks"] = len(tsdb.OverlappingBlocks(metas))
}

func inLogs(t *testing.T, d *TSDB, has map[string]int) {
	entries, err := os.ReadDir(filepath.Join(d.Dir, "wal"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "checkpoint.") {
			has["wal checkpoint"]++
			inLog(t, filepath.Join(d.Dir, "wal", e.Name()), "wal", has)
			continue
		}
		has["wal segments"]++
	}
	inLog(t, filepath.Join(d.Dir, "wal"), "wal", has)
	inLog(t, filepath.Join(d.Dir, "wbl"), "wbl", has)
	mapped, err := filepath.Glob(filepath.Join(d.Dir, "chunks_head", "*"))
	if err != nil {
		t.Fatal(err)
	}
	has["head chunks"] = len(mapped)
}

func inLog(t *testing.T, dir, name string, has map[string]int) {
	r, err := wlog.NewSegmentsReader(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	dec := record.NewDecoder(labels.NewSymbolTable(), slog.New(slog.DiscardHandler))
	reader := wlog.NewReader(r)
	for reader.Next() {
		rec := reader.Record()
		switch typ := dec.Type(rec); typ {
		case record.Series:
			series, err := dec.Series(rec, nil)
			if err != nil {
				t.Fatal(err)
			}
			has[name+" series"]++
			for _, s := range series {
				if s.Labels.Get("i") == "deleted" {
					has["deleted series in head"]++
				}
			}
		case record.Samples, record.SamplesV2:
			has[name+" samples"]++
		case record.Tombstones:
			has[name+" tombstones"]++
		case record.MmapMarkers:
			has[name+" m-map markers"]++
		case record.CustomBucketsHistogramSamples, record.CustomBucketsFloatHistogramSamples:
			has[name+" custom buckets"]++
		case record.HistogramSamples:
			has[name+" histograms"]++
		case record.FloatHistogramSamples:
			has[name+" float histograms"]++
		default: // records with start timestamps
			if typ == record.HistogramSamplesV2 {
				hs, err := dec.HistogramSamples(rec, nil)
				if err != nil {
					t.Fatal(err)
				}
				has[name+" histograms"]++
				for _, h := range hs {
					if h.H.UsesCustomBuckets() {
						has[name+" custom buckets"]++
					}
				}
			}
			if typ == record.FloatHistogramSamplesV2 {
				has[name+" float histograms"]++
			}
		}
	}
	if err := reader.Err(); err != nil {
		t.Fatal(err)
	}
}

func inSamples(t *testing.T, d *TSDB, has map[string]int) {
	payloads := map[uint64]bool{}
	const hour = 3_600_000
	for name, samples := range Samples(t, d.DB(), Everything()) {
		if len(samples) == 1 {
			has["one sample"]++
		}
		if samples[0].T > d.MinTime+hour {
			has["begins late"]++
		}
		if samples[len(samples)-1].T < d.MaxTime-hour {
			has["ends early"]++
		}
		has["UTF-8 name"] += strings.Count(name, "größe")
		has["UTF-8 value"] += strings.Count(name, "🐘") + strings.Count(name, "日本.語")
		has["newline"] += strings.Count(name, `\n`)
		if len(name) > HugeValue {
			has["huge value"]++
		}
		for i, s := range samples {
			if s.ST != 0 {
				has["start timestamp"]++
			}
			if i > 0 && samples[i-1].Kind == chunkenc.ValFloat && s.Kind == chunkenc.ValHistogram {
				has["float becomes histogram"]++
			}
			ofSamples(s, has)
			if s.Kind == chunkenc.ValFloat {
				v := float(s)
				if v != v {
					payloads[s.Value] = true
				}
				if i > 0 && v < float(samples[i-1]) {
					has["counter reset"]++
				}
			}
		}
	}
	has["NaN payloads"] = len(payloads)
}

func ofSamples(s Sample, has map[string]int) {
	stale := strings.Contains(s.Histogram, "sum=NaN:7ff0000000000002")
	switch s.Kind {
	case chunkenc.ValFloat:
		name := map[uint64]string{0x7ff0000000000000: "+Inf", 0xfff0000000000000: "-Inf", 1 << 63: "-0", value.StaleNaN: "stale float"}[s.Value]
		has[name]++
		return
	case chunkenc.ValHistogram:
		has["histogram"]++
		if stale {
			has["stale histogram"]++
		}
	case chunkenc.ValFloatHistogram:
		has["float histogram"]++
		if stale {
			has["stale float histogram"]++
		}
	}
	if s.Reset {
		has["histogram reset"]++
	}
	if s.Hint == histogram.GaugeType {
		has["gauge histogram"]++
	}
	has["custom buckets"] += strings.Count(s.Histogram, "schema=-53")
}
