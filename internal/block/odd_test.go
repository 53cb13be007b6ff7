package block

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"

	"github.com/promdump/promdump/internal/tsdbtest"
)

const clean = levels // no finding

// handBlock returns a block from 1000 to 2000 with the series.
func handBlock(series ...tsdbtest.HandSeries) tsdbtest.HandBlock {
	return tsdbtest.HandBlock{
		Meta:   tsdb.BlockMeta{ULID: ulid.MustParse("01M85DMB02F1W7GY3RF1W7GY3R"), MinTime: 1000, MaxTime: 2000},
		Series: series,
	}
}

func handSeries(name string, chunks ...tsdbtest.HandChunk) tsdbtest.HandSeries {
	return tsdbtest.HandSeries{Labels: []string{"__name__", name, "job", "a"}, Chunks: chunks}
}

// TestVerifyJudgesAsPrometheus compares the worst finding with the TSDB library: Unloadable if the
// library cannot open the block, Unreadable if it cannot read or find a sample, Odd or none if it
// serves every sample.
func TestVerifyJudgesAsPrometheus(t *testing.T) {
	type hand = tsdbtest.HandBlock
	float := func(tv ...float64) tsdbtest.HandChunk { return tsdbtest.FloatChunk(t, tv...) }
	one, two, three := float(1000, 1, 1100, 2), float(1200, 3, 1300, 4), float(1400, 5, 1500, 6)
	good := []tsdbtest.HandSeries{handSeries("m1", one, two, three), handSeries("m2", one), handSeries("m3", two, three)}
	with := func(change func(b *hand)) hand {
		b := handBlock(slices.Clone(good)...)
		change(&b)
		return b
	}
	chunk := func(change func(c *tsdbtest.HandChunk)) hand {
		c := two
		c.Data = slices.Clone(c.Data)
		change(&c)
		return handBlock(handSeries("m", one, c, three))
	}
	chunksOf := func(c ...tsdbtest.HandChunk) hand { return handBlock(handSeries("m", c...)) }
	labels := func(l ...string) hand { return handBlock(tsdbtest.HandSeries{Labels: l, Chunks: good[0].Chunks}) }
	lists := func(change func(p []tsdbtest.HandPostings) []tsdbtest.HandPostings) hand {
		return with(func(b *hand) { b.Postings = change })
	}
	refs := func(value string, change func([]uint32) []uint32) hand {
		return lists(func(p []tsdbtest.HandPostings) []tsdbtest.HandPostings {
			for i := range p {
				if p[i].Value == value {
					p[i].Refs = change(slices.Clone(p[i].Refs))
				}
			}
			return p
		})
	}
	histogram := encode(t, chunkenc.EncHistogram, []point{histograms.point(rand.New(rand.NewPCG(1, 1)), 0, 1200), histograms.point(rand.New(rand.NewPCG(1, 1)), 1, 1300)})[0]
	other := ulid.MustParse("01M85DMB02F1W7GY3RF1W7GY3S")
	none := func(testing.TB, string) {}
	set := func(name string, data ...byte) func(testing.TB, string) {
		return func(t testing.TB, dir string) { edit(t, dir, name, func([]byte) []byte { return data }) }
	}

	for name, c := range map[string]struct {
		block  hand
		damage func(testing.TB, string) // after it is written
		level  Level
		want   string // in a finding of the level
	}{
		"sound": {with(func(*hand) {}), none, clean, ""},

		// meta.json
		"no stats":              {with(func(b *hand) { b.NoStats = true }), none, Odd, "no statistics"},
		"wrong stats":           {with(func(b *hand) { b.Meta.Stats.NumSamples = 1 }), none, Odd, "1 samples, but the block has 12"},
		"another's name":        {with(func(*hand) {}), editMeta("ulid", other.String()), Odd, "its ULID is"},
		"ends before it starts": {with(func(b *hand) { b.Meta.MaxTime = 900 }), none, Odd, "ends at 900"},
		"no time":               {with(func(b *hand) { b.Meta.MaxTime = b.Meta.MinTime }), none, Odd, "ends at 1000"},
		"ends too early":        {with(func(b *hand) { b.Meta.MaxTime = 1450 }), none, Odd, "is outside the block"},
		"ends with a sample":    {with(func(b *hand) { b.Meta.MaxTime = 1500 }), none, Odd, "is outside the block"},
		"starts too late":       {with(func(b *hand) { b.Meta.MinTime = 1050 }), none, Odd, "is outside the block"},
		"version":               {with(func(b *hand) { b.Meta.Version = 3 }), none, Unloadable, "version 3"},
		"no meta":               {with(func(*hand) {}), remove(metaName), Unloadable, "no such file"},
		"empty meta":            {with(func(*hand) {}), set(metaName), Unloadable, "JSON"},
		"deletable":             {with(func(b *hand) { b.Meta.Compaction.Deletable = true }), none, Unreadable, "deletes it"},
		"its own parent": {with(func(b *hand) { b.Meta.Compaction.Parents = []tsdb.BlockDesc{{ULID: b.Meta.ULID}} }), none,
			Unreadable, "deletes it"},
		"failed compaction": {with(func(b *hand) { b.Meta.Compaction.Failed = true }), none, clean, ""},

		// The files
		"no chunks directory":    {with(func(*hand) {}), remove("chunks"), Unloadable, "directory is missing"},
		"no chunks":              {with(func(*hand) {}), remove("chunks/000001"), Unreadable, "segment file is missing"},
		"empty segment":          {with(func(*hand) {}), set("chunks/000001"), Unloadable, "empty"},
		"short segment":          {with(func(*hand) {}), set("chunks/000001", 0x85, 0xbd, 0x40, 0xdd, 1), Unloadable, "shorter"},
		"segment of nothing":     {with(func(*hand) {}), set("chunks/000001", 1, 2, 3, 4, 5, 6, 7, 8, 9), Unloadable, "bad magic number"},
		"segment version":        {with(func(*hand) {}), set("chunks/000001", 0x85, 0xbd, 0x40, 0xdd, 2, 0, 0, 0), Unloadable, "version 2"},
		"unused empty segment":   {with(func(*hand) {}), add("chunks/000002"), Unloadable, "empty"},
		"unused segment":         {with(func(*hand) {}), add("chunks/000002", 0x85, 0xbd, 0x40, 0xdd, 1, 0, 0, 0), clean, ""},
		"file beside segments":   {with(func(*hand) {}), add("chunks/000001.tmp"), clean, ""},
		"segment number":         {with(func(*hand) {}), rename("chunks/000001", "chunks/000007"), Odd, "name should be 000001"},
		"long segment number":    {with(func(*hand) {}), rename("chunks/000001", "chunks/00000001"), Odd, "name should be 000001"},
		"no index":               {with(func(*hand) {}), remove(indexName), Unloadable, "missing"},
		"empty index":            {with(func(*hand) {}), set(indexName), Unloadable, "empty"},
		"index version 1":        {with(func(b *hand) { b.Version = 1 }), none, clean, ""},
		"index version 3":        {with(func(b *hand) { b.Version = 3 }), none, clean, ""},
		"index version 9":        {with(func(b *hand) { b.Version = 9 }), none, Unloadable, "version 9"},
		"torn index":             {with(func(*hand) {}), tear(indexName, 40), Unloadable, "checksum"},
		"no tombstones":          {with(func(*hand) {}), remove("tombstones"), clean, ""},
		"no tombstones, counted": {with(func(b *hand) { b.Meta.Stats.NumTombstones = 2 }), none, Odd, "no deletions, but"},
		"empty tombstones":       {with(func(*hand) {}), set("tombstones"), Unloadable, "size"},
		"torn tombstones":        {with(func(b *hand) { b.Deletions = []tsdbtest.HandDeletion{{MinTime: 7, MaxTime: 9}} }), tear("tombstones", 5), Unloadable, "tombstones"},
		"tombstones of nothing": {with(func(b *hand) { b.Deletions = []tsdbtest.HandDeletion{{MinTime: 7, MaxTime: 9}} }), func(t testing.TB, d string) {
			edit(t, d, "tombstones", func(b []byte) []byte {
				b[5] = 99
				binary.BigEndian.PutUint32(b[len(b)-4:], castagnoli(b[5:len(b)-4]))
				return b
			})
		}, Odd, "not in the index"},
		"inverted deletion": {with(func(b *hand) { b.Deletions = []tsdbtest.HandDeletion{{MinTime: 1300, MaxTime: 1200}} }), none, clean, ""},
		"deletion to the end of time": {with(func(b *hand) {
			b.Deletions = []tsdbtest.HandDeletion{{MinTime: 10, MaxTime: 20}, {MinTime: 40, MaxTime: 50}, {MinTime: 30, MaxTime: math.MaxInt64}}
		}), none, Unloadable, "malformed"},

		// The index
		"nothing":               {handBlock(), none, Odd, "no series"},
		"no labels":             {labels(), none, Odd, "no labels"},
		"labels not in order":   {labels("__name__", "m", "zone", "z", "job", "a"), none, Odd, "not in order"},
		"label twice":           {labels("__name__", "m", "job", "a", "job", "b"), none, Odd, "duplicate label"},
		"same label twice":      {labels("__name__", "m", "job", "a", "job", "a"), none, Odd, "duplicate label"},
		"series not in order":   {handBlock(good[1], good[0], good[2]), none, Odd, "follows"},
		"series twice":          {handBlock(good[0], good[0], good[2]), none, Odd, "follows"},
		"bytes behind an entry": {with(func(b *hand) { b.Series[1].Rest = []byte{1, 2} }), none, Odd, "2 unused bytes"},
		"no chunks of a series": {with(func(b *hand) { b.Series[1].Chunks = nil }), none, Odd, "no chunks"},
		"symbols not in order":  {with(func(b *hand) { b.Symbols = func(s []string) []string { s[3], s[4] = s[4], s[3]; return s } }), none, Odd, "follows"},
		"symbols backwards":     {with(func(b *hand) { b.Symbols = func(s []string) []string { slices.Reverse(s); return s } }), none, Unloadable, "cannot be opened"},
		"symbol twice":          {with(func(b *hand) { b.Symbols = func(s []string) []string { return append(s, "m3") } }), none, Odd, "follows"},
		"symbol missing":        {with(func(b *hand) { b.Symbols = func(s []string) []string { return s[:len(s)-1] } }), none, Unreadable, "not in the table"},
		"symbols behind":        {with(func(b *hand) { b.Symbols = func(s []string) []string { return append(s, "x", "y") } }), none, clean, ""},
		"padding":               {with(func(*hand) {}), func(t testing.TB, d string) { edit(t, d, indexName, padding) }, Odd, "padding"},
		"all without one":       {refs("", func(r []uint32) []uint32 { return r[:2] }), none, Unreadable, "1 are missing"},
		"all with another":      {refs("", func(r []uint32) []uint32 { return append(r, 999) }), none, Unreadable, "not in the index"},
		"label without one":     {refs("a", func(r []uint32) []uint32 { return r[1:] }), none, Unreadable, "1 are missing"},
		"label with another":    {lists(func(p []tsdbtest.HandPostings) []tsdbtest.HandPostings { p[1].Refs = p[0].Refs; return p }), none, Odd, "but 1 have"},
		"list with one twice":   {refs("a", func(r []uint32) []uint32 { return append(r, r[2]) }), none, Odd, "twice"},
		"list not in order":     {refs("a", func(r []uint32) []uint32 { r[0], r[2] = r[2], r[0]; return r }), none, Unreadable, "not in order"},
		"no list of a label":    {lists(func(p []tsdbtest.HandPostings) []tsdbtest.HandPostings { return p[:len(p)-1] }), none, Unreadable, "missing"},
		"no list of all":        {lists(func(p []tsdbtest.HandPostings) []tsdbtest.HandPostings { return p[1:] }), none, Unreadable, "no list of all"},
		"list of no label": {lists(func(p []tsdbtest.HandPostings) []tsdbtest.HandPostings {
			return append(p, tsdbtest.HandPostings{Name: "job", Value: "z"})
		}), none, clean, ""},
		"list of no label's value": {lists(func(p []tsdbtest.HandPostings) []tsdbtest.HandPostings {
			return append(p, tsdbtest.HandPostings{Name: "job", Value: "z", Refs: p[1].Refs})
		}), none, Odd, "but 0 have"},
		"list of no label's name": {lists(func(p []tsdbtest.HandPostings) []tsdbtest.HandPostings {
			return append(p, tsdbtest.HandPostings{Name: "zzz", Value: "z"})
		}), none, Unloadable, "cannot be opened"},
		"lists of names mixed": {lists(func(p []tsdbtest.HandPostings) []tsdbtest.HandPostings {
			slices.Reverse(p)
			return p
		}), none, Unreadable, "does not find the list"},
		"list of all last": {lists(func(p []tsdbtest.HandPostings) []tsdbtest.HandPostings { return append(p[1:], p[0]) }), none, Odd, "follows that of"},

		// The chunks
		"chunks touch":            {chunksOf(one, float(1100, 7, 1300, 8)), none, Odd, "an earlier one at 1100"},
		"chunks overlap":          {chunksOf(one, float(1050, 7, 1300, 8)), none, Odd, "an earlier one at 1100"},
		"chunks not in order":     {chunksOf(two, one, three), none, Odd, "an earlier one at 1300"},
		"chunk twice":             {chunksOf(one, one), none, Odd, "an earlier one at 1100"},
		"chunk in a chunk":        {chunksOf(float(1000, 1, 1500, 2), one, two), none, Odd, "an earlier one at 1500"},
		"time twice":              {chunksOf(float(1000, 1, 1100, 2, 1100, 2, 1200, 3)), none, Odd, "sample 3 at 1100"},
		"time backwards":          {chunksOf(float(1000, 1, 1300, 2, 1200, 2, 1400, 3)), none, Odd, "sample 3 at 1200"},
		"no samples":              {chunksOf(one, tsdbtest.HandChunk{MinTime: 1200, MaxTime: 1200, Encoding: chunkenc.EncXOR, Data: []byte{0, 0}}), none, Odd, "no samples"},
		"no histograms":           {chunksOf(one, tsdbtest.HandChunk{MinTime: 1200, MaxTime: 1200, Encoding: chunkenc.EncHistogram, Data: []byte{0, 0, 0}}), none, Odd, "no samples"},
		"no bytes":                {chunksOf(one, tsdbtest.HandChunk{MinTime: 1200, MaxTime: 1200, Encoding: chunkenc.EncXOR}), none, Unreadable, "decoded"},
		"one byte":                {chunksOf(one, tsdbtest.HandChunk{MinTime: 1200, MaxTime: 1200, Encoding: chunkenc.EncXOR, Data: []byte{0}}), none, Unreadable, "decoded"},
		"more samples than bytes": {chunk(func(c *tsdbtest.HandChunk) { c.Data[1] = 200 }), none, Unreadable, "decoded (encoding XOR) after"},
		"fewer samples":           {chunk(func(c *tsdbtest.HandChunk) { c.Data[1] = 1 }), none, Odd, "samples are from 1200 to 1200, but the index has 1200 to 1300"},
		"starts later":            {chunk(func(c *tsdbtest.HandChunk) { c.MinTime = 1150 }), none, Odd, "the index has 1150"},
		"ends earlier":            {chunk(func(c *tsdbtest.HandChunk) { c.MaxTime = 1350 }), none, Odd, "to 1350"},
		"ends before its start":   {chunk(func(c *tsdbtest.HandChunk) { c.MinTime, c.MaxTime = 1300, 1200 }), none, Odd, "the index has 1300 to 1200"},
		"torn":                    {chunk(func(c *tsdbtest.HandChunk) { c.Data = c.Data[:8] }), none, Unreadable, "decoded"},
		"torn histogram": {chunk(func(c *tsdbtest.HandChunk) {
			c.Encoding, c.Data = histogram.Chunk.Encoding(), histogram.Chunk.Bytes()[:len(histogram.Chunk.Bytes())-2]
		}), none, Unreadable, "decoded"},
		"no such segment":  {chunk(func(c *tsdbtest.HandChunk) { c.Ref = chunks.ChunkRef(chunks.NewBlockChunkRef(3, 8)) }), none, Unreadable, "segment file is missing"},
		"outside the file": {chunk(func(c *tsdbtest.HandChunk) { c.Ref = 5000 }), none, Unreadable, "outside the file"},
		"within a chunk":   {chunk(func(c *tsdbtest.HandChunk) { c.Ref = 12 }), none, Unreadable, ""},
		"two segments":     {chunk(func(c *tsdbtest.HandChunk) { c.Segment = 1 }), none, clean, ""},
		"chunk of another": {chunk(func(c *tsdbtest.HandChunk) { c.Ref = 8 }), none, Odd, "the index has 1200"},
		"flipped": {with(func(*hand) {}), func(t testing.TB, d string) {
			edit(t, d, "chunks/000001", func(b []byte) []byte { b[20] ^= 1; return b })
		}, Unreadable, "checksum"},
		"truncated segment": {with(func(*hand) {}), tear("chunks/000001", 3), Unreadable, "outside the file"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := c.block.Write(t, t.TempDir())
			c.damage(t, dir)
			var findings []Finding
			stats, err := Verify(t.Context(), dir, func(f Finding) { findings = append(findings, f) })
			if err != nil {
				t.Fatal(err)
			}
			worst := clean
			for _, f := range findings {
				worst = min(worst, f.Level)
			}
			verdict := tsdbtest.Judge(t, dir)
			judged := Odd
			switch {
			case verdict.Deleted:
				judged = Unreadable
			case verdict.Load != nil:
				judged = Unloadable
			case verdict.Read != nil, verdict.Missed > 0, verdict.Served.Count() < promised(c.block):
				judged = Unreadable
			}
			if judged != min(worst, Odd) {
				t.Errorf("Verify finds %v, Prometheus %v (%+v): %q", worst, judged, verdict, findings)
			}
			if judged == Odd && stats.Samples != uint64(verdict.Served.Count()) {
				t.Errorf("Verify counts %d samples, Prometheus serves %d", stats.Samples, verdict.Served.Count())
			}
			if worst != c.level || c.level != clean && !slices.ContainsFunc(findings, func(f Finding) bool {
				return f.Level == c.level && strings.Contains(f.String(), c.want)
			}) {
				t.Errorf("Verify finds %v: %q, want %v with %q", worst, findings, c.level, c.want)
			}
		})
	}
}

