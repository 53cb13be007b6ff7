package tsdbtest

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"
	"github.com/prometheus/prometheus/tsdb/tombstones"
)

// HandBlock describes a block that is written without Prometheus' writers. It can have what these reject,
// but older servers, backfill tools and damaged disks leave behind. All checksums are good.
type HandBlock struct {
	Meta    tsdb.BlockMeta // its ULID is the name of the directory; Write sets zero statistics
	NoStats bool           // writes no statistics
	Version byte           // of the index; 0 is 2
	Series  []HandSeries   // in the order of the index

	Symbols   func([]string) []string             // if not nil, changes the sorted symbols
	Postings  func([]HandPostings) []HandPostings // if not nil, changes the sorted postings
	Deletions []HandDeletion                      // in the order of the tombstones file
}

// HandSeries is an entry of the index.
type HandSeries struct {
	Labels []string // name, value, name, value, … written in this order
	Chunks []HandChunk
	Rest   []byte // unused bytes at the end of the entry
}

// HandChunk is a chunk and its entry in the index.
type HandChunk struct {
	MinTime, MaxTime int64
	Encoding         chunkenc.Encoding
	Data             []byte
	Segment          int             // counts from 0
	Ref              chunks.ChunkRef // if not 0, replaces the real reference
}

// HandPostings is a postings list. Refs are offsets divided by 16, or offsets in version 1.
type HandPostings struct {
	Name, Value string
	Refs        []uint32
}

// HandDeletion is an entry of the tombstones file.
type HandDeletion struct {
	Series           int // index in HandBlock.Series
	MinTime, MaxTime int64
}

// FloatChunk returns a chunk of the pairs of times and values tv, in the given order and without checks.
// Its times in the index are those of the first and the last sample.
func FloatChunk(t testing.TB, tv ...float64) HandChunk {
	t.Helper()
	c := chunkenc.NewXORChunk()
	app, err := c.Appender()
	if err != nil {
		t.Fatal(err)
	}
	out := HandChunk{Encoding: chunkenc.EncXOR}
	for i := 0; i+1 < len(tv); i += 2 {
		app.Append(0, int64(tv[i]), tv[i+1])
		if i == 0 {
			out.MinTime = int64(tv[i])
		}
		out.MaxTime = int64(tv[i])
	}
	out.Data = c.Bytes()
	return out
}

