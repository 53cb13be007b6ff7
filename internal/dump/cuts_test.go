package dump_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/promdump/promdump/internal/archive"
	"github.com/promdump/promdump/internal/dump"
	"github.com/promdump/promdump/internal/source/local"
	"github.com/promdump/promdump/internal/tsdbtest"
	"github.com/promdump/promdump/internal/wire"
)

// dumpFile is an output like a file.
type dumpFile struct{ bytes.Buffer }

func (f *dumpFile) Rewind(size int64) error {
	f.Truncate(int(size))
	return nil
}

// cuts is how many random cuts of each of nine kinds are tried: CI sets more.
func cuts(t *testing.T) int {
	t.Helper()
	n, err := strconv.Atoi(os.Getenv("PROMDUMP_CUTS"))
	if os.Getenv("PROMDUMP_CUTS") != "" && err != nil {
		t.Fatal(err)
	}
	return max(n, 1)
}

// A dump that is cut at any byte and resumed at another time has the samples of one that
// was not cut, and what was reused is not read again. The library of Prometheus is the
// judge. After the cut comes what a power failure leaves: nothing, or zeros.
func TestResumeAtAnyByte(t *testing.T) {
	tsdb := tsdbtest.Random(t, t.TempDir(), 9, tsdbtest.Options{Series: 24, Interval: 5 * time.Minute})
	src := local.New(tsdb.Dir, local.Options{})
	rng := rand.New(rand.NewPCG(12, 3))
	total := 0
	for name, req := range map[string]wire.Request{"whole": all(wire.HeadBlock), "cut": half(tsdb), "raw": all(wire.HeadRaw)} {
		for _, c := range []archive.Compression{archive.Gzip, archive.Zstd, archive.None} {
			s := spec(t, req)
			s.Compression, s.Lasting = c, true
			var whole dumpFile
			if _, err := dump.Write(t.Context(), src, s, &whole); err != nil {
				t.Fatal(err)
			}
			want := extracted(t, whole.Bytes(), req.Selection)
			offsets := []int{0, 1, 20, 300, whole.Len() - 1, whole.Len()}
			if n := rng.IntN(len(offsets)); cuts(t) == 1 {
				offsets = offsets[n : n+1]
			}
			for range cuts(t) {
				offsets = append(offsets, rng.IntN(whole.Len()))
			}
			reused := 0
			for _, offset := range offsets {
				part := &dumpFile{}
				part.Write(whole.Bytes()[:offset])
				if rng.IntN(3) == 0 {
					part.Write(make([]byte, rng.IntN(1<<20)))
				}
				reused += resume(t, src, s, part)
				if diff := tsdbtest.Diff(want, extracted(t, part.Bytes(), req.Selection)); diff != "" {
					t.Errorf("%s, %s, cut after %d of %d bytes: %s", name, c, offset, whole.Len(), diff)
				}
			}
			total += reused
			t.Logf("%s, %s: %d cuts of %d bytes, %d blocks reused", name, c, len(offsets), whole.Len(), reused)
		}
	}
	if total < 5 {
		t.Errorf("%d blocks were reused, too few to prove anything", total)
	}
}

// resume finishes the dump in part, and returns how many blocks were reused.
func resume(t *testing.T, from *local.Source, s dump.Spec, part *dumpFile) int {
	t.Helper()
	size := int64(part.Len())
	kept, err := dump.ReadKept(bytes.NewReader(part.Bytes()))
	switch {
	case errors.Is(err, archive.ErrIncomplete):
		if err := part.Rewind(0); err != nil {
			t.Fatal(err)
		}
	case err != nil:
		t.Fatalf("%d bytes: %v", size, err)
	default:
		s.Kept, s.Now = kept, s.Now.Add(time.Hour)
	}
	src := &losing{Source: from, after: -1}
	report, err := dump.Write(t.Context(), src, s, part)
	if err != nil {
		t.Fatalf("%d bytes: %v", size, err)
	}
	if report.BytesWritten != int64(part.Len()) {
		t.Errorf("%d bytes: %d written, not %d", size, report.BytesWritten, part.Len())
	}
	if kept == nil {
		return 0
	}
	if report.Reused > size || report.Reused != kept.Bytes || report.ReusedBlocks != len(kept.Blocks) {
		t.Errorf("%d bytes: %d reused, %d blocks; %d and %d are there", size, report.Reused, report.ReusedBlocks, kept.Bytes, len(kept.Blocks))
	}
	if len(kept.Blocks) > 0 && src.sent[kept.Blocks[0].ULID] {
		t.Errorf("%d bytes: block %s was read again", size, kept.Blocks[0].ULID)
	}
	return len(kept.Blocks)
}

