package restore

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/promdump/promdump/internal/archive"
	"github.com/promdump/promdump/internal/datadir"
	"github.com/promdump/promdump/internal/tsdbtest"
)

const (
	hour = int64(3_600_000) // of milliseconds
	noon = int64(1_767_268_800_000)
)

// span is a series with one sample a minute.
type span struct {
	name     string
	from, to int64 // Unix milliseconds, the end excluded
}

// open opens dir itself, as a server would.
func open(t *testing.T, dir string) *tsdb.DB {
	t.Helper()
	opts := tsdb.DefaultOptions()
	opts.RetentionDuration = 0
	opts.BlockReloadInterval = time.Second
	opts.FloatChunkEncoding = chunkenc.EncXOR
	db, err := tsdb.Open(dir, nil, nil, opts, nil)
	if err != nil {
		t.Fatalf("a server does not start on %s: %v", dir, err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func add(t *testing.T, db *tsdb.DB, s span) {
	t.Helper()
	app := db.Appender(t.Context())
	for ts := s.from; ts < s.to; ts += 60_000 {
		if _, err := app.Append(0, labels.FromStrings("__name__", s.name, "job", "test"), ts, float64(ts)); err != nil {
			t.Fatal(err)
		}
	}
	if err := app.Commit(); err != nil {
		t.Fatal(err)
	}
}

// headDir makes a data dir with nothing but a head.
func headDir(t *testing.T, dir string, spans ...span) {
	t.Helper()
	db := open(t, dir)
	db.DisableCompactions()
	for _, s := range spans {
		add(t, db, s)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

// addBlocks adds a block for each span to dir, with a writer of Prometheus' own.
func addBlocks(t *testing.T, dir string, spans ...span) (ids []string) {
	t.Helper()
	for _, s := range spans {
		w, err := tsdb.NewBlockWriter(slog.New(slog.DiscardHandler), dir, s.to-s.from)
		if err != nil {
			t.Fatal(err)
		}
		app := w.Appender(t.Context())
		for ts := s.from; ts < s.to; ts += 60_000 {
			if _, err := app.Append(0, labels.FromStrings("__name__", s.name, "job", "test"), ts, float64(ts)); err != nil {
				t.Fatal(err)
			}
		}
		if err := app.Commit(); err != nil {
			t.Fatal(err)
		}
		id, err := w.Flush(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id.String())
	}
	return ids
}

// dumpOf makes a dump of all blocks in dir, and of its head when it is raw.
func dumpOf(t testing.TB, dir string, raw bool) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := archive.NewWriter(&out, archive.Options{Compression: archive.None})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	if err := w.Manifest(archive.Manifest{Tool: "test", Created: time.UnixMilli(noon)}); err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		top, _, _ := strings.Cut(filepath.ToSlash(name), "/")
		if !isBlockName(top) && !(raw && slices.Contains(datadir.HeadNames(), top)) {
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return w.File(filepath.ToSlash(name), int64(len(b)), bytes.NewReader(b))
	})
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func blocksDump(t *testing.T, spans ...span) (dump []byte, ids []string) {
	t.Helper()
	dir := t.TempDir()
	ids = addBlocks(t, dir, spans...)
	return dumpOf(t, dir, false), ids
}

func served(t *testing.T, dir string) tsdbtest.Served {
	t.Helper()
	return tsdbtest.SamplesDir(t, dir, tsdbtest.Everything())
}

// expect is what spans serve; one that is named twice counts once.
func expect(spans ...span) tsdbtest.Served {
	got := tsdbtest.Served{}
	for _, s := range spans {
		key := labels.FromStrings("__name__", s.name, "job", "test").String()
		for ts := s.from; ts < s.to; ts += 60_000 {
			if have := got[key]; len(have) > 0 && have[len(have)-1].T >= ts {
				continue
			}
			got[key] = append(got[key], tsdbtest.Sample{T: ts, Kind: chunkenc.ValFloat, Value: math.Float64bits(float64(ts))})
		}
	}
	return got
}

func mustServe(t *testing.T, dir string, spans ...span) {
	t.Helper()
	if d := diffSpans(t, served(t, dir), spans); d != "" {
		t.Fatalf("%s serves something else:\n%s", dir, d)
	}
}

// diffSpans compares times and values, which are the same in a span.
func diffSpans(t *testing.T, got tsdbtest.Served, spans []span) string {
	t.Helper()
	return tsdbtest.Diff(expect(spans...), got)
}

func restoreInto(t *testing.T, dump []byte, spec Spec) (*Report, error) {
	t.Helper()
	spec.Dump = bytes.NewReader(dump)
	p, err := Prepare(t.Context(), spec)
	if err != nil {
		return nil, err
	}
	rep, err := p.Run(t.Context())
	return rep, errors.Join(err, p.Close())
}

func mustRestore(t *testing.T, dump []byte, spec Spec) *Report {
	t.Helper()
	rep, err := restoreInto(t, dump, spec)
	if err != nil {
		t.Fatal(err)
	}
	noLeftovers(t, spec.Dir)
	return rep
}

// names lists everything below dir.
func names(t *testing.T, dir string) []string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if rel, _ := filepath.Rel(dir, path); rel != "." {
			all = append(all, rel)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(all)
	return all
}

func noLeftovers(t *testing.T, dir string) {
	t.Helper()
	for _, name := range names(t, dir) {
		if strings.Contains(name, ".tmp") || strings.Contains(name, datadir.AsidePrefix) {
			t.Errorf("left behind in the data dir: %s", name)
		}
	}
}

func planOf(t *testing.T, dump []byte, spec Spec) *Prepared {
	t.Helper()
	spec.Dump = bytes.NewReader(dump)
	p, err := Prepare(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func kinds(refusals []Refusal) (all []RefusalKind) {
	for _, r := range refusals {
		all = append(all, r.Kind)
	}
	return all
}

// waitFor looks until ok, or for half a minute.
func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-ctx.Done():
			t.Fatal("waited in vain")
		case <-tick.C:
		}
	}
}
