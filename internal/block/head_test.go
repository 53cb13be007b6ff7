package block

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/record"
	"github.com/prometheus/prometheus/tsdb/tombstones"
	"github.com/prometheus/prometheus/tsdb/wlog"

	"github.com/promdump/promdump/internal/tsdbtest"
	"github.com/promdump/promdump/internal/wire"
)

// TestHeadServesWhatAServerServes builds blocks of random heads. Together with the existing blocks
// they serve, for any range, what the TSDB serves after it has replayed the same logs.
func TestHeadServesWhatAServerServes(t *testing.T) {
	for _, st := range []bool{false, true} {
		for seed := range uint64(1) {
			t.Run(fmt.Sprintf("st=%v/%d", st, seed), func(t *testing.T) {
				src := tsdbtest.Random(t, filepath.Join(t.TempDir(), "data"), seed, tsdbtest.Options{StartTimestamps: st})
				crashed := filepath.Join(t.TempDir(), "crashed")
				if err := src.Crash(crashed); err != nil {
					t.Fatal(err)
				}
				served := tsdbtest.SamplesDir(t, crashed, tsdbtest.Everything())
				wal, wbl := readLogs(t, crashed, minValidTime(src))

				r := rand.New(rand.NewPCG(seed, 7))
				for i := range 5 {
					mint, maxt := src.MinTime, src.MaxTime
					if i > 0 {
						mint += r.Int64N(maxt - mint)
						maxt = mint + r.Int64N(maxt-mint+1)
					}
					if i > 3 { // a later round: the head only
						mint, maxt = src.MaxTime-r.Int64N(3_600_000*4), src.MaxTime
					}
					dir := copyBlocks(t, crashed)
					spec := HeadSpec{Parent: t.TempDir(), MinTime: mint, MaxTime: maxt}
					if i%2 == 1 {
						spec.BlockRange = 1_800_000
					}
					for _, b := range buildHead(t, spec, wal, wbl) {
						move(t, b, dir)
					}
					sel := wire.Selection{MinTime: mint, MaxTime: maxt}
					if diff := tsdbtest.Diff(served.Restrict(mint, maxt), tsdbtest.SamplesDir(t, dir, sel)); diff != "" {
						t.Errorf("%d to %d, block range %d:\n%s", mint, maxt, spec.BlockRange, diff)
					}
				}
			})
		}
	}
}

// TestHeadBlocksKeepToTheirRange checks that the blocks are inside the range and do not overlap.
func TestHeadBlocksKeepToTheirRange(t *testing.T) {
	src := tsdbtest.Random(t, filepath.Join(t.TempDir(), "data"), 11, tsdbtest.Options{})
	if err := src.Close(); err != nil {
		t.Fatal(err)
	}
	wal, wbl := readLogs(t, src.Dir, math.MinInt64)
	const hour = 3_600_000
	mint, maxt := src.MaxTime-5*hour/2, src.MaxTime-hour/3
	built := buildHead(t, HeadSpec{Parent: t.TempDir(), MinTime: mint, MaxTime: maxt, BlockRange: hour}, wal, wbl)
	if len(built) != 3 && len(built) != 4 {
		t.Errorf("%d blocks for 2 h 10 min in windows of 1 h", len(built))
	}
	end := int64(math.MinInt64)
	for _, b := range built {
		if b.Meta.MinTime < end || b.Meta.MinTime < mint || b.Meta.MaxTime > maxt+1 {
			t.Errorf("block %s is of [%d, %d), after %d, range %d to %d", b.Dir, b.Meta.MinTime, b.Meta.MaxTime, end, mint, maxt)
		}
		end = b.Meta.MaxTime
		if start := windowStart(b.Meta.MinTime, hour); b.Meta.MaxTime > start+hour {
			t.Errorf("block %s of [%d, %d) is in more than one window", b.Dir, b.Meta.MinTime, b.Meta.MaxTime)
		}
	}
}

// TestHeadReplaysAsTheLibraryDoes builds blocks of random records in orders that a server does not
// write. The blocks have the samples that the TSDB's replay yields.
func TestHeadReplaysAsTheLibraryDoes(t *testing.T) {
	for seed := range uint64(6) {
		g := newGenerator(seed)
		wal, wbl := g.logs()
		dir := filepath.Join(t.TempDir(), "data")
		writeLog(t, filepath.Join(dir, "wal"), wal)
		writeLog(t, filepath.Join(dir, "wbl"), wbl)
		want := tsdbtest.SamplesDir(t, dir, tsdbtest.Everything())
		if want.Count() < 1000 {
			t.Fatalf("seed %d: only %d samples are served, too few for this test", seed, want.Count())
		}

		out := t.TempDir()
		spec := HeadSpec{Parent: t.TempDir(), MinTime: math.MinInt64, MaxTime: math.MaxInt64, BlockRange: 500_000}
		for _, b := range buildHead(t, spec, wal, wbl) {
			move(t, b, out)
		}
		if diff := tsdbtest.Diff(want, tsdbtest.SamplesDir(t, out, tsdbtest.Everything())); diff != "" {
			t.Errorf("seed %d:\n%s", seed, diff)
		}
	}
}

