package datadir

import (
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/record"
	"github.com/prometheus/prometheus/tsdb/wlog"
	"github.com/prometheus/prometheus/util/compression"
)

// writeUnderCompaction writes the files of a server during a compaction of out-of-order
// samples: the new chunks are in the server's memory only, and the log already has their
// markers. It returns the number of samples that the server serves.
func writeUnderCompaction(t *testing.T, dir string, series int, c compression.Type) (samples int) {
	t.Helper()
	var enc record.Encoder
	log := func(name string, recs ...[]byte) {
		w, err := wlog.NewSize(quiet, nil, filepath.Join(dir, name), 16<<20, c)
		if err != nil {
			t.Fatal(err)
		}
		for _, rec := range recs {
			if err := w.Log(rec); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	var all []record.RefSeries
	var now []record.RefSample
	var first, second []record.RefMmapMarker
	late := make([][]record.RefSample, 6)
	for i := range series {
		ref := chunks.HeadSeriesRef(i*7919 + 1)
		all = append(all, record.RefSeries{Ref: ref, Labels: labels.FromStrings("__name__", "m", "i", fmt.Sprint(i))})
		now = append(now, record.RefSample{Ref: ref, T: 100_000, V: 1})
		first = append(first, record.RefMmapMarker{Ref: ref})
		second = append(second, record.RefMmapMarker{Ref: ref})
		for j := range late {
			late[j] = append(late[j], record.RefSample{Ref: ref, T: int64(90_000 + 10*j), V: float64(j)})
			samples++
		}
		samples++
	}
	log("wal", enc.Series(all, nil), enc.Samples(now, nil))
	log("wbl", enc.MmapMarkers(first, nil), enc.Samples(late[0], nil), enc.Samples(late[1], nil), enc.Samples(late[2], nil))
	// A compaction begins a new segment.
	log("wbl", enc.Samples(late[3], nil), enc.MmapMarkers(second, nil), enc.Samples(late[4], nil), enc.Samples(late[5], nil))
	return samples
}

// copyHead writes the head's files, as File reads them, into a new data directory.
func copyHead(t *testing.T, h *Head) string {
	t.Helper()
	dir := t.TempDir()
	for _, f := range slices.Concat(h.WAL, h.WBL, h.Chunks) {
		b, err := io.ReadAll(f.Body())
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, f.Name)
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// served returns the number of samples that a server serves from a data directory.
func served(t *testing.T, dir string) (n int) {
	t.Helper()
	o := tsdb.DefaultOptions()
	o.RetentionDuration = 0
	db, err := tsdb.Open(dir, quiet, nil, o, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	q, err := db.Querier(math.MinInt64, math.MaxInt64)
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	set := q.Select(t.Context(), false, nil, labels.MustNewMatcher(labels.MatchEqual, "__name__", "m"))
	for set.Next() {
		for it := set.At().Iterator(nil); it.Next() != chunkenc.ValNone; {
			n++
		}
	}
	if err := set.Err(); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestRawHeadUnderCompaction(t *testing.T) {
	for _, c := range []compression.Type{compression.None, compression.Snappy, compression.Zstd} {
		for _, series := range []int{1, 3, 500, 20_000} { // records within a page and over several
			t.Run(fmt.Sprintf("%s/%d", c, series), func(t *testing.T) {
				dir := t.TempDir()
				want := writeUnderCompaction(t, dir, series, c)
				h := &mustOpen(t, dir, Options{Head: RawHead}).Head
				if got := served(t, copyHead(t, h)); got != want {
					t.Errorf("a server on the raw head serves %d of %d samples", got, want)
				}
				for _, f := range h.WBL {
					if st, err := os.Stat(filepath.Join(dir, f.Name)); err != nil || st.Size() < f.Size {
						t.Errorf("%s: %d bytes, now %d (%v)", f.Name, st.Size(), f.Size, err)
					}
				}
			})
		}
	}
}

// TestBlanksInPieces reads blanked records in pieces of several sizes.
func TestBlanksInPieces(t *testing.T) {
	dir := t.TempDir()
	writeUnderCompaction(t, dir, 1000, compression.None)
	for _, f := range mustOpen(t, dir, Options{Head: RawHead}).Head.WBL {
		want, err := io.ReadAll(f.Body())
		if err != nil {
			t.Fatal(err)
		}
		for _, size := range []int{1, 7, 100, pageSize - 1, pageSize, 100_000} {
			got := make([]byte, len(want))
			for off := 0; off < len(got); off += size {
				if _, err := f.ReadAt(got[off:min(off+size, len(got))], int64(off)); err != nil {
					t.Fatal(err)
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s: reads of %d bytes return other contents", f.Name, size)
			}
		}
	}
}
