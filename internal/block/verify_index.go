package block

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/encoding"
	"github.com/prometheus/prometheus/tsdb/index"
)

// indexFile is an index that is being checked. Its strings live in the mapped file.
type indexFile struct {
	data    byteSlice
	crc     *crc32.Table
	toc     *index.TOC
	version int
	align   uint64 // what a series' ref counts in: bytes, or 16 bytes since version 2

	symbols []string          // in the file's order, which is that of strings
	at      map[uint32]uint32 // version 1 refers to symbols by offset: to the place in symbols
	refs    []uint64          // of all series, ascending
}

type byteSlice []byte

func (b byteSlice) Len() int                    { return len(b) }
func (b byteSlice) Range(start, end int) []byte { return b[start:end] }

// series is an entry of the index' series section.
type series struct {
	pairs  []uint32 // places in symbols: name, value, name, value, …
	chunks []chunks.Meta
}

// index checks the index and gives it, or nil when no series can be read from it.
func (v *verifier) index(data []byte) *indexFile {
	x := &indexFile{data: data, crc: crc32.MakeTable(crc32.Castagnoli), align: 16}
	if len(data) < index.HeaderLen || binary.BigEndian.Uint32(data) != index.MagicIndex {
		v.found(indexName, "it does not begin as an index")
		return nil
	}
	switch x.version = int(data[4]); x.version {
	case index.FormatV1:
		x.align, x.at = 1, map[uint32]uint32{}
	case index.FormatV2, index.FormatV3:
	default:
		v.found(indexName, "its version %d is not known", x.version)
		return nil
	}
	var err error
	if x.toc, err = index.NewTOCFromByteSlice(x.data); err != nil {
		v.found("index, table of contents", "%v", err)
		return nil
	}
	if !v.symbols(x) {
		return nil
	}
	// What is not looked at one by one below is what Prometheus looks at here.
	if _, err := index.NewReader(x.data, index.DecodePostingsRaw); err != nil {
		v.found(indexName, "it cannot be opened: %v", err)
	}
	v.guard("index, series", func() { v.walkSeries(x) })
	sets := v.labelSets(x)
	v.guard("index, postings", func() { v.postings(x, sets) })
	if len(x.refs) == 0 && v.count == 0 {
		v.found(indexName, "it has no series")
	}
	return x
}

// symbols reads the symbol table.
func (v *verifier) symbols(x *indexFile) bool {
	const place = "index, symbols"
	d := encoding.NewDecbufAt(x.data, int(x.toc.Symbols), x.crc)
	end := int(x.toc.Symbols) + 4 + d.Len()
	n := d.Be32int()
	if d.Err() == nil && n > d.Len() { // each takes a byte at least
		v.found(place, "the table says %d symbols in %d bytes", n, d.Len())
		return false
	}
	for i := 0; i < n && d.Err() == nil; i++ {
		if x.at != nil {
			x.at[uint32(end-d.Len())] = uint32(i)
		}
		b := d.UvarintBytes()
		s := yolo(b)
		if i > 0 && s <= x.symbols[i-1] {
			v.found(place, "symbol %d, %.100q, comes after %.100q", i, s, x.symbols[i-1])
		}
		x.symbols = append(x.symbols, s)
	}
	if d.Err() != nil {
		v.found(place, "%v", d.Err())
		return false
	}
	return true
}

// walkSeries finds the series by going from entry to entry.
func (v *verifier) walkSeries(x *indexFile) {
	const place = "index, series"
	if x.toc.LabelIndices > uint64(len(x.data)) || x.toc.Series > x.toc.LabelIndices {
		v.found(place, "the section goes from %d to %d, in a file of %d bytes", x.toc.Series, x.toc.LabelIndices, len(x.data))
		return
	}
	for pos := x.toc.Series; ; {
		for pos < x.toc.LabelIndices && pos%x.align != 0 {
			if x.data[pos] != 0 {
				v.found(place, "the padding at %d is not zero", pos)
			}
			pos++
		}
		if pos >= x.toc.LabelIndices {
			return
		}
		length, n := binary.Uvarint(x.data[pos:x.toc.LabelIndices])
		if n <= 0 || length > uint64(len(x.data)) || pos+uint64(n)+length+crc32.Size > x.toc.LabelIndices {
			v.found(place, "the entry at %d goes beyond the section", pos)
			return
		}
		if ref := pos / x.align; ref>>32 != 0 && x.align > 1 {
			v.found(place, "the entry at %d is out of reach", pos)
			return
		}
		x.refs = append(x.refs, pos/x.align)
		pos += uint64(n) + length + crc32.Size
	}
}

// pairSet stands for the set of series that have one label pair: its size and the
// sum of a hash of each ref. Equal sets have both equal, others practically never.
type pairSet struct {
	n   uint64
	sum uint64
}

func (s *pairSet) add(ref uint64) {
	h := ref + 0x9e3779b97f4a7c15 // splitmix64
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	s.n++
	s.sum += h ^ h>>31
}

// labelSets checks the labels of all series and gives, for each label pair, the
// series that have it.
func (v *verifier) labelSets(x *indexFile) map[uint64]pairSet {
	sets := map[uint64]pairSet{}
	var s series
	var last []uint32
	for _, ref := range x.refs {
		if err := x.series(ref, &s); err != nil {
			v.found(fmt.Sprintf("index, series at %d", ref*x.align), "%v", err)
			continue
		}
		place := func() string { return "index, series " + x.name(&s) }
		if len(s.pairs) == 0 {
			v.found(place(), "it has no labels")
		}
		for i := 0; i < len(s.pairs); i += 2 {
			if i > 0 && s.pairs[i] <= s.pairs[i-2] {
				v.found(place(), "its labels are not in order")
			}
			key := uint64(s.pairs[i])<<32 | uint64(s.pairs[i+1])
			set := sets[key]
			set.add(ref)
			sets[key] = set
		}
		if last != nil && slices.Compare(s.pairs, last) <= 0 {
			v.found(place(), "it comes after %s", x.name(&series{pairs: last}))
		}
		last = append(last[:0], s.pairs...)
	}
	return sets
}

