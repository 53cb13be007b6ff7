package block

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"
)

// copyBlock returns a copy of a block.
func copyBlock(t testing.TB, src string) string {
	t.Helper()
	dst := filepath.Join(t.TempDir(), filepath.Base(src))
	if err := os.CopyFS(dst, os.DirFS(src)); err != nil {
		t.Fatal(err)
	}
	return dst
}

func edit(t testing.TB, dir, name string, change func([]byte) []byte) {
	t.Helper()
	path := filepath.Join(dir, filepath.FromSlash(name))
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, change(b), 0o666); err != nil {
		t.Fatal(err)
	}
}

func remove(name string) func(testing.TB, string) {
	return func(t testing.TB, dir string) {
		if err := os.RemoveAll(filepath.Join(dir, filepath.FromSlash(name))); err != nil {
			t.Fatal(err)
		}
	}
}

// editMeta changes the field of meta.json with a path such as "stats.numSamples".
func editMeta(field string, value any) func(testing.TB, string) {
	return func(t testing.TB, dir string) {
		edit(t, dir, metaName, func(b []byte) []byte {
			var doc map[string]any
			if err := json.Unmarshal(b, &doc); err != nil {
				t.Fatal(err)
			}
			m := doc
			names := strings.Split(field, ".")
			for _, n := range names[:len(names)-1] {
				m = m[n].(map[string]any)
			}
			m[names[len(names)-1]] = value
			b, err := json.Marshal(doc)
			if err != nil {
				t.Fatal(err)
			}
			return b
		})
	}
}

// editSection changes bytes of the index section at off, which begins with a length of four bytes,
// and corrects its checksum, so that only reading the contents reveals the damage.
func editSection(t testing.TB, b []byte, off uint64, change func(content []byte)) []byte {
	t.Helper()
	n := binary.BigEndian.Uint32(b[off:])
	content := b[off+4 : off+4+uint64(n)]
	change(content)
	binary.BigEndian.PutUint32(b[off+4+uint64(n):], castagnoli(content))
	return b
}

// editSeries is like editSection for the entry of the first series.
func editSeries(t testing.TB, b []byte, change func(content []byte)) []byte {
	t.Helper()
	toc, err := index.NewTOCFromByteSlice(byteSlice(b))
	if err != nil {
		t.Fatal(err)
	}
	off := (toc.Series + 15) / 16 * 16
	n, k := binary.Uvarint(b[off:])
	content := b[off+uint64(k) : off+uint64(k)+n]
	change(content)
	binary.BigEndian.PutUint32(b[off+uint64(k)+n:], castagnoli(content))
	return b
}