// Write writes the block into a directory in parent and returns its path.
func (b HandBlock) Write(t testing.TB, parent string) string {
	t.Helper()
	dir := filepath.Join(parent, b.Meta.ULID.String())
	file := func(name string, data []byte) {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	refs, segments := b.segments()
	for i, data := range segments {
		file(fmt.Sprintf("chunks/%06d", i+1), data)
	}
	data, series := b.index(refs)
	file("index", data)
	file("tombstones", b.tombstones(series))
	b.Meta.Version = cmp.Or(b.Meta.Version, 1)
	b.Meta.Compaction.Level = cmp.Or(b.Meta.Compaction.Level, 1)
	if b.Meta.Compaction.Sources == nil {
		b.Meta.Compaction.Sources = []ulid.ULID{b.Meta.ULID}
	}
	if stats := &b.Meta.Stats; !b.NoStats && *stats == (tsdb.BlockStats{}) {
		stats.NumSeries = uint64(len(b.Series))
		for _, s := range b.Series {
			stats.NumChunks += uint64(len(s.Chunks))
			for _, c := range s.Chunks {
				if chk, err := chunkenc.FromData(c.Encoding, c.Data); err == nil && len(c.Data) > 1 {
					stats.NumSamples += uint64(chk.NumSamples())
				} else if len(c.Data) > 1 {
					stats.NumSamples += uint64(binary.BigEndian.Uint16(c.Data))
				}
			}
		}
	}
	text, err := json.Marshal(b.Meta)
	if err != nil {
		t.Fatal(err)
	}
	file("meta.json", text)
	return dir
}

func sum(b []byte) []byte {
	return binary.BigEndian.AppendUint32(nil, crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
}

func (b HandBlock) segments() (refs [][]chunks.ChunkRef, files [][]byte) {
	for _, s := range b.Series {
		var of []chunks.ChunkRef
		for _, c := range s.Chunks {
			for c.Segment >= len(files) {
				files = append(files, binary.BigEndian.AppendUint32(nil, chunks.MagicChunks))
				files[len(files)-1] = append(files[len(files)-1], 1, 0, 0, 0)
			}
			f := &files[c.Segment]
			ref := chunks.ChunkRef(chunks.NewBlockChunkRef(uint64(c.Segment), uint64(len(*f))))
			of = append(of, cmp.Or(c.Ref, ref))
			*f = binary.AppendUvarint(*f, uint64(len(c.Data)))
			body := append([]byte{byte(c.Encoding)}, c.Data...)
			*f = append(append(*f, body...), sum(body)...)
		}
		refs = append(refs, of)
	}
	if files == nil {
		files = [][]byte{append(binary.BigEndian.AppendUint32(nil, chunks.MagicChunks), 1, 0, 0, 0)}
	}
	return refs, files
}

func (b HandBlock) tombstones(series []uint32) []byte {
	var body []byte
	for _, d := range b.Deletions {
		body = binary.AppendUvarint(body, uint64(series[d.Series]))
		body = binary.AppendVarint(body, d.MinTime)
		body = binary.AppendVarint(body, d.MaxTime)
	}
	out := append(binary.BigEndian.AppendUint32(nil, tombstones.MagicTombstone), 1)
	return append(append(out, body...), sum(body)...)
}

// index returns the bytes of the index and the refs of the series.
func (b HandBlock) index(refs [][]chunks.ChunkRef) ([]byte, []uint32) {
	version := cmp.Or(b.Version, 2)
	out := append(binary.BigEndian.AppendUint32(nil, index.MagicIndex), version)
	section := func(body []byte) {
		out = binary.BigEndian.AppendUint32(out, uint32(len(body)))
		out = append(append(out, body...), sum(body)...)
	}
	align := func(n int) {
		for len(out)%n != 0 {
			out = append(out, 0)
		}
	}
	toc := index.TOC{Symbols: uint64(len(out))}

	known := map[string]bool{}
	for _, s := range b.Series {
		for _, str := range s.Labels {
			known[str] = true
		}
	}
	symbols := slices.Sorted(maps.Keys(known))
	if b.Symbols != nil {
		symbols = b.Symbols(symbols)
	}
	at := map[string]uint64{}
	body := binary.BigEndian.AppendUint32(nil, uint32(len(symbols)))
	for i, s := range symbols {
		at[s] = uint64(i)
		if version == 1 { // by offset
			at[s] = uint64(len(out) + 4 + len(body))
		}
		body = append(binary.AppendUvarint(body, uint64(len(s))), s...)
	}
	section(body)
	symbol := func(s string) uint64 {
		if v, ok := at[s]; ok {
			return v
		}
		return 1 << 20 // an invalid reference
	}

	toc.Series = uint64(len(out))
	unit := 16
	if version == 1 {
		unit = 1
	}
	var places []uint32
	lists := map[[2]string][]uint32{}
	for i, s := range b.Series {
		align(unit)
		ref := uint32(len(out) / unit)
		places = append(places, ref)
		body := binary.AppendUvarint(nil, uint64(len(s.Labels)/2))
		lists[[2]string{}] = append(lists[[2]string{}], ref)
		for j := 0; j < len(s.Labels); j += 2 {
			pair := [2]string{s.Labels[j], s.Labels[j+1]}
			body = binary.AppendUvarint(body, symbol(pair[0]))
			body = binary.AppendUvarint(body, symbol(pair[1]))
			if l := lists[pair]; len(l) == 0 || l[len(l)-1] != ref {
				lists[pair] = append(l, ref)
			}
		}
		body = binary.AppendUvarint(body, uint64(len(s.Chunks)))
		for j, c := range s.Chunks {
			if j == 0 {
				body = binary.AppendVarint(body, c.MinTime)
				body = binary.AppendUvarint(body, uint64(c.MaxTime-c.MinTime))
				body = binary.AppendUvarint(body, uint64(refs[i][0]))
				continue
			}
			body = binary.AppendUvarint(body, uint64(c.MinTime-s.Chunks[j-1].MaxTime)) // wraps around for overlapping chunks
			body = binary.AppendUvarint(body, uint64(c.MaxTime-c.MinTime))
			body = binary.AppendVarint(body, int64(refs[i][j]-refs[i][j-1]))
		}
		body = append(body, s.Rest...)
		out = binary.AppendUvarint(out, uint64(len(body)))
		out = append(append(out, body...), sum(body)...)
	}

	toc.LabelIndices = uint64(len(out))
	toc.Postings = uint64(len(out))
	var table []HandPostings
	if lists[[2]string{}] == nil {
		lists[[2]string{}] = nil
	}
	for pair, refs := range lists {
		table = append(table, HandPostings{pair[0], pair[1], refs})
	}
	slices.SortFunc(table, func(a, b HandPostings) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Value, b.Value)) })
	if b.Postings != nil {
		table = b.Postings(table)
	}
	offsets := binary.BigEndian.AppendUint32(nil, uint32(len(table)))
	for _, p := range table {
		align(4)
		offsets = append(offsets, 2)
		offsets = append(binary.AppendUvarint(offsets, uint64(len(p.Name))), p.Name...)
		offsets = append(binary.AppendUvarint(offsets, uint64(len(p.Value))), p.Value...)
		offsets = binary.AppendUvarint(offsets, uint64(len(out)))
		list := binary.BigEndian.AppendUint32(nil, uint32(len(p.Refs)))
		for _, r := range p.Refs {
			list = binary.BigEndian.AppendUint32(list, r)
		}
		section(list)
	}
	toc.LabelIndicesTable = uint64(len(out))
	section(make([]byte, 4))
	toc.PostingsTable = uint64(len(out))
	section(offsets)

	var end []byte
	for _, v := range []uint64{toc.Symbols, toc.Series, toc.LabelIndices, toc.LabelIndicesTable, toc.Postings, toc.PostingsTable} {
		end = binary.BigEndian.AppendUint64(end, v)
	}
	return append(append(out, end...), sum(end)...), places
}
