package datadir

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"
	"github.com/prometheus/prometheus/tsdb/tombstones"
)

var quiet = slog.New(slog.DiscardHandler)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// writeBlock writes a real block of two chunk segments with a series in each.
func writeBlock(t *testing.T, dir string, minTime, maxTime int64, hints ...string) string {
	t.Helper()
	return writeBlockMeta(t, dir, 2, tsdb.BlockMeta{MinTime: minTime, MaxTime: maxTime, Compaction: tsdb.BlockMetaCompaction{Level: 1, Hints: hints}})
}

// writeBlockMeta writes a real block with one series for each chunk segment.
func writeBlockMeta(t *testing.T, dir string, segments int, m tsdb.BlockMeta) string {
	t.Helper()
	if m.ULID == (ulid.ULID{}) {
		m.ULID = ulid.Make()
	}
	m.Version = 1
	if m.Compaction.Sources == nil {
		m.Compaction.Sources = []ulid.ULID{m.ULID}
	}
	d := filepath.Join(dir, m.ULID.String())
	must(t, os.MkdirAll(filepath.Join(d, "chunks"), 0o777))
	iw, err := index.NewWriter(t.Context(), filepath.Join(d, "index"))
	must(t, err)
	symbols := []string{"__name__", "n", "up"}
	for i := range segments {
		symbols = append(symbols, fmt.Sprintf("%04d", i))
	}
	slices.Sort(symbols)
	for _, s := range symbols {
		must(t, iw.AddSymbol(s))
	}
	cw, err := chunks.NewWriter(filepath.Join(d, "chunks"), chunks.WithSegmentSize(chunks.SegmentHeaderSize+1))
	must(t, err)
	for i := range segments {
		c := chunkenc.NewXORChunk()
		app, err := c.Appender()
		must(t, err)
		app.Append(0, m.MinTime, float64(i))
		metas := []chunks.Meta{{MinTime: m.MinTime, MaxTime: m.MinTime, Chunk: c}}
		must(t, cw.WriteChunks(metas...))
		must(t, iw.AddSeries(storage.SeriesRef(i), labels.FromStrings("__name__", "up", "n", fmt.Sprintf("%04d", i)), metas...))
		m.Stats.NumSamples++
		m.Stats.NumSeries++
		m.Stats.NumChunks++
	}
	must(t, cw.Close())
	must(t, iw.Close())
	_, err = tombstones.WriteFile(quiet, d, tombstones.NewMemTombstones())
	must(t, err)
	text, err := json.Marshal(m)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(d, "meta.json"), text, 0o666))
	if found, err := blockSegments(dir, m.ULID.String()); err != nil || len(found) != segments {
		t.Fatalf("%d segments, %v, want %d", len(found), err, segments)
	}
	return m.ULID.String()
}

// opens returns nil if the TSDB opens a block. A panic is an error: a server crashes.
func opens(dir string) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v", r)
		}
	}()
	b, err := tsdb.OpenBlock(quiet, dir, nil, nil)
	if err != nil {
		return err
	}
	return b.Close()
}

// starts returns the blocks that a server serves when it starts on a copy of the data
// directory, or why it does not start.
func starts(t *testing.T, dir string) (blocks []string, err error) {
	t.Helper()
	copied := t.TempDir()
	must(t, os.CopyFS(copied, os.DirFS(dir)))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v", r)
		}
	}()
	o := tsdb.DefaultOptions()
	o.RetentionDuration = 0
	db, err := tsdb.Open(copied, quiet, nil, o, nil)
	if err != nil {
		return nil, err
	}
	defer db.Close()
	for _, b := range db.Blocks() {
		blocks = append(blocks, filepath.Base(b.Dir()))
	}
	slices.Sort(blocks)
	return blocks, nil
}

// loads returns the blocks of the data directory, or why the TSDB cannot open one of them.
func loads(t *testing.T, dir string) (blocks []string, err error) {
	t.Helper()
	names, _, err := blockNames(dir)
	must(t, err)
	for _, name := range names {
		if err := opens(filepath.Join(dir, name)); err != nil {
			return nil, err
		}
	}
	return names, nil
}

// taken returns the blocks that a dump has: those that can be loaded and that a server does
// not delete.
func taken(d *Dir) (names []string) {
	for _, b := range d.Blocks {
		if b.Dropped == "" {
			names = append(names, b.Meta.ULID)
		}
	}
	slices.Sort(names)
	return names
}

// leftOut returns the ULIDs of d.LeftOut.
func leftOut(d *Dir) (names []string) {
	for _, b := range d.LeftOut {
		names = append(names, b.ULID)
	}
	slices.Sort(names)
	return names
}

// edit returns a function that rewrites a file.
func edit(change func([]byte) []byte) func(*testing.T, string) {
	return func(t *testing.T, path string) {
		b, err := os.ReadFile(path)
		must(t, err)
		must(t, os.WriteFile(path, change(b), 0o666))
	}
}