func TestVerifyFindsDamage(t *testing.T) {
	const start = 1_700_000_000_000
	r := rand.New(rand.NewPCG(11, 11))
	src := libraryBlock(t, r, t.TempDir(), 30, 300, start)
	other := libraryBlock(t, r, t.TempDir(), 30, 300, start+1)
	deleteSome(t, r, src)
	mustBeClean(t, src)
	toc := func(b []byte) *index.TOC {
		toc, err := index.NewTOCFromByteSlice(byteSlice(b))
		if err != nil {
			t.Fatal(err)
		}
		return toc
	}
	flip := func(name string, at func(b []byte) int) func(testing.TB, string) {
		return func(t testing.TB, dir string) {
			edit(t, dir, name, func(b []byte) []byte { b[at(b)] ^= 0x10; return b })
		}
	}
	swap := func(name string) func(testing.TB, string) {
		return func(t testing.TB, dir string) {
			b, err := os.ReadFile(filepath.Join(other, filepath.FromSlash(name)))
			if err != nil {
				t.Fatal(err)
			}
			edit(t, dir, name, func([]byte) []byte { return b })
		}
	}
	in := func(f func([]byte) []byte) func(testing.TB, string) {
		return func(t testing.TB, dir string) { edit(t, dir, indexName, f) }
	}

	for name, c := range map[string]struct {
		damage func(testing.TB, string)
		place  string // of a finding
		want   string // in its problem
	}{
		"meta missing":          {remove(metaName), "meta.json", "no such file"},
		"meta torn":             {func(t testing.TB, d string) { edit(t, d, metaName, func(b []byte) []byte { return b[:40] }) }, "meta.json", "JSON"},
		"meta version":          {editMeta("version", 2), "meta.json", "version 2"},
		"meta of another block": {swap(metaName), "meta.json", "its ULID is"},
		"meta range":            {editMeta("maxTime", 5), "meta.json", "ends at 5"},
		"meta range short":      {editMeta("maxTime", start+100*step), "chunks/000001", "is outside the block"},
		"meta range late":       {editMeta("minTime", start+100*step), "chunks/000001", "is outside the block"},
		"meta samples":          {editMeta("stats.numSamples", 5), "meta.json", "5 samples"},
		"meta floats":           {editMeta("stats.numFloatSamples", 5), "", ""}, // no longer the sum: not compared
		"meta series":           {editMeta("stats.numSeries", 5), "meta.json", "5 series"},
		"meta chunks":           {editMeta("stats.numChunks", 5), "meta.json", "5 chunks"},

		"tombstones missing": {remove("tombstones"), "tombstones", "no deletions, but"},
		"tombstones flip":    {flip("tombstones", func(b []byte) int { return len(b) / 2 }), "tombstones", "checksum"},
		"tombstones short":   {func(t testing.TB, d string) { edit(t, d, "tombstones", func(b []byte) []byte { return b[:3] }) }, "tombstones", "invalid size"},
		"tombstones swapped": {swap("tombstones"), "tombstones", "no deletions, but"},

		"chunks missing":  {remove("chunks"), "chunks", "directory is missing"},
		"segment missing": {remove("chunks/000001"), "index, series", "segment file is missing"},
		"segment empty":   {func(t testing.TB, d string) { edit(t, d, "chunks/000001", func([]byte) []byte { return nil }) }, "chunks/000001", "empty"},
		"segment magic":   {flip("chunks/000001", func([]byte) int { return 1 }), "chunks/000001", "bad magic number"},
		"segment version": {flip("chunks/000001", func([]byte) int { return 4 }), "chunks/000001", "version 17"},
		"segment truncated": {func(t testing.TB, d string) {
			edit(t, d, "chunks/000001", func(b []byte) []byte { return b[:len(b)-1] })
		}, "chunks/000001", "outside the file"},
		"segment swapped":     {swap("chunks/000001"), "chunks/000001", "checksum"},
		"segment renumbered":  {func(t testing.TB, d string) { os.Rename(d+"/chunks/000001", d+"/chunks/000002") }, "chunks/000002", "name should be 000001"},
		"chunk flip":          {flip("chunks/000001", func(b []byte) int { return len(b) / 2 }), "chunks/000001", "checksum"},
		"chunk length flip":   {flip("chunks/000001", func(b []byte) int { return 8 }), "chunks/000001", "checksum"},
		"chunk crc flip":      {flip("chunks/000001", func(b []byte) int { return len(b) - 1 }), "chunks/000001", "checksum"},
		"index missing":       {remove(indexName), "index", "missing"},
		"index empty":         {in(func([]byte) []byte { return nil }), "index", "empty"},
		"index of other":      {swap(indexName), "index", ""},
		"index magic":         {flip(indexName, func([]byte) int { return 0 }), "index", "bad magic number"},
		"index version":       {flip(indexName, func([]byte) int { return 4 }), "index", "version 18"},
		"index truncated":     {in(func(b []byte) []byte { return b[:len(b)-9] }), "index, table of contents", "checksum"},
		"index toc flip":      {flip(indexName, func(b []byte) int { return len(b) - 20 }), "index, table of contents", "checksum"},
		"index symbols flip":  {flip(indexName, func(b []byte) int { return int(toc(b).Symbols) + 20 }), "index, symbols", "checksum"},
		"index series flip":   {flip(indexName, func(b []byte) int { return int(toc(b).Series+15)/16*16 + 5 }), "index, series at", "checksum"},
		"index series length": {flip(indexName, func(b []byte) int { return int(toc(b).Series+15) / 16 * 16 }), "index", ""},
		"index postings flip": {flip(indexName, func(b []byte) int { return int(toc(b).Postings) + 9 }), "index, postings", "checksum"},
		"index postings crc":  {flip(indexName, func(b []byte) int { return int(toc(b).PostingsTable) - 2 }), "index, postings of", "checksum"},
		"index offsets flip":  {flip(indexName, func(b []byte) int { return int(toc(b).PostingsTable) + 30 }), "index, postings table", "checksum"},
		"index padding":       {flip(indexName, func(b []byte) int { return int(toc(b).Series) }), "index, series", "padding"},
		"symbols not in order": {in(func(b []byte) []byte {
			return editSection(t, b, toc(b).Symbols, func(c []byte) { c[len(c)-1] = 1; c[6] = 0xfe })
		}), "index, symbols", "follows"},
		"postings not in order": {in(func(b []byte) []byte {
			return editSection(t, b, postingsAt(toc(b)), func(c []byte) { copy(c[4:8], c[8:12]) })
		}), `index, postings of ""=""`, "twice"},
		"postings lose one":    {in(func(b []byte) []byte { return editSection(t, b, postingsAt(toc(b)), func(c []byte) { c[len(c)-1]++ }) }), `index, postings of ""=""`, "list has 30 series, but 30 have"},
		"postings count":       {in(func(b []byte) []byte { return editSection(t, b, postingsAt(toc(b)), func(c []byte) { c[3]-- }) }), `index, postings of ""=""`, "29 series has"},
		"series label swapped": {in(func(b []byte) []byte { return editSeries(t, b, func(c []byte) { c[1], c[3] = c[3], c[1] }) }), "index, series {", "labels are not in order"},
		"series symbol":        {in(func(b []byte) []byte { return editSeries(t, b, func(c []byte) { c[2]++ }) }), "index, postings of", "have the label"},
		"series chunk time":    {in(func(b []byte) []byte { return editSeries(t, b, func(c []byte) { c[len(c)-3] ^= 1 }) }), "index, series {", ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir := copyBlock(t, src)
			c.damage(t, dir)
			_, all := verifyAll(t, dir)
			if c.place == "" {
				if len(all) > 0 {
					t.Errorf("findings: %q", all)
				}
				return
			}
			ok := slices.ContainsFunc(all, func(f string) bool {
				place := strings.TrimPrefix(f, filepath.Base(src)+": ")
				if strings.HasPrefix(c.place, "chunks/") {
					place = place[max(strings.Index(place, "chunks/"), 0):]
				}
				return strings.HasPrefix(place, c.place) && strings.Contains(f, c.want)
			})
			if !ok || len(all) > int(levels)*(maxFindings+1) {
				t.Errorf("%d findings, none at %q with %q: %.3000q", len(all), c.place, c.want, all)
			}
		})
	}
}

