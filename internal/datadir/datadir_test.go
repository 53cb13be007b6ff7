package datadir

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/tsdb/wlog"
	"github.com/prometheus/prometheus/util/compression"
)

var quiet = slog.New(slog.DiscardHandler)

// writeLog writes n records into dir and gives them.
func writeLog(t *testing.T, dir string, n, size int) [][]byte {
	t.Helper()
	w, err := wlog.NewSize(quiet, nil, dir, 4*32<<10, compression.Snappy)
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(uint64(n), uint64(size)))
	var recs [][]byte
	for range n {
		rec := make([]byte, size) // that no compression makes smaller
		for j := range rec {
			rec[j] = byte(rng.Uint32())
		}
		recs = append(recs, rec)
		if err := w.Log(rec); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return recs
}

func writeBlock(t *testing.T, dir string, min, max int64, hints ...string) string {
	t.Helper()
	id := ulid.Make().String()
	files := map[string]string{"index": "i", "chunks/000001": "c1", "chunks/000002": "c2", "tombstones": "t"}
	var m Meta
	m.ULID, m.Version, m.MinTime, m.MaxTime, m.Compaction.Hints = id, 1, min, max, hints
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	files["meta.json"] = string(b)
	for name, text := range files {
		path := filepath.Join(dir, id, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return id
}

func mustOpen(t *testing.T, dir string, o Options) *Dir {
	t.Helper()
	o.Logger = quiet
	d, err := Open(t.Context(), dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func read(t *testing.T, h *Head) ([][]byte, error) {
	t.Helper()
	var recs [][]byte
	for rec, err := range h.Records(t.Context()) {
		if err != nil {
			return recs, err
		}
		recs = append(recs, bytes.Clone(rec))
	}
	return recs, nil
}

func TestNotADataDir(t *testing.T) {
	dir := t.TempDir()
	os.Mkdir(filepath.Join(dir, "notes"), 0o777)
	if _, err := Open(t.Context(), dir, Options{Logger: quiet}); !errors.Is(err, ErrNotDataDir) {
		t.Errorf("got %v", err)
	}
	if _, err := Open(t.Context(), filepath.Join(dir, "nowhere"), Options{Logger: quiet}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func TestBlocksAreReadAfterTheirDeletion(t *testing.T) {
	dir := t.TempDir()
	late, early := writeBlock(t, dir, 20, 30), writeBlock(t, dir, 10, 20)
	unwanted := writeBlock(t, dir, 30, 40)
	d := mustOpen(t, dir, Options{Wanted: func(m Meta) bool { return m.ULID != unwanted }})
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, b := range d.Blocks {
		got = append(got, b.Meta.ULID)
	}
	if want := []string{early, late, unwanted}; !slices.Equal(got, want) {
		t.Fatalf("blocks %v, want %v: by time", got, want)
	}
	var names []string
	for _, f := range d.Blocks[0].Files {
		b, err := io.ReadAll(f.Body())
		if err != nil || int64(len(b)) != f.Size {
			t.Errorf("%s: %d bytes of %d, %v", f.Name, len(b), f.Size, err)
		}
		names = append(names, strings.TrimPrefix(f.Name, early+"/"))
	}
	if want := []string{"meta.json", "chunks/000001", "chunks/000002", "index", "tombstones"}; !slices.Equal(names, want) {
		t.Errorf("files %v, want %v", names, want)
	}
	if d.Blocks[2].Files != nil || d.Blocks[2].Bytes != d.Blocks[0].Bytes {
		t.Errorf("the unwanted block has %d open files and %d bytes", len(d.Blocks[2].Files), d.Blocks[2].Bytes)
	}
}

func TestMinValidTimeIsOfBlocksFromTheHead(t *testing.T) {
	dir := t.TempDir()
	writeBlock(t, dir, 0, 10)
	d := mustOpen(t, dir, Options{})
	if d.Head.MinValidTime != 10 {
		t.Errorf("got %d, want 10", d.Head.MinValidTime)
	}
	writeBlock(t, dir, 10, 20)
	writeBlock(t, dir, 0, 99, "from-out-of-order")
	writeBlock(t, dir, 0, 98, "x", "from-stale-series")
	writeBlock(t, dir, 0, 97, "from-selected-series")
	if d = mustOpen(t, dir, Options{}); d.Head.MinValidTime != 20 {
		t.Errorf("got %d, want 20", d.Head.MinValidTime)
	}
	empty := t.TempDir()
	os.Mkdir(filepath.Join(empty, "wal"), 0o777)
	if d = mustOpen(t, empty, Options{}); d.Head.MinValidTime != math.MinInt64 {
		t.Errorf("without blocks: got %d", d.Head.MinValidTime)
	}
}

func TestBrokenBlocksAreNamedAndLeftOut(t *testing.T) {
	dir := t.TempDir()
	good := writeBlock(t, dir, 0, 10)
	bare := ulid.Make().String()
	os.Mkdir(filepath.Join(dir, bare), 0o777)
	newer := writeBlock(t, dir, 10, 20)
	os.WriteFile(filepath.Join(dir, newer, "meta.json"), []byte(`{"version": 2, "ulid": "`+newer+`"}`), 0o666)
	liar := writeBlock(t, dir, 20, 30)
	other, _ := os.ReadFile(filepath.Join(dir, good, "meta.json"))
	os.WriteFile(filepath.Join(dir, liar, "meta.json"), other, 0o666)
	writeBlock(t, dir, 10, 20)
	os.Rename(filepath.Join(dir, writeBlock(t, dir, 0, 5)), filepath.Join(dir, ulid.Make().String()+".tmp-for-deletion"))

	d := mustOpen(t, dir, Options{})
	var broken []string
	for _, b := range d.Broken {
		broken = append(broken, b.ULID)
	}
	slices.Sort(broken)
	want := []string{bare, newer, liar}
	slices.Sort(want)
	if !slices.Equal(broken, want) || len(d.Blocks) != 2 {
		t.Errorf("broken %v, want %v; %d blocks, want 2", broken, want, len(d.Blocks))
	}
}

func TestRecordsGoOnFromTheCheckpoint(t *testing.T) {
	dir := t.TempDir()
	wal := filepath.Join(dir, "wal")
	recs := writeLog(t, wal, 400, 5000)
	names, err := segments(dir, "wal")
	if err != nil || len(names) < 6 {
		t.Fatalf("%d segments, %v: too few to tell anything", len(names), err)
	}
	if got, err := read(t, &mustOpen(t, dir, Options{Head: LogOnly}).Head); err != nil || !slices.EqualFunc(got, recs, bytes.Equal) {
		t.Fatalf("%d records of %d, %v", len(got), len(recs), err)
	}
	// A checkpoint covers 0 to 2; older segments may still be there, an older
	// checkpoint and an unfinished one too.
	var after [][]byte
	for _, name := range names[3:] {
		f, err := openFile(dir, name)
		if err != nil {
			t.Fatal(err)
		}
		for rec, err := range records(context.Background(), []*File{f}, nil) {
			if err != nil {
				t.Fatal(err)
			}
			after = append(after, bytes.Clone(rec))
		}
		f.f.Close()
	}
	old := writeLog(t, filepath.Join(wal, "checkpoint.00000001"), 3, 1000)
	checkpoint := writeLog(t, filepath.Join(wal, "checkpoint.00000002"), 7, 100)
	writeLog(t, filepath.Join(wal, "checkpoint.00000004.tmp"), 3, 1000)
	_ = old
	got, err := read(t, &mustOpen(t, dir, Options{Head: LogOnly}).Head)
	if want := append(checkpoint, after...); err != nil || !slices.EqualFunc(got, want, bytes.Equal) {
		t.Fatalf("%d records, want %d, %v", len(got), len(want), err)
	}
	// Without the segment that follows the checkpoint there is a hole.
	for _, name := range names[:4] {
		os.Remove(filepath.Join(dir, name))
	}
	if _, err := Open(t.Context(), dir, Options{Head: LogOnly, Logger: quiet}); !errors.Is(err, errChanged) {
		t.Fatalf("a hole after the checkpoint: got %v", err)
	}
}

// Wherever the last segment ends, every whole record before is read, no part of
// another one is, and what a raw head takes of it is whole.
func TestTornTail(t *testing.T) {
	dir := t.TempDir()
	recs := writeLog(t, filepath.Join(dir, "wal"), 40, 9000)
	names, err := segments(dir, "wal")
	if err != nil {
		t.Fatal(err)
	}
	last := filepath.Join(dir, names[len(names)-1])
	whole, err := os.ReadFile(last)
	if err != nil {
		t.Fatal(err)
	}
	fewer := 0
	for size := 0; size <= len(whole); size += 97 {
		if err := os.WriteFile(last, whole[:size], 0o666); err != nil {
			t.Fatal(err)
		}
		d := mustOpen(t, dir, Options{Head: LogOnly})
		got, err := read(t, &d.Head)
		if err != nil {
			t.Fatalf("cut at %d: %v", size, err)
		}
		if len(got) > len(recs) || !slices.EqualFunc(got, recs[:len(got)], bytes.Equal) {
			t.Fatalf("cut at %d: other records than were written", size)
		}
		if len(got) < len(recs) {
			fewer++
		}
		raw := mustOpen(t, dir, Options{Head: RawHead})
		cut := raw.Head.WAL[len(raw.Head.WAL)-1]
		if cut.Size > int64(size) {
			t.Fatalf("cut at %d: raw takes %d", size, cut.Size)
		}
		again, err := read(t, &raw.Head)
		if err != nil || !slices.EqualFunc(again, got, bytes.Equal) {
			t.Fatalf("cut at %d: raw has %d records, not %d, %v", size, len(again), len(got), err)
		}
		// The library must find nothing to repair in it.
		r := wlog.NewReader(cut.Body())
		for r.Next() {
		}
		if r.Err() != nil {
			t.Fatalf("cut at %d: what raw takes is torn: %v", size, r.Err())
		}
		d.Close()
		raw.Close()
	}
	if fewer == 0 {
		t.Error("no cut took a record away")
	}
}

func TestTornRecordInTheMiddleIsAnError(t *testing.T) {
	dir := t.TempDir()
	recs := writeLog(t, filepath.Join(dir, "wal"), 100, 9000)
	names, _ := segments(dir, "wal")
	middle := filepath.Join(dir, names[1])
	b, err := os.ReadFile(middle)
	if err != nil {
		t.Fatal(err)
	}
	for what, damaged := range map[string][]byte{
		"flip":                         func() []byte { c := bytes.Clone(b); c[len(c)/2] ^= 1; return c }(),
		"cut":                          b[:len(b)-40000],
		"cut behind a record's header": func() []byte { return b[:7] }(),
	} {
		if err := os.WriteFile(middle, damaged, 0o666); err != nil {
			t.Fatal(err)
		}
		got, err := read(t, &mustOpen(t, dir, Options{Head: LogOnly}).Head)
		if torn, ok := errors.AsType[*TornError](err); !ok || torn.File != names[1] {
			t.Errorf("%s: %d of %d records, error %v", what, len(got), len(recs), err)
		}
	}
}

// A server that died within a record and was started again has an empty segment
// behind the torn one, until it has repaired that.
func TestTornTailBeforeAnEmptySegment(t *testing.T) {
	dir := t.TempDir()
	recs := writeLog(t, filepath.Join(dir, "wal"), 20, 9000)
	names, _ := segments(dir, "wal")
	last := filepath.Join(dir, names[len(names)-1])
	f, err := openFile(dir, names[len(names)-1])
	if err != nil {
		t.Fatal(err)
	}
	defer f.f.Close()
	whole, err := wholeRecords(f) // zeros follow
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(last, whole-10); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(wlog.SegmentName(filepath.Join(dir, "wal"), len(names)), nil, 0o666); err != nil {
		t.Fatal(err)
	}
	for _, want := range []HeadFiles{LogOnly, RawHead} {
		d := mustOpen(t, dir, Options{Head: want})
		got, err := read(t, &d.Head)
		if err != nil || !slices.EqualFunc(got, recs[:len(recs)-1], bytes.Equal) {
			t.Errorf("%v: %d records of %d, %v", want, len(got), len(recs)-1, err)
		}
	}
}

// A log that is just being repaired lacks a segment. It is looked at again.
func TestRepairUnderWay(t *testing.T) {
	dir := t.TempDir()
	writeLog(t, filepath.Join(dir, "wal"), 20, 9000)
	if err := os.WriteFile(filepath.Join(dir, "wal", "00000009.repair"), []byte("x"), 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := open(dir, Options{Head: LogOnly, Logger: quiet}, false); !errors.Is(err, errChanged) {
		t.Errorf("got %v", err)
	}
	mustOpen(t, dir, Options{Head: LogOnly}).Close() // of a server that died in its repair
}

// A block that we cannot get at is an error; only one that is none is left out.
func TestBlockThatCannotBeRead(t *testing.T) {
	dir := t.TempDir()
	id := writeBlock(t, dir, 0, 10)
	index := filepath.Join(dir, id, "index")
	if err := os.Remove(index); err != nil {
		t.Fatal(err)
	}
	d := mustOpen(t, dir, Options{})
	if len(d.Broken) != 1 || len(d.Blocks) != 0 {
		t.Errorf("without an index: %d broken, %d blocks", len(d.Broken), len(d.Blocks))
	}
	// Permissions do not count for root; a directory cannot be read as a file by anyone.
	if err := os.Mkdir(index, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), dir, Options{Logger: quiet}); err == nil || errors.Is(err, errChanged) {
		t.Errorf("with an index that cannot be read: %v", err)
	}
}

// A file that grows while it is read does not grow for us.
func TestGrowingFile(t *testing.T) {
	dir := t.TempDir()
	writeBlock(t, dir, 0, 10)
	writeLog(t, filepath.Join(dir, "wal"), 3, 1000)
	d := mustOpen(t, dir, Options{Head: LogOnly})
	f := d.Head.WAL[0]
	g, err := os.OpenFile(filepath.Join(dir, f.Name), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	g.Write(bytes.Repeat([]byte{7}, 1000))
	g.Close()
	if b, err := io.ReadAll(f.Body()); err != nil || int64(len(b)) != f.Size {
		t.Fatalf("%d bytes of %d, %v", len(b), f.Size, err)
	}
}

func TestCancelledWhileItChanges(t *testing.T) {
	dir := t.TempDir()
	writeLog(t, filepath.Join(dir, "wal"), 100, 9000)
	names, _ := segments(dir, "wal")
	os.Remove(filepath.Join(dir, names[1])) // a gap that never closes
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Open(ctx, dir, Options{Head: LogOnly, Logger: quiet}); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
}

func FuzzParseMeta(f *testing.F) {
	f.Add([]byte(`{"ulid":"01ARZ3NDEKTSV4RRFFQ69G5FAV","minTime":1,"maxTime":2,"version":1,"stats":{"numSamples":3},"compaction":{"level":1,"hints":["from-out-of-order"]}}`))
	f.Add([]byte(`{"version":1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := ParseMeta(b)
		if err == nil && (m.Version != 1 || m.MinTime > m.MaxTime || !isULID(m.ULID)) {
			t.Fatalf("took %+v", m)
		}
	})
}

// The log's framing comes from outside too: it must end, and without a panic.
func FuzzSegment(f *testing.F) {
	dir := f.TempDir()
	w, err := wlog.NewSize(quiet, nil, dir, 32<<10*2, compression.None)
	if err != nil {
		f.Fatal(err)
	}
	w.Log([]byte("one"), bytes.Repeat([]byte("two"), 20000))
	w.Close()
	good, err := os.ReadFile(filepath.Join(dir, "00000000"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good[:100])
	f.Add(good)
	f.Fuzz(func(t *testing.T, b []byte) {
		path := filepath.Join(t.TempDir(), "00000000")
		if err := os.WriteFile(path, b, 0o666); err != nil {
			t.Fatal(err)
		}
		file, err := openFile(filepath.Dir(path), "00000000")
		if err != nil {
			t.Fatal(err)
		}
		defer file.f.Close()
		for _, err := range records(context.Background(), []*File{file}, nil) {
			if err != nil {
				return
			}
		}
	})
}