// postings checks that every label pair has a postings list with exactly its
// series, and that the list of all series is what its name says.
func (v *verifier) postings(x *indexFile, sets map[uint64]pairSet) {
	var lastName, lastValue string
	first, all := true, false
	err := index.ReadPostingsOffsetTable(x.data, x.toc.PostingsTable, func(n, val []byte, off uint64, _ int) error {
		name, value := yolo(n), yolo(val)
		place := func() string { return fmt.Sprintf("index, postings of %.100q=%.100q", name, value) }
		if x.version != index.FormatV1 && !first &&
			cmp.Or(cmp.Compare(name, lastName), cmp.Compare(value, lastValue)) <= 0 {
			v.found(place(), "they come after those of %.100q=%.100q", lastName, lastValue)
		}
		first, lastName, lastValue = false, name, value

		var got pairSet
		problem := x.list(off, func(ref uint64) { got.add(ref) })
		if problem != "" {
			v.found(place(), "%s", problem)
		}
		var want pairSet
		if name == "" && value == "" {
			all = true
			for _, ref := range x.refs {
				want.add(ref)
			}
		} else {
			key, ok := x.pair(name, value)
			if !ok {
				v.found(place(), "the label is not among the symbols")
				return nil
			}
			want = sets[key]
			delete(sets, key)
		}
		if problem == "" && got != want {
			v.found(place(), "they list %d series, not the %d that have the label", got.n, want.n)
		}
		return nil
	})
	switch {
	case err != nil:
		v.found("index, postings table", "%v", err)
		return
	case !all:
		v.found("index, postings table", "there is no list of all series")
	}
	missing := make([]uint64, 0, len(sets))
	for key := range sets {
		missing = append(missing, key)
	}
	slices.Sort(missing)
	for _, key := range missing {
		v.found(fmt.Sprintf("index, postings of %.100q=%.100q", x.symbols[key>>32], x.symbols[uint32(key)]), "they are missing")
	}
}

// list gives the refs of the postings list at an offset, and says what is wrong.
func (x *indexFile) list(off uint64, add func(uint64)) (problem string) {
	if off > uint64(len(x.data)) {
		return fmt.Sprintf("they are at %d, beyond the end of the file", off)
	}
	d := encoding.NewDecbufAt(x.data, int(off), x.crc)
	n := d.Be32int()
	if d.Err() != nil {
		return d.Err().Error()
	}
	b := d.Get()
	if len(b) != 4*n {
		return fmt.Sprintf("the list of %d series has %d bytes", n, len(b))
	}
	for i := range n {
		ref := binary.BigEndian.Uint32(b[4*i:])
		if i > 0 && ref <= binary.BigEndian.Uint32(b[4*i-4:]) {
			return "the list is not in order"
		}
		add(uint64(ref))
	}
	return ""
}

// pair gives the key of a label pair.
func (x *indexFile) pair(name, value string) (uint64, bool) {
	n, ok := slices.BinarySearch(x.symbols, name)
	m, ok2 := slices.BinarySearch(x.symbols, value)
	return uint64(n)<<32 | uint64(m), ok && ok2
}

// series reads the entry of a series into s.
func (x *indexFile) series(ref uint64, s *series) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("malformed: %v", p)
		}
	}()
	s.pairs, s.chunks = s.pairs[:0], s.chunks[:0]
	d := encoding.NewDecbufUvarintAt(x.data, int(ref*x.align), x.crc)
	for n := 2 * d.Uvarint64(); n > 0 && d.Err() == nil; n-- {
		symbol := d.Uvarint64()
		place, ok := symbol, symbol < uint64(len(x.symbols))
		if x.at != nil {
			var at uint32
			at, ok = x.at[uint32(symbol)]
			place = uint64(at)
		}
		if !ok && d.Err() == nil {
			return fmt.Errorf("refers to symbol %d, which is not in the table", symbol)
		}
		s.pairs = append(s.pairs, uint32(place))
	}
	var m chunks.Meta
	for i, n := uint64(0), d.Uvarint64(); i < n && d.Err() == nil; i++ {
		if i == 0 {
			m.MinTime = d.Varint64()
			m.MaxTime = m.MinTime + int64(d.Uvarint64())
			m.Ref = chunks.ChunkRef(d.Uvarint64())
		} else {
			m.MinTime = m.MaxTime + int64(d.Uvarint64())
			m.MaxTime = m.MinTime + int64(d.Uvarint64())
			m.Ref += chunks.ChunkRef(d.Varint64())
		}
		s.chunks = append(s.chunks, m)
	}
	if d.Err() != nil {
		return d.Err()
	}
	if d.Len() > 0 {
		return fmt.Errorf("%d bytes remain in the entry", d.Len())
	}
	return nil
}

// name gives the labels of a series for a person.
func (x *indexFile) name(s *series) string {
	var all []labels.Label
	for i := 0; i+1 < len(s.pairs); i += 2 {
		name, value := x.symbols[s.pairs[i]], x.symbols[s.pairs[i+1]]
		all = append(all, labels.Label{Name: name[:min(len(name), 300)], Value: value[:min(len(value), 300)]})
	}
	return brief(labels.New(all...))
}