// postingsAt returns the offset of the first postings list, that of all series.
func postingsAt(toc *index.TOC) uint64 { return (toc.Postings + 3) / 4 * 4 }

// TestVerifyFindsAnyFlippedByte flips a bit of every byte that a reader uses. Verify finds each.
func TestVerifyFindsAnyFlippedByte(t *testing.T) {
	r := rand.New(rand.NewPCG(12, 12))
	src := encodingsBlock(t, r, t.TempDir(), 1000, false)
	for _, name := range []string{indexName, "chunks/000001", "tombstones"} {
		b, err := os.ReadFile(filepath.Join(src, filepath.FromSlash(name)))
		if err != nil {
			t.Fatal(err)
		}
		dir := copyBlock(t, src)
		for range 300 {
			at := r.IntN(len(b))
			bad := bytes.Clone(b)
			bad[at] ^= 1 << r.IntN(8)
			if err := os.WriteFile(filepath.Join(dir, filepath.FromSlash(name)), bad, 0o666); err != nil {
				t.Fatal(err)
			}
			if _, all := verifyAll(t, dir); len(all) == 0 && !harmless(name, at, b) {
				t.Errorf("%s: a flip at %d of %d is not found", name, at, len(b))
			}
		}
	}
}

// harmless reports whether no reader uses a byte: the padding of a segment's header and between
// postings lists, and the format byte of tombstones, which the checksum does not cover.
func harmless(name string, at int, b []byte) bool {
	switch name {
	case "chunks/000001":
		return at >= 5 && at < 8
	case indexName:
		toc, err := index.NewTOCFromByteSlice(byteSlice(b))
		return err == nil && (uint64(at) >= toc.Postings && uint64(at) < toc.PostingsTable && b[at] == 0)
	}
	return false
}