// buildHead builds blocks, verifies them, and checks that nothing else is left.
func buildHead(t testing.TB, spec HeadSpec, wal, wbl [][]byte) []*Built {
	t.Helper()
	h, err := NewHeadBuilder(spec)
	if err != nil {
		t.Fatal(err)
	}
	feed(t, h, wire.WAL, wal)
	feed(t, h, wire.WBL, wbl)
	built, err := h.Finish(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Discard(); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(spec.Parent)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != len(built) {
		t.Errorf("the staging directory has %v, want %d blocks only", entries, len(built))
	}
	for _, b := range built {
		if _, err := Verify(context.Background(), b.Dir, func(f Finding) { t.Errorf("verify: %v", f) }); err != nil {
			t.Error(err)
		}
	}
	return built
}

// feed adds the records in small messages, and overwrites their memory after each call.
func feed(t testing.TB, h *HeadBuilder, log wire.Log, records [][]byte) {
	t.Helper()
	for len(records) > 0 {
		n := min(7, len(records))
		m := wire.Records{Log: log}
		for _, rec := range records[:n] {
			m.Records = append(m.Records, append([]byte(nil), rec...))
		}
		records = records[n:]
		if err := h.Records(&m); err != nil {
			t.Fatal(err)
		}
		for _, rec := range m.Records {
			for i := range rec {
				rec[i] = 0xff
			}
		}
	}
}

// minValidTime returns the time from which a server uses the in-order samples of its log.
func minValidTime(src *tsdbtest.TSDB) int64 {
	mint := int64(math.MinInt64)
	for _, b := range src.DB().Blocks() {
		if meta := b.Meta(); !meta.Compaction.FromOutOfOrder() {
			mint = max(mint, meta.MaxTime)
		}
	}
	return mint
}

// readLogs returns the records of the logs of a data directory, without samples that blocks have.
func readLogs(t testing.TB, dir string, minValid int64) (wal, wbl [][]byte) {
	t.Helper()
	walDir := filepath.Join(dir, "wal")
	checkpoint, from, err := wlog.LastCheckpoint(walDir)
	if err == nil {
		wal = append(wal, readLog(t, checkpoint, 0)...)
		from++
	} else {
		from = 0
	}
	wal = append(wal, readLog(t, walDir, from)...)
	if _, err := os.Stat(filepath.Join(dir, "wbl")); err == nil {
		wbl = readLog(t, filepath.Join(dir, "wbl"), 0)
	}
	return notBefore(t, wal, minValid), wbl
}

func readLog(t testing.TB, dir string, from int) (records [][]byte) {
	t.Helper()
	segments, err := wlog.NewSegmentsRangeReader(wlog.SegmentRange{Dir: dir, First: from, Last: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer segments.Close()
	r := wlog.NewReader(segments)
	for r.Next() {
		records = append(records, append([]byte(nil), r.Record()...))
	}
	if r.Err() != nil {
		t.Fatal(r.Err())
	}
	return records
}

// notBefore removes the samples before minValid, as the agent does.
func notBefore(t testing.TB, records [][]byte, minValid int64) (kept [][]byte) {
	t.Helper()
	dec := record.NewDecoder(nil, slog.New(slog.DiscardHandler))
	for _, rec := range records {
		kind := dec.Type(rec)
		v2 := kind == record.SamplesV2 || kind == record.HistogramSamplesV2 || kind == record.FloatHistogramSamplesV2
		enc := record.Encoder{EnableSTStorage: v2}
		switch kind {
		case record.Samples, record.SamplesV2:
			all, err := dec.Samples(rec, nil)
			if err != nil {
				t.Fatal(err)
			}
			var in []record.RefSample
			for _, s := range all {
				if s.T >= minValid {
					in = append(in, s)
				}
			}
			rec = enc.Samples(in, nil)
		case record.HistogramSamples, record.CustomBucketsHistogramSamples, record.HistogramSamplesV2:
			all, err := dec.HistogramSamples(rec, nil)
			if err != nil {
				t.Fatal(err)
			}
			var in []record.RefHistogramSample
			for _, s := range all {
				if s.T >= minValid {
					in = append(in, s)
				}
			}
			var custom []record.RefHistogramSample
			if rec, custom = enc.HistogramSamples(in, nil); len(custom) > 0 {
				kept = append(kept, enc.CustomBucketsHistogramSamples(custom, nil))
			}
		case record.FloatHistogramSamples, record.CustomBucketsFloatHistogramSamples, record.FloatHistogramSamplesV2:
			all, err := dec.FloatHistogramSamples(rec, nil)
			if err != nil {
				t.Fatal(err)
			}
			var in []record.RefFloatHistogramSample
			for _, s := range all {
				if s.T >= minValid {
					in = append(in, s)
				}
			}
			var custom []record.RefFloatHistogramSample
			if rec, custom = enc.FloatHistogramSamples(in, nil); len(custom) > 0 {
				kept = append(kept, enc.CustomBucketsFloatHistogramSamples(custom, nil))
			}
		case record.Tombstones:
			all, err := dec.Tombstones(rec, nil)
			if err != nil {
				t.Fatal(err)
			}
			var in []tombstones.Stone
			for _, s := range all {
				if s.Intervals[0].Maxt >= minValid {
					in = append(in, s)
				}
			}
			rec = enc.Tombstones(in, nil)
		}
		kept = append(kept, rec)
	}
	return kept
}

func writeLog(t testing.TB, dir string, records [][]byte) {
	t.Helper()
	w, err := wlog.NewSize(nil, nil, dir, 32<<10*4, "none")
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Log(records...); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

func copyBlocks(t testing.TB, src string) string {
	t.Helper()
	dst := t.TempDir()
	entries, err := os.ReadDir(src)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if _, err := ulid.ParseStrict(e.Name()); err == nil {
			if err := tsdbtest.CopyDir(filepath.Join(dst, e.Name()), filepath.Join(src, e.Name())); err != nil {
				t.Fatal(err)
			}
		}
	}
	return dst
}

func move(t testing.TB, b *Built, dir string) {
	t.Helper()
	if err := os.Rename(b.Dir, filepath.Join(dir, filepath.Base(b.Dir))); err != nil {
		t.Fatal(err)
	}
}

var staleNaN = math.Float64frombits(value.StaleNaN)