// extracted verifies a dump and gives its samples.
func extracted(t *testing.T, b []byte, sel wire.Selection) tsdbtest.Served {
	t.Helper()
	dir := t.TempDir()
	if _, _, err := archive.Extract(t.Context(), bytes.NewReader(b), dir, nil); err != nil {
		t.Fatal(err)
	}
	served := tsdbtest.SamplesDir(t, dir, sel)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if served.Count() == 0 {
		t.Fatal("the dump has no samples")
	}
	return served
}

// What stands in front of a block that lacks data is kept, but not that block: the note
// of what it lacks is not in the unfinished dump.
func TestKeptBlocks(t *testing.T) {
	created := time.Unix(1, 0).UTC()
	meta := func(origin string, lossy bool, of time.Time) string {
		return fmt.Sprintf(`{"version":1,"stats":{"numSamples":3,"numSeries":0},"compaction":{"sources":["X"]},"promdump":{"created":%q,"ulid":%q,"sources":["S"],"lossy":%v}}`,
			of.Format(time.RFC3339), origin, lossy)
	}
	const a, b, c = "01ARZ3NDEKTSV4RRFFQ69G5FAV", "01BX5ZZKBKACTAV9WEVGEMMVRZ", "01CX5ZZKBKACTAV9WEVGEMMVRZ"
	for name, tc := range map[string]struct {
		first, second string // meta.json of two blocks; a third one follows
		want          string
	}{
		"both":             {meta("A", false, created), meta("B", false, created), "[{A [S]} {B [S]}]"},
		"lossy":            {meta("A", false, created), meta("B", true, created), "[{A [S]}]"},
		"head":             {meta("A", false, created), meta("head", false, created), "[{A [S]}]"},
		"first is lossy":   {meta("A", true, created), meta("B", false, created), "[]"},
		"of another dump":  {meta("A", true, created.Add(1e9)), meta("head", false, created.Add(1e9)), "[{" + a + " [X]} {" + b + " [X]}]"},
		"without":          {`{"compaction":{"sources":["X","Y"]}}`, `{"compaction":{"sources":["Z"]}}`, "[{" + a + " [X Y]} {" + b + " [Z]}]"},
		"not JSON":         {meta("A", false, created), `{`, "[{A [S]}]"},
		"without its meta": {meta("A", false, created), "", "[{A [S]}]"},
	} {
		var out dumpFile
		w, err := archive.NewWriter(&out, archive.Options{})
		if err != nil {
			t.Fatal(err)
		}
		err = w.Manifest(archive.Manifest{Created: created})
		for _, block := range [][2]string{{a, tc.first}, {b, tc.second}, {c, `{}`}} {
			_, merr := w.Mark()
			err = errors.Join(err, merr, w.File(block[0]+"/tombstones", 1, bytes.NewReader([]byte{1})))
			if block[1] != "" {
				err = errors.Join(err, w.File(block[0]+"/meta.json", int64(len(block[1])), bytes.NewReader([]byte(block[1]))))
			}
		}
		if err := errors.Join(err, w.Suspend()); err != nil {
			t.Fatal(err)
		}
		k, err := dump.ReadKept(&out)
		if err != nil {
			t.Fatal(err)
		}
		got := []string{}
		for _, b := range k.Blocks {
			got = append(got, fmt.Sprintf("{%s %v}", b.ULID, b.Sources))
		}
		if fmt.Sprint(got) != tc.want {
			t.Errorf("%s: %v are kept, want %s", name, got, tc.want)
		}
	}
}