func cut(n int) func(*testing.T, string) {
	return edit(func(b []byte) []byte { return b[:max(0, len(b)-n)] })
}

func size(n int) func(*testing.T, string) { return edit(func(b []byte) []byte { return b[:n] }) }

func set(off int, v byte) func(*testing.T, string) {
	return edit(func(b []byte) []byte {
		if off < 0 {
			off += len(b)
		}
		b[off] = v
		return b
	})
}

func text(s string) func(*testing.T, string) {
	return edit(func([]byte) []byte { return []byte(s) })
}

func gone(t *testing.T, path string) { must(t, os.RemoveAll(path)) }

func isDirectory(t *testing.T, path string) {
	gone(t, path)
	must(t, os.Mkdir(path, 0o777))
}

func isFile(t *testing.T, path string) {
	gone(t, path)
	must(t, os.WriteFile(path, []byte("x"), 0o666))
}

func isEmptyDir(t *testing.T, path string) { isDirectory(t, path) }

func dangling(t *testing.T, path string) {
	gone(t, path)
	must(t, os.Symlink("nowhere", path))
}

func itself(t *testing.T, path string) {
	gone(t, path)
	must(t, os.Symlink(filepath.Base(path), path))
}

func linked(t *testing.T, path string) {
	must(t, os.Rename(path, path+".elsewhere"))
	must(t, os.Symlink(filepath.Base(path)+".elsewhere", path))
}

func unchanged(*testing.T, string) {}

// deletions writes a tombstones file: intervals of the first series, as pairs of times.
func deletions(times ...int64) func(*testing.T, string) {
	return edit(func([]byte) []byte {
		b := binary.BigEndian.AppendUint32(nil, tombstones.MagicTombstone)
		b = append(b, 1)
		for i := 0; i < len(times); i += 2 {
			b = binary.AppendVarint(binary.AppendVarint(append(b, 0), times[i]), times[i+1])
		}
		return binary.BigEndian.AppendUint32(b, crc32.Checksum(b[5:], castagnoli))
	})
}

// meta edits the fields of a meta.json.
func meta(change func(map[string]any)) func(*testing.T, string) {
	return edit(func(b []byte) []byte {
		m := map[string]any{}
		if err := json.Unmarshal(b, &m); err != nil {
			panic(err)
		}
		change(m)
		b, _ = json.Marshal(m)
		return b
	})
}