// promised returns the number of samples in the headers of a block's chunks. Prometheus skips a
// chunk that it cannot decode, without an error unless it is the last of its series.
func promised(b tsdbtest.HandBlock) (n int) {
	for _, s := range b.Series {
		for _, c := range s.Chunks {
			n += sampleCount(c.Encoding, c.Data)
		}
	}
	return n
}

func add(name string, data ...byte) func(testing.TB, string) {
	return func(t testing.TB, dir string) {
		if err := os.WriteFile(filepath.Join(dir, filepath.FromSlash(name)), data, 0o666); err != nil {
			t.Fatal(err)
		}
	}
}

func rename(from, to string) func(testing.TB, string) {
	return func(t testing.TB, dir string) {
		if err := os.Rename(filepath.Join(dir, filepath.FromSlash(from)), filepath.Join(dir, filepath.FromSlash(to))); err != nil {
			t.Fatal(err)
		}
	}
}

// tear returns a function that removes n bytes from the end of a file.
func tear(name string, n int) func(testing.TB, string) {
	return func(t testing.TB, dir string) { edit(t, dir, name, func(b []byte) []byte { return b[:len(b)-n] }) }
}

// padding changes the last byte before the second series.
func padding(b []byte) []byte {
	toc, err := index.NewTOCFromByteSlice(byteSlice(b))
	if err != nil {
		panic(err)
	}
	at := (toc.Series + 15) / 16 * 16
	n, k := binary.Uvarint(b[at:])
	b[(at+uint64(k)+n+4+15)/16*16-1] = 1
	return b
}
