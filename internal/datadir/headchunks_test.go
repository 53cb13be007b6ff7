package datadir

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
)

// writeHeadChunks writes n m-mapped chunks like a server. Each third one is out of order.
func writeHeadChunks(t testing.TB, dir string, n int) {
	t.Helper()
	m, err := chunks.NewChunkDiskMapper(nil, dir, chunkenc.NewPool(), chunks.DefaultWriteBufferSize, chunks.DefaultWriteQueueSize)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.IterateAllChunks(func(chunks.HeadSeriesRef, chunks.ChunkDiskMapperRef, int64, int64, uint16, chunkenc.Encoding, bool) error {
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		c := chunkenc.NewXORChunk()
		app, err := c.Appender()
		if err != nil {
			t.Fatal(err)
		}
		for j := range 10 + i%50 {
			app.Append(0, int64(i*1000+j), float64(i^j))
		}
		m.WriteChunk(chunks.HeadSeriesRef(1+i%7), int64(i*1000), int64(i*1000+9+i%50), c, i%3 == 0, func(err error) {
			if err != nil {
				t.Error(err)
			}
		})
		if i%100 == 99 {
			m.CutNewFile()
		}
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
}

// asLibrary reads m-mapped chunks with the TSDB library, up to the first damage.
func asLibrary(t testing.TB, dir string) (all []string) {
	t.Helper()
	m, err := chunks.NewChunkDiskMapper(nil, dir, chunkenc.NewPool(), chunks.DefaultWriteBufferSize, chunks.DefaultWriteQueueSize)
	if err != nil {
		return nil // a server does not start
	}
	defer m.Close()
	_ = m.IterateAllChunks(func(ref chunks.HeadSeriesRef, at chunks.ChunkDiskMapperRef, mint, maxt int64, _ uint16, enc chunkenc.Encoding, late bool) error {
		c, err := m.Chunk(at)
		if err != nil {
			return err
		}
		all = append(all, fmt.Sprintf("%d %d %d %s %v %x", ref, mint, maxt, enc, late, c.Bytes()))
		return nil
	})
	return all
}

// readHeadChunks reads m-mapped chunks with Head.HeadChunks.
func readHeadChunks(t testing.TB, dir string) (all []string, damage []Damage) {
	t.Helper()
	d, err := Open(t.Context(), dir, Options{Head: ReadHead, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for c, err := range d.Head.HeadChunks(t.Context(), func(d Damage) { damage = append(damage, d) }) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, fmt.Sprintf("%d %d %d %s %v %x", c.Ref, c.MinTime, c.MaxTime, chunkenc.Encoding(c.Encoding), c.OutOfOrder, c.Data))
	}
	return all, damage
}

func TestHeadChunks(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "wal"), 0o777); err != nil {
		t.Fatal(err)
	}
	head := filepath.Join(dir, "chunks_head")
	writeHeadChunks(t, head, 250)
	want := asLibrary(t, head)
	if got, damage := readHeadChunks(t, dir); len(want) != 250 || !slices.Equal(got, want) || len(damage) > 0 {
		t.Fatalf("%d chunks, the library reads %d; damage %v", len(got), len(want), damage)
	}
	second := filepath.Join(head, "000002")
	good, err := os.ReadFile(second)
	if err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		damage func([]byte) []byte
		lost   int // chunks at most
	}{
		"data of a chunk":   {func(b []byte) []byte { b[60] ^= 1; return b }, 1},
		"length of a chunk": {func(b []byte) []byte { b[chunksHeader+chunkHeader] ^= 0x20; return b }, 2},
		"ref of a chunk":    {func(b []byte) []byte { b[chunksHeader] = 0xff; return b }, 1},
		"magic":             {func(b []byte) []byte { b[0] ^= 1; return b }, 0},
		"cut":               {func(b []byte) []byte { return b[:len(bytes.TrimRight(b, "\x00"))/2] }, 99},
		"empty":             {func(b []byte) []byte { return nil }, 100},
		"zeros in between":  {func(b []byte) []byte { clear(b[chunksHeader:400]); return b }, 100},
	} {
		if err := os.WriteFile(second, c.damage(bytes.Clone(good)), 0o666); err != nil {
			t.Fatal(err)
		}
		got, damage := readHeadChunks(t, dir)
		if len(got) < len(want)-c.lost || len(got) > len(want) || c.lost > 0 && len(got) == len(want) {
			t.Errorf("%s: %d of %d chunks", what, len(got), len(want))
		}
		for _, c := range got {
			if !slices.Contains(want, c) {
				t.Errorf("%s: a chunk that was not written: %.60s", what, c)
			}
		}
		if len(damage) == 0 || damage[0].File != "chunks_head/000002" {
			t.Errorf("%s: damage: %v", what, damage)
		}
	}
	// A torn end of the newest file is not damage. A raw copy ends before it.
	if err := os.WriteFile(second, good, 0o666); err != nil {
		t.Fatal(err)
	}
	last := filepath.Join(head, "000003")
	b, err := os.ReadFile(last)
	if err != nil {
		t.Fatal(err)
	}
	end := len(bytes.TrimRight(b, "\x00"))
	if err := os.WriteFile(last, append(b[:end-20:end-20], make([]byte, 5000)...), 0o666); err != nil {
		t.Fatal(err)
	}
	got, damage := readHeadChunks(t, dir)
	if !slices.Equal(got, want[:len(want)-1]) || len(damage) > 0 {
		t.Errorf("torn: %d of %d chunks, damage %v", len(got), len(want), damage)
	}
	raw := mustOpen(t, dir, Options{Head: RawHead})
	if copied := asLibrary(t, filepath.Join(copyHead(t, &raw.Head), "chunks_head")); !slices.Equal(copied, got) || len(raw.Head.Damage()) > 0 {
		t.Errorf("the raw copy has %d chunks, not %d; damage %v", len(copied), len(got), raw.Head.Damage())
	}
}

// FuzzHeadChunks reads arbitrary files of m-mapped chunks: reading returns all chunks that
// the TSDB library returns.
func FuzzHeadChunks(f *testing.F) {
	dir := f.TempDir()
	writeHeadChunks(f, dir, 3)
	good, err := os.ReadFile(filepath.Join(dir, "000001"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good[:400])
	f.Add(good[:100])
	f.Fuzz(func(t *testing.T, b []byte) {
		// The library indexes beyond the end of a file that is cut within a chunk.
		if len(b) > 1<<16 {
			return
		}
		dir := t.TempDir()
		for _, name := range []string{"wal", "chunks_head"} {
			if err := os.Mkdir(filepath.Join(dir, name), 0o777); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(dir, "chunks_head", "000001"), b, 0o666); err != nil {
			t.Fatal(err)
		}
		got, _ := readHeadChunks(t, dir)
		var want []string
		func() {
			defer func() { _ = recover() }() // the library may panic
			want = asLibrary(t, filepath.Join(dir, "chunks_head"))
		}()
		if len(got) < len(want) || !slices.Equal(got[:len(want)], want) {
			t.Errorf("%d chunks, the library reads %d", len(got), len(want))
		}
	})
}