// TestJudge damages one block beside good ones in many ways, and compares with the TSDB:
// Open accepts exactly the blocks that a server loads, and a server loads what is read of
// them.
func TestJudge(t *testing.T) {
	for _, c := range []struct {
		file, what string
		damage     func(*testing.T, string)
	}{
		{"index", "unchanged", unchanged},
		{"index", "empty", size(0)},
		{"index", "4 bytes", size(4)},
		{"index", "5 bytes", size(5)},
		{"index", "51 bytes", size(51)},
		{"index", "cut by 40", cut(40)},
		{"index", "cut by 1", cut(1)},
		{"index", "longer by 1", edit(func(b []byte) []byte { return append(b, 0) })},
		{"index", "missing", gone},
		{"index", "a directory", isDirectory},
		{"index", "a link to nothing", dangling},
		{"index", "a link to itself", itself},
		{"index", "a link", linked},
		{"index", "magic", set(0, 1)},
		{"index", "version 0", set(4, 0)},
		{"index", "version 1", set(4, 1)},
		{"index", "version 3", set(4, 3)},
		{"index", "version 4", set(4, 4)},
		{"index", "contents' checksum", set(-1, 0x55)},
		{"index", "a symbol", set(14, 0x55)},
		{"index", "zeros", edit(func(b []byte) []byte { return make([]byte, len(b)) })},
		{"chunks/000001", "empty", size(0)},
		{"chunks/000002", "7 bytes", size(7)},
		{"chunks/000002", "8 bytes", size(8)},
		{"chunks/000001", "magic", set(1, 0)},
		{"chunks/000002", "version", set(4, 2)},
		{"chunks/000002", "padding", set(6, 2)},
		{"chunks/000002", "a chunk", set(12, 0x55)},
		{"chunks/000002", "cut", cut(3)},
		{"chunks/000001", "a directory", isDirectory},
		{"chunks/000003", "a directory", isDirectory},
		{"chunks/000003", "a file of one byte", isFile},
		{"chunks/notes.txt", "a file of one byte", isFile},
		{"chunks/000002", "a link to nothing", dangling},
		{"chunks/000002", "a link", linked},
		{"chunks", "missing", gone},
		{"chunks", "a file", isFile},
		{"chunks", "a link", linked},
		{"chunks", "a link to itself", itself},
		{"tombstones", "missing", gone},
		{"tombstones", "empty", size(0)},
		{"tombstones", "4 bytes", size(4)},
		{"tombstones", "8 bytes", size(8)},
		{"tombstones", "cut by 1", cut(1)},
		{"tombstones", "magic", set(0, 0)},
		{"tombstones", "version", set(4, 2)},
		{"tombstones", "checksum", set(-1, 0x55)},
		{"tombstones", "a directory", isDirectory},
		{"tombstones", "a link to nothing", dangling},
		{"tombstones", "a link to itself", itself},
		{"tombstones", "deletions without an end that overlap", deletions(0, 10, 20, 30, 15, math.MaxInt64)},
		{"tombstones", "deletions without an end", deletions(0, 10, 20, math.MaxInt64)},
		{"meta.json", "missing", gone},
		{"meta.json", "empty", size(0)},
		{"meta.json", "no JSON", text("minTime")},
		{"meta.json", "null", text("null")},
		{"meta.json", "another type", text("[1]")},
		{"meta.json", "JSON and more", edit(func(b []byte) []byte { return append(b, "x"...) })},
		{"meta.json", "nothing but a version", text(`{"version":1}`)},
		{"meta.json", "version 0", meta(func(m map[string]any) { m["version"] = 0 })},
		{"meta.json", "version 2", meta(func(m map[string]any) { m["version"] = 2 })},
		{"meta.json", "version 3", meta(func(m map[string]any) { m["version"] = 3 })},
		{"meta.json", "no stats", meta(func(m map[string]any) { delete(m, "stats") })},
		{"meta.json", "a negative number", meta(func(m map[string]any) { m["stats"] = map[string]any{"numSamples": -1} })},
		{"meta.json", "a number of chunks as text", meta(func(m map[string]any) { m["stats"] = map[string]any{"numChunks": "1"} })},
		{"meta.json", "a float", meta(func(m map[string]any) { m["minTime"] = 1.5 })},
		{"meta.json", "ends before it begins", meta(func(m map[string]any) { m["minTime"], m["maxTime"] = 20, 10 })},
		{"meta.json", "no ULID", meta(func(m map[string]any) { delete(m, "ulid") })},
		{"meta.json", "a short ULID", meta(func(m map[string]any) { m["ulid"] = "01ARZ" })},
		{"meta.json", "another ULID", meta(func(m map[string]any) { m["ulid"] = ulid.Make().String() })},
		{"meta.json", "a source that is not a ULID", meta(func(m map[string]any) { m["compaction"] = map[string]any{"sources": []string{"x"}} })},
		{"meta.json", "a parent that is not a ULID", meta(func(m map[string]any) { m["compaction"] = map[string]any{"parents": []string{"x"}} })},
		{"meta.json", "unknown fields", meta(func(m map[string]any) { m["thanos"] = map[string]any{"labels": 1} })},
		{"meta.json", "other case", meta(func(m map[string]any) { delete(m, "version"); m["VERSION"] = 2 })},
		{"meta.json", "deletable", meta(func(m map[string]any) { m["compaction"] = map[string]any{"deletable": true} })},
		{"meta.json", "a directory", isDirectory},
		{"meta.json", "17 MiB of zeros", edit(func([]byte) []byte { return make([]byte, 17<<20) })},
	} {
		t.Run(c.file+" "+c.what, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			bad := writeBlock(t, dir, 10, 20)
			c.damage(t, filepath.Join(dir, bad, c.file))
			// A start differs from loading only by what it does with meta.json.
			serves := starts
			if c.file != "meta.json" {
				serves = loads
			}
			alone, err := serves(t, dir)
			good := []string{writeBlock(t, dir, 0, 10), writeBlock(t, dir, 20, 30)}
			want := append(slices.Clone(good), alone...)
			slices.Sort(want)
			d := mustOpen(t, dir, Options{})
			if got := taken(d); !slices.Equal(got, want) {
				t.Errorf("taken: %v, left out: %v, a server serves %v (%v)", got, d.LeftOut, want, err)
			}
			if len(alone) == 0 && c.what != "deletable" && !slices.Equal(leftOut(d), []string{bad}) {
				t.Errorf("left out: %v, want %s", d.LeftOut, bad)
			}
			if len(alone) == 0 {
				return
			}
			// A server starts on what is read of the block.
			out := t.TempDir()
			for _, b := range d.Blocks {
				for _, f := range b.Files {
					body := make([]byte, f.Size)
					_, err := f.ReadAt(body, 0)
					must(t, errors.Join(err, os.MkdirAll(filepath.Join(out, filepath.Dir(f.Name)), 0o777),
						os.WriteFile(filepath.Join(out, f.Name), body, 0o666)))
				}
				must(t, opens(filepath.Join(out, b.Meta.ULID)))
			}
			if got, err := serves(t, out); err != nil || !slices.Equal(got, want) {
				t.Errorf("a server serves %v of the copy, %v, want %v", got, err, want)
			}
		})
	}
}