// TestVerifyReadsSamples verifies chunks with good checksums and invalid contents.
func TestVerifyReadsSamples(t *testing.T) {
	xor := func(points ...point) editedChunk { return editedChunk{encode(t, chunkenc.EncXOR, points)[0]} }
	a, b, c := point{t: 100, f: 1}, point{t: 200, f: 2}, point{t: 300, f: 3}
	for name, tc := range map[string]struct {
		chunks []editedChunk
		want   string
	}{
		"sound":     {[]editedChunk{xor(a, b, c)}, ""},
		"count":     {[]editedChunk{xor(a, b, c).with(func(m *chunks.Meta, d []byte) []byte { d[1] = 40; return d })}, "decoded (encoding XOR) after"},
		"few":       {[]editedChunk{xor(a, b, c).with(func(m *chunks.Meta, d []byte) []byte { d[1] = 2; return d })}, "samples are from 100 to 200, but the index has 100 to 300"},
		"none":      {[]editedChunk{xor(a, b, c).with(func(m *chunks.Meta, d []byte) []byte { d[1] = 0; return d })}, "no samples"},
		"torn":      {[]editedChunk{xor(a, b, c).with(func(m *chunks.Meta, d []byte) []byte { return d[:6] })}, "cannot be decoded"},
		"one byte":  {[]editedChunk{xor(a, b, c).with(func(m *chunks.Meta, d []byte) []byte { return d[:1] })}, "cannot be decoded"},
		"start":     {[]editedChunk{xor(a, b).with(func(m *chunks.Meta, d []byte) []byte { m.MinTime--; return d })}, "the index has 99 to 200"},
		"end":       {[]editedChunk{xor(a, b).with(func(m *chunks.Meta, d []byte) []byte { m.MaxTime++; return d })}, "but the index has 100 to 201"},
		"backwards": {[]editedChunk{xor(a, c, b, point{t: 400})}, "sample 3 at 200 follows one at 300"},
		"twice":     {[]editedChunk{xor(a, b, b, c)}, "sample 3 at 200"},
		"short":     {[]editedChunk{xor(a, b).with(func(m *chunks.Meta, d []byte) []byte { return []byte{0, 2, 0} })}, "cannot be decoded"},
	} {
		t.Run(name, func(t *testing.T) {
			w, err := newWriter(Spec{Parent: t.TempDir(), MaxTime: 1000})
			if err != nil {
				t.Fatal(err)
			}
			defer w.discard()
			var metas []chunks.Meta
			for _, c := range tc.chunks {
				metas = append(metas, c.meta)
			}
			if err := w.addSeries(labels.FromStrings("a", "b"), metas); err != nil {
				t.Fatal(err)
			}
			built, err := w.finish(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			_, all := verifyAll(t, built.Dir)
			switch {
			case tc.want == "" && len(all) == 0:
			case tc.want == "" || len(all) != 1 || !strings.Contains(all[0], tc.want) ||
				!strings.Contains(all[0], `index, series {a="b"}, chunk 1 (chunks/000001 at 8)`):
				t.Errorf("findings %q, want one with %q", all, tc.want)
			}
		})
	}
}

// editedChunk is a chunk whose bytes differ from what an encoder writes.
type editedChunk struct {
	meta chunks.Meta
}

func (w editedChunk) with(change func(*chunks.Meta, []byte) []byte) editedChunk {
	d := change(&w.meta, bytes.Clone(w.meta.Chunk.Bytes()))
	w.meta.Chunk = &rawChunk{enc: w.meta.Chunk.Encoding(), data: d}
	return w
}

func TestVerifyCountsUnlistedFindings(t *testing.T) {
	src := libraryBlock(t, rand.New(rand.NewPCG(3, 4)), t.TempDir(), 60, 200, 1_000_000)
	remove("chunks/000001")(t, src)
	_, all := verifyAll(t, src)
	if len(all) != maxFindings+1 || !strings.Contains(all[maxFindings], "more problems") {
		t.Errorf("%d findings, the last is %q", len(all), all[len(all)-1])
	}
}

func TestVerifyStagingDirectory(t *testing.T) {
	src := libraryBlock(t, rand.New(rand.NewPCG(3, 4)), t.TempDir(), 5, 20, 1_000_000)
	staged := src + ".tmp-for-creation"
	if err := os.Rename(src, staged); err != nil {
		t.Fatal(err)
	}
	mustBeClean(t, staged)
}

func TestVerifyErrors(t *testing.T) {
	src := libraryBlock(t, rand.New(rand.NewPCG(3, 4)), t.TempDir(), 5, 20, 1_000_000)
	none := func(f Finding) { t.Error("finding:", f) }
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Verify(ctx, src, none); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if _, err := Verify(t.Context(), filepath.Join(src, "nowhere"), none); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	if _, err := Verify(t.Context(), filepath.Join(src, metaName), none); err == nil {
		t.Error("no error for a file")
	}
}

func FuzzVerifyIndex(f *testing.F) {
	src := encodingsBlock(f, rand.New(rand.NewPCG(1, 1)), f.TempDir(), 1000, true)
	b, err := os.ReadFile(filepath.Join(src, indexName))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b, uint16(0), uint16(0))
	f.Add(b[:100], uint16(3), uint16(9))
	dir := copyBlock(f, src)
	f.Fuzz(func(t *testing.T, data []byte, at, value uint16) {
		// The fuzzer cannot guess checksums: correct that of the table of contents and of the
		// section with the offset at.
		if toc, err := index.NewTOCFromByteSlice(byteSlice(data)); err == nil && len(data) > 60 {
			data = bytes.Clone(data)
			for _, off := range []uint64{toc.Symbols, toc.PostingsTable, postingsAt(toc)} {
				if off+8 > uint64(len(data)) {
					continue
				}
				if n := uint64(binary.BigEndian.Uint32(data[off:])); n > 0 && off+8+n <= uint64(len(data)) {
					c := data[off+4 : off+4+n]
					c[uint64(at)%n] = byte(value)
					binary.BigEndian.PutUint32(data[off+4+n:], castagnoli(c))
				}
			}
			toc := data[len(data)-52:]
			if value&0x100 != 0 {
				toc[at%48] ^= byte(value)
			}
			binary.BigEndian.PutUint32(toc[48:], castagnoli(toc[:48]))
		}
		if err := os.WriteFile(filepath.Join(dir, indexName), data, 0o666); err != nil {
			t.Fatal(err)
		}
		verifyAll(t, dir)
	})
}

func BenchmarkVerify(b *testing.B) {
	w, err := newWriter(Spec{Parent: b.TempDir(), MaxTime: 480 * step})
	if err != nil {
		b.Fatal(err)
	}
	var points [4][]point
	for i := range 480 {
		points[i/120] = append(points[i/120], point{t: int64(i) * step, f: float64(i * i % 1000)})
	}
	var metas []chunks.Meta
	for _, p := range points {
		metas = append(metas, encode(b, chunkenc.EncXOR, p)...)
	}
	for i := range 20_000 {
		if err := w.addSeries(labels.FromStrings("__name__", "m", "id", fmt.Sprintf("%06d", i), "job", "x"), metas); err != nil {
			b.Fatal(err)
		}
	}
	built, err := w.finish(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	size := int64(0)
	for _, f := range built.Files {
		size += f.Size
	}
	b.SetBytes(size)
	for b.Loop() {
		if stats := mustBeClean(b, built.Dir); stats.Samples != 20_000*480 {
			b.Fatal(stats)
		}
	}
	b.ReportMetric(float64(20_000*480*b.N)/b.Elapsed().Seconds()/1e6, "Msamples/s")
}
