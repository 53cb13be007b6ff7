package datadir

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/tsdb/wlog"
	"github.com/prometheus/prometheus/util/compression"
)

// writeLog writes n records into a log in dir and returns them.
func writeLog(t *testing.T, dir string, n, size int) [][]byte {
	t.Helper()
	w, err := wlog.NewSize(quiet, nil, dir, 4*32<<10, compression.Snappy)
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(uint64(n), uint64(size)))
	var recs [][]byte
	for range n {
		rec := make([]byte, size) // random, so compression does not shrink it
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

// read returns copies of the records of the WAL. Damage is an error.
func read(t *testing.T, h *Head) ([][]byte, error) {
	t.Helper()
	recs, damage, err := readDamaged(t, h)
	if err == nil && len(damage) > 0 {
		err = fmt.Errorf("damage: %v", damage)
	}
	return recs, err
}

// readDamaged returns copies of the records of the WAL, and the damage.
func readDamaged(t *testing.T, h *Head) (recs [][]byte, damage []Damage, err error) {
	t.Helper()
	for rec, err := range h.Records(t.Context(), func(d Damage) { damage = append(damage, d) }) {
		if err != nil {
			return recs, damage, err
		}
		recs = append(recs, bytes.Clone(rec))
	}
	return recs, damage, nil
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

func TestReadDeletedBlocks(t *testing.T) {
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
		t.Fatalf("blocks %v, want %v, sorted by time", got, want)
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

func TestMinValidTime(t *testing.T) {
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

func TestCheckpoint(t *testing.T) {
	dir := t.TempDir()
	wal := filepath.Join(dir, "wal")
	recs := writeLog(t, wal, 400, 5000)
	names, err := segments(dir, "wal")
	if err != nil || len(names) < 6 {
		t.Fatalf("%d segments, %v: too few for this test", len(names), err)
	}
	if got, err := read(t, &mustOpen(t, dir, Options{Head: ReadHead}).Head); err != nil || !slices.EqualFunc(got, recs, bytes.Equal) {
		t.Fatalf("%d records of %d, %v", len(got), len(recs), err)
	}
	// A checkpoint covers segments 0 to 2, which still exist, beside an older checkpoint
	// and an unfinished one.
	var after [][]byte
	for _, name := range names[3:] {
		f, err := openFile(dir, name)
		if err != nil {
			t.Fatal(err)
		}
		damaged := func(d Damage) { t.Fatal(d) }
		for rec, err := range records(t.Context(), []*File{f}, nil, anySegment, damaged) {
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
	got, err := read(t, &mustOpen(t, dir, Options{Head: ReadHead}).Head)
	if want := append(checkpoint, after...); err != nil || !slices.EqualFunc(got, want, bytes.Equal) {
		t.Fatalf("%d records, want %d, %v", len(got), len(want), err)
	}
	// The segment after the checkpoint is missing.
	for _, name := range names[:4] {
		os.Remove(filepath.Join(dir, name))
	}
	d := mustOpen(t, dir, Options{Head: ReadHead})
	gap := Damage{File: names[3], Err: ErrMissing, Fatal: true}
	if !slices.Equal(d.Head.Damage(), []Damage{gap}) {
		t.Errorf("a gap after the checkpoint: %v", d.Head.Damage())
	}
	got, damage, err := readDamaged(t, &d.Head)
	if err != nil || len(got) <= len(checkpoint) || !slices.Equal(damage, []Damage{gap}) {
		t.Errorf("read over a gap: %d records, damage %v, %v", len(got), damage, err)
	}
}

// TestForeignCheckpoint reads the segments below a checkpoint of another log.
func TestForeignCheckpoint(t *testing.T) {
	dir := t.TempDir()
	recs := writeLog(t, filepath.Join(dir, "wal"), 20, 9000)
	if err := os.Mkdir(filepath.Join(dir, "wal", "checkpoint.00000099"), 0o777); err != nil {
		t.Fatal(err)
	}
	d := mustOpen(t, dir, Options{Head: ReadHead})
	if got, err := read(t, &d.Head); err != nil || !slices.EqualFunc(got, recs, bytes.Equal) {
		t.Errorf("%d records of %d, %v", len(got), len(recs), err)
	}
}

// TestTornTail truncates the last segment at many offsets. Readers return every complete
// record and no incomplete one, and a raw head ends after a complete record.
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
		d := mustOpen(t, dir, Options{Head: ReadHead})
		got, err := read(t, &d.Head)
		if err != nil {
			t.Fatalf("cut at %d: %v", size, err)
		}
		if len(got) > len(recs) || !slices.EqualFunc(got, recs[:len(got)], bytes.Equal) {
			t.Fatalf("cut at %d: records differ from those written", size)
		}
		if len(got) < len(recs) {
			fewer++
		}
		raw := mustOpen(t, dir, Options{Head: RawHead})
		cut := raw.Head.WAL[len(raw.Head.WAL)-1]
		if cut.Size > int64(size) {
			t.Fatalf("cut at %d: the raw head has %d bytes", size, cut.Size)
		}
		again, err := read(t, &raw.Head)
		if err != nil || !slices.EqualFunc(again, got, bytes.Equal) {
			t.Fatalf("cut at %d: the raw head has %d records, not %d, %v", size, len(again), len(got), err)
		}
		// The library finds nothing to repair in the raw head.
		r := wlog.NewReader(cut.Body())
		for r.Next() {
		}
		if r.Err() != nil {
			t.Fatalf("cut at %d: the raw head is torn: %v", size, r.Err())
		}
		d.Close()
		raw.Close()
	}
	if fewer == 0 {
		t.Error("no cut removed a record")
	}
}

// TestDamageInTheMiddle damages segments before their end. Readers lose only the damaged
// records, and report the damage.
func TestDamageInTheMiddle(t *testing.T) {
	dir := t.TempDir()
	recs := writeLog(t, filepath.Join(dir, "wal"), 110, 9000)
	names, _ := segments(dir, "wal")
	for _, segment := range []int{0, 1, len(names) - 1} {
		file := filepath.Join(dir, names[segment])
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		f, err := openFile(dir, names[segment])
		if err != nil {
			t.Fatal(err)
		}
		end := newSegmentReader(f, true, func(d Damage) { t.Fatal(d) }).end() // zeros follow
		f.f.Close()
		for what, c := range map[string]struct {
			damage func([]byte) []byte
			lost   int // records
		}{
			"checksum of a record": {func(b []byte) []byte { b[100] ^= 1; return b }, 1},
			"length of a record":   {func(b []byte) []byte { b[1] ^= 0x40; return b }, 4},
			"type of a record":     {func(b []byte) []byte { b[0] = 5; return b }, 4},
			"zeros":                {func(b []byte) []byte { clear(b[9000:12000]); return b }, 4},
			"a page of another file": {func(b []byte) []byte {
				copy(b[pageSize:2*pageSize], bytes.Repeat([]byte("else"), pageSize/4))
				return b
			}, 5},
		} {
			if err := os.WriteFile(file, c.damage(bytes.Clone(b[:end])), 0o666); err != nil {
				t.Fatal(err)
			}
			got, damage, err := readDamaged(t, &mustOpen(t, dir, Options{Head: ReadHead}).Head)
			if err != nil || len(got) < len(recs)-c.lost || len(got) >= len(recs) {
				t.Errorf("%s in %s: %d of %d records, %v", what, names[segment], len(got), len(recs), err)
			}
			if len(damage) != 1 || damage[0].File != names[segment] || damage[0].Bytes <= 0 || damage[0].Fatal {
				t.Errorf("%s in %s: reported is %v", what, names[segment], damage)
			}
			// The library ends at the reported offset.
			r := wlog.NewReader(bytes.NewReader(c.damage(bytes.Clone(b[:end]))))
			before := int64(0)
			for r.Next() {
				before = r.Offset()
			}
			outside := func(d Damage) bool { return d.Offset < before || d.Offset > before+pageSize }
			if r.Err() == nil || len(damage) == 1 && outside(damage[0]) {
				t.Errorf("%s in %s: damage at %v, the library ends at %d: %v", what, names[segment], damage, before, r.Err())
			}
			for i, rec := range got { // written records only, in order
				if j := slices.IndexFunc(recs, func(r []byte) bool { return bytes.Equal(r, rec) }); j < i {
					t.Fatalf("%s in %s: record %d was not written, or is out of order", what, names[segment], i)
				}
			}
		}
		if err := os.WriteFile(file, b, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	// A truncated segment before the last one is damage.
	middle := filepath.Join(dir, names[1])
	st, err := os.Stat(middle)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(middle, st.Size()-40000); err != nil {
		t.Fatal(err)
	}
	got, damage, err := readDamaged(t, &mustOpen(t, dir, Options{Head: ReadHead}).Head)
	if err != nil || len(damage) != 1 || len(got) >= len(recs) || len(got) < len(recs)-6 {
		t.Errorf("cut: %d of %d records, damage %v, %v", len(got), len(recs), damage, err)
	}
}

func TestOldLog(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "wal"), 0o777); err != nil {
		t.Fatal(err)
	}
	old := append([]byte{0x43, 0xAF, 0x00, 0xEF, 1}, make([]byte, 100)...)
	for _, name := range []string{"000001", "000002"} {
		if err := os.WriteFile(filepath.Join(dir, "wal", name), old, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	d := mustOpen(t, dir, Options{Head: ReadHead})
	recs, damage, err := readDamaged(t, &d.Head)
	if err != nil || len(recs) > 0 {
		t.Errorf("%d records, %v", len(recs), err)
	}
	if !slices.ContainsFunc(damage, func(d Damage) bool { return errors.Is(d.Err, ErrOldLog) }) {
		t.Errorf("damage: %v", damage)
	}
}

// TestTornTailBeforeAnEmptySegment reads the log of a server that crashed within a record
// and started again: until its repair, an empty segment follows the torn one.
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
	whole := newSegmentReader(f, true, func(d Damage) { t.Fatal(d) }).end() // zeros follow
	if err := os.Truncate(last, whole-10); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(wlog.SegmentName(filepath.Join(dir, "wal"), len(names)), nil, 0o666); err != nil {
		t.Fatal(err)
	}
	for _, want := range []HeadFiles{ReadHead, RawHead} {
		d := mustOpen(t, dir, Options{Head: want})
		got, err := read(t, &d.Head)
		if err != nil || !slices.EqualFunc(got, recs[:len(recs)-1], bytes.Equal) {
			t.Errorf("%v: %d records of %d, %v", want, len(got), len(recs)-1, err)
		}
	}
}

// TestRepairUnderWay reads the original of a segment that a server is repairing, since the
// new segment has fewer records.
func TestRepairUnderWay(t *testing.T) {
	for _, begun := range []bool{false, true} {
		dir := t.TempDir()
		recs := writeLog(t, filepath.Join(dir, "wal"), 40, 9000)
		names, _ := segments(dir, "wal")
		second := filepath.Join(dir, names[1])
		if err := os.Rename(second, second+repairSuffix); err != nil {
			t.Fatal(err)
		}
		if begun {
			if err := os.WriteFile(second, nil, 0o666); err != nil {
				t.Fatal(err)
			}
		}
		o := Options{Head: RawHead, Logger: quiet}
		if _, err := open(t.Context(), dir, o, false); !errors.Is(err, errChanged) {
			t.Errorf("open accepts a raw head during a repair: %v", err)
		}
		d := mustOpen(t, dir, Options{Head: ReadHead}) // the server crashed during the repair
		got, damage, err := readDamaged(t, &d.Head)
		if err != nil || !slices.EqualFunc(got, recs, bytes.Equal) {
			t.Errorf("%d of %d records, %v", len(got), len(recs), err)
		}
		if want := []Damage{{File: names[1] + repairSuffix, Err: ErrRepair, Fatal: !begun}}; !slices.Equal(damage, want) {
			t.Errorf("damage: %v, want %v", damage, want)
		}
	}
}

// TestGrowingFile reads a file that grows up to the size when it was opened.
func TestGrowingFile(t *testing.T) {
	dir := t.TempDir()
	writeBlock(t, dir, 0, 10)
	writeLog(t, filepath.Join(dir, "wal"), 3, 1000)
	d := mustOpen(t, dir, Options{Head: ReadHead})
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
	os.Remove(filepath.Join(dir, names[1])) // makes Open retry
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Open(ctx, dir, Options{Head: ReadHead, Logger: quiet}); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
}

func FuzzParseMeta(f *testing.F) {
	f.Add([]byte(`{"ulid":"01ARZ3NDEKTSV4RRFFQ69G5FAV","minTime":1,"maxTime":2,"version":1,"stats":{"numSamples":3},"compaction":{"level":1,"hints":["from-out-of-order"]}}`))
	f.Add([]byte(`{"version":1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		const name = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
		m, err := ParseMeta(name, b)
		if err != nil {
			return
		}
		fixed, err := m.repaired(b)
		if err != nil {
			t.Fatal(err)
		}
		if fixed == nil {
			fixed = b
		}
		if again, err := ParseMeta(name, fixed); err != nil || again.Version != 1 || again.named != name {
			t.Fatalf("%s is repaired to %s: %+v, %v", b, fixed, again, err)
		}
	})
}

// libraryReads returns the records that the TSDB library reads of a segment before its first
// error, without empty ones.
func libraryReads(t *testing.T, path string) (recs [][]byte) {
	t.Helper()
	segment, err := wlog.OpenReadSegment(path)
	if err != nil {
		t.Fatal(err)
	}
	defer segment.Close()
	// A server reads segments this way: it appends zeros to a short one.
	lib := wlog.NewReader(wlog.NewSegmentBufReader(segment))
	for lib.Next() {
		if len(lib.Record()) > 0 {
			recs = append(recs, bytes.Clone(lib.Record()))
		}
	}
	return recs
}

// TestRecordCutWithinZeros truncates a record that ends with zeros. Prometheus reads it as
// complete if only zeros are missing; see wlog.segmentBufReader.
func TestRecordCutWithinZeros(t *testing.T) {
	for _, c := range []compression.Type{compression.None, compression.Snappy, compression.Zstd} {
		dir := t.TempDir()
		w, err := wlog.New(quiet, nil, dir, c)
		if err != nil {
			t.Fatal(err)
		}
		last := append([]byte("two, and zeros"), make([]byte, 9)...)
		if err := errors.Join(w.Log([]byte("one"), last), w.Close()); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, "00000000")
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		b = bytes.TrimRight(b[:200], "\x00")
		short := 0
		for size := len(b) + 12; size >= 0; size-- {
			if err := os.WriteFile(path, append(bytes.Clone(b), make([]byte, 12)...)[:size], 0o666); err != nil {
				t.Fatal(err)
			}
			f, err := openFile(dir, "00000000")
			if err != nil {
				t.Fatal(err)
			}
			var got [][]byte
			for rec, err := range records(t.Context(), []*File{f}, f, anySegment, func(d Damage) { t.Errorf("%s, %d bytes: %v", c, size, d) }) {
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, bytes.Clone(rec))
			}
			want := libraryReads(t, path)
			if !slices.EqualFunc(got, want, bytes.Equal) {
				t.Errorf("%s, %d bytes: %q, the library reads %q", c, size, got, want)
			}
			if size == len(b) && len(want) == 2 {
				short++
			}
			if end := newSegmentReader(f, true, func(Damage) {}).end(); end > f.Size {
				t.Errorf("%s: the last record ends at %d of %d bytes", c, end, f.Size)
			}
			f.f.Close()
		}
		if c == compression.None && short == 0 {
			t.Errorf("%s: no truncated record is complete", c)
		}
	}
}

// FuzzSegment reads arbitrary segments: reading ends, does not panic, and returns all
// records that the TSDB library returns.
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
		want := libraryReads(t, path)
		var got [][]byte
		for rec, err := range records(t.Context(), []*File{file}, nil, anySegment, func(Damage) {}) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, bytes.Clone(rec))
		}
		if len(got) < len(want) || !slices.EqualFunc(got[:len(want)], want, bytes.Equal) {
			t.Errorf("%d records, the library reads %d", len(got), len(want))
		}
	})
}
