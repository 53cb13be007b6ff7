package pod

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/promdump/promdump/internal/archive"
	"github.com/promdump/promdump/internal/dump"
	"github.com/promdump/promdump/internal/tsdbtest"
	"github.com/promdump/promdump/internal/wire"
)

// partFile is an unfinished dump.
type partFile struct{ bytes.Buffer }

func (f *partFile) Rewind(size int64) error {
	f.Truncate(int(size))
	return nil
}

// A dump of a pod that is cut at any byte and resumed by another command has the samples
// of one that was not cut. PROMDUMP_CUTS sets how many cuts of each of six kinds are tried;
// without it there is one of each of two kinds.
func TestResumeAtAnyByte(t *testing.T) {
	cuts, err := strconv.Atoi(os.Getenv("PROMDUMP_CUTS"))
	if os.Getenv("PROMDUMP_CUTS") != "" && err != nil {
		t.Fatal(err)
	}
	tsdb := tsdbtest.Random(t, t.TempDir(), 9, tsdbtest.Options{Series: 24, Interval: 5 * time.Minute})
	rng := rand.New(rand.NewPCG(12, 4))
	c := newContainer(t)
	reused := 0
	for _, head := range []wire.HeadMode{wire.HeadBlock, wire.HeadRaw} {
		for _, compression := range []archive.Compression{archive.Gzip, archive.Zstd, archive.None} {
			if cuts == 0 && compression != map[wire.HeadMode]archive.Compression{wire.HeadBlock: archive.Gzip, wire.HeadRaw: archive.None}[head] {
				continue
			}
			s := dump.Spec{
				Request:     wire.Request{Head: head, Selection: tsdbtest.Everything()},
				Compression: compression, Staging: t.TempDir(), Now: time.Unix(1, 0), Lasting: true,
			}
			var whole partFile
			if _, err := dump.Write(t.Context(), c.source(tsdb.Dir), s, &whole); err != nil {
				t.Fatal(err)
			}
			want := partSamples(t, &whole)
			for range max(cuts, 1) {
				at := rng.IntN(whole.Len())
				part := partFile{*bytes.NewBuffer(bytes.Clone(whole.Bytes()[:at]))}
				s.Kept, err = dump.ReadKept(bytes.NewReader(part.Bytes()))
				switch {
				case errors.Is(err, archive.ErrIncomplete): // not even the manifest
					part.Reset()
				case err != nil:
					t.Fatal(err)
				default:
					reused += len(s.Kept.Blocks)
				}
				if _, err := dump.Write(t.Context(), c.source(tsdb.Dir), s, &part); err != nil {
					t.Fatalf("%s, %s, cut after %d of %d bytes: %v", head, compression, at, whole.Len(), err)
				}
				if diff := tsdbtest.Diff(want, partSamples(t, &part)); diff != "" {
					t.Errorf("%s, %s, cut after %d of %d bytes: %s", head, compression, at, whole.Len(), diff)
				}
				s.Kept = nil
			}
		}
	}
	if t.Logf("%d cuts of each kind, %d blocks reused", max(cuts, 1), reused); cuts > 0 && reused == 0 {
		t.Error("too few to prove anything")
	}
}

// partSamples verifies a dump and returns its samples.
func partSamples(t *testing.T, f *partFile) tsdbtest.Served {
	t.Helper()
	dir := t.TempDir()
	if _, _, err := archive.Extract(t.Context(), bytes.NewReader(f.Bytes()), dir, nil); err != nil {
		t.Fatal(err)
	}
	return tsdbtest.SamplesDir(t, dir, tsdbtest.Everything())
}
