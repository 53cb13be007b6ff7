package block

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"maps"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/encoding"
	"github.com/prometheus/prometheus/tsdb/index"
)

// indexFile is an index during verification. Its strings refer to the mapped file.
type indexFile struct {
	data    byteSlice
	crc     *crc32.Table
	toc     *index.TOC
	version int
	align   uint64 // unit of a series ref, in bytes: 1, or 16 since version 2

	reader  *index.Reader     // of the TSDB; nil if it cannot open the index
	symbols []string          // in the file's order
	places  map[string]uint32 // position of each symbol, if they are not sorted; otherwise nil
	at      map[uint32]uint32 // position of each symbol by offset, which version 1 refers to
	refs    []uint64          // of all series, ascending
}

// byteSlice implements [index.ByteSlice].
type byteSlice []byte

func (b byteSlice) Len() int                    { return len(b) }
func (b byteSlice) Range(start, end int) []byte { return b[start:end] }

// series is an entry of the series section of an index.
type series struct {
	pairs  []uint32 // positions in symbols: name, value, name, value, …
	chunks []chunks.Meta
	rest   int // number of unused bytes at the end of the entry
}

// index checks the index and returns it, or nil if no series can be read from it.
func (v *verifier) index(ctx context.Context, data []byte) *indexFile {
	x := &indexFile{data: data, crc: crc32.MakeTable(crc32.Castagnoli), align: 16}
	if len(data) < index.HeaderLen || binary.BigEndian.Uint32(data) != index.MagicIndex {
		v.found(Unloadable, indexName, "bad magic number")
		return nil
	}
	switch x.version = int(data[4]); x.version {
	case index.FormatV1:
		x.align, x.at = 1, map[uint32]uint32{}
	case index.FormatV2, index.FormatV3:
	default:
		v.found(Unloadable, indexName, "unknown format version %d", x.version)
		return nil
	}
	var err error
	if x.toc, err = index.NewTOCFromByteSlice(x.data); err != nil {
		v.found(Unloadable, "index, table of contents", "%v", err)
		return nil
	}
	if !v.symbols(x) {
		return nil
	}
	// The TSDB's reader checks the parts that are not checked below.
	if x.reader, err = index.NewReader(x.data, index.DecodePostingsRaw); err != nil {
		v.found(Unloadable, indexName, "cannot be opened: %v", err)
	}
	v.guard(Unreadable, "index, series", func() { v.findSeries(x) })
	sets := v.labelSets(x)
	v.guard(Unreadable, "index, postings", func() { v.postings(ctx, x, sets) })
	if len(x.refs) == 0 && !v.damaged() {
		v.found(Odd, indexName, "no series")
	}
	return x
}

// symbols reads the symbol table. It returns false if the table cannot be read.
func (v *verifier) symbols(x *indexFile) bool {
	const place = "index, symbols"
	d := encoding.NewDecbufAt(x.data, int(x.toc.Symbols), x.crc)
	end := int(x.toc.Symbols) + 4 + d.Len()
	n := d.Be32int()
	if d.Err() == nil && n > d.Len() { // each has at least one byte
		v.found(Unloadable, place, "%d symbols do not fit into %d bytes", n, d.Len())
		return false
	}
	for i := 0; i < n && d.Err() == nil; i++ {
		if x.at != nil {
			x.at[uint32(end-d.Len())] = uint32(i)
		}
		b := d.UvarintBytes()
		s := borrow(b)
		if i > 0 && s <= x.symbols[i-1] {
			v.found(Odd, place, "symbol %d is not in order: %.100q follows %.100q", i, s, x.symbols[i-1])
			x.places = map[string]uint32{}
		}
		x.symbols = append(x.symbols, s)
	}
	if d.Err() != nil {
		v.found(Unloadable, place, "%v", d.Err())
		return false
	}
	if x.places != nil {
		for i, s := range slices.Backward(x.symbols) { // backward, so that the first of equal ones wins
			x.places[s] = uint32(i)
		}
	}
	return true
}

// findSeries sets x.refs by reading entry after entry. If the section is damaged it uses the
// postings, as Prometheus always does.
func (v *verifier) findSeries(x *indexFile) {
	if v.walkSeries(x) {
		return
	}
	refs := map[uint64]struct{}{}
	// postings reports the error.
	_ = index.ReadPostingsOffsetTable(x.data, x.toc.PostingsTable, func(_, _ []byte, off uint64, _ int) error {
		x.list(off, func(ref uint64) { refs[ref] = struct{}{} })
		return nil
	})
	x.refs = slices.Sorted(maps.Keys(refs))
}

// walkSeries reads the series section. It returns false if the section is damaged.
func (v *verifier) walkSeries(x *indexFile) bool {
	const place = "index, series"
	if x.toc.LabelIndices > uint64(len(x.data)) || x.toc.Series > x.toc.LabelIndices {
		v.found(Odd, place, "invalid section from byte %d to %d in a file of %d bytes",
			x.toc.Series, x.toc.LabelIndices, len(x.data))
		return false
	}
	for pos := x.toc.Series; ; {
		for pos < x.toc.LabelIndices && pos%x.align != 0 {
			if x.data[pos] != 0 {
				v.found(Odd, place, "the padding at byte %d is not zero", pos)
			}
			pos++
		}
		if pos >= x.toc.LabelIndices {
			return true
		}
		length, n := binary.Uvarint(x.data[pos:x.toc.LabelIndices])
		if n <= 0 || length > uint64(len(x.data)) || pos+uint64(n)+length+crc32.Size > x.toc.LabelIndices {
			v.found(Odd, place, "the entry at byte %d ends outside the section", pos)
			return false
		}
		if ref := pos / x.align; ref>>32 != 0 && x.align > 1 {
			v.found(Unreadable, place, "postings cannot refer to the entry at byte %d", pos)
			return false
		}
		x.refs = append(x.refs, pos/x.align)
		pos += uint64(n) + length + crc32.Size
	}
}

// pairSet represents the set of series with a label pair by its size and a sum of hashes. Two
// different sets are practically never equal.
type pairSet struct {
	n   uint64 // number of series
	sum uint64 // of a hash of each ref
}

// add adds a series.
func (s *pairSet) add(ref uint64) {
	h := ref + 0x9e3779b97f4a7c15 // splitmix64
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	s.n++
	s.sum += h ^ h>>31
}

// labelSets checks the labels of all series. It returns the set of series of each label pair.
func (v *verifier) labelSets(x *indexFile) map[uint64]pairSet {
	sets := map[uint64]pairSet{}
	var s series
	var last []uint32
	for _, ref := range x.refs {
		if err := x.series(ref, &s); err != nil {
			v.found(Unreadable, fmt.Sprintf("index, series at %d", ref*x.align), "%v", err)
			continue
		}
		place := func() string { return "index, series " + x.name(&s) }
		if len(s.pairs) == 0 {
			v.found(Odd, place(), "no labels")
		}
		if s.rest > 0 {
			v.found(Odd, place(), "%d unused bytes in the entry", s.rest)
		}
		for i := 0; i < len(s.pairs); i += 2 {
			key := uint64(s.pairs[i])<<32 | uint64(s.pairs[i+1])
			set := sets[key]
			set.add(ref)
			sets[key] = set
			if i == 0 {
				continue
			}
			if c := x.compare(s.pairs[i], s.pairs[i-2]); c < 0 {
				v.found(Odd, place(), "the labels are not in order")
			} else if c == 0 {
				v.found(Odd, place(), "duplicate label %.100q", x.symbols[s.pairs[i]])
			}
		}
		if last != nil && slices.CompareFunc(s.pairs, last, x.compare) <= 0 {
			v.found(Odd, place(), "not in order: it follows %s", x.name(&series{pairs: last}))
		}
		last = append(last[:0], s.pairs...)
	}
	return sets
}

// postings checks that every label pair has a postings list of exactly its series, and that the
// list of all series is complete.
func (v *verifier) postings(ctx context.Context, x *indexFile, sets map[uint64]pairSet) {
	var lastName, lastValue string
	first, all, ordered := true, false, true
	left := maps.Clone(sets)
	compared := 0
	err := index.ReadPostingsOffsetTable(x.data, x.toc.PostingsTable, func(n, val []byte, off uint64, _ int) error {
		name, value := borrow(n), borrow(val)
		place := postingsOf(name, value)
		if x.version != index.FormatV1 && !first &&
			cmp.Or(cmp.Compare(name, lastName), cmp.Compare(value, lastValue)) <= 0 {
			v.found(Odd, place(), "not in order: the list follows that of %.100q=%.100q", lastName, lastValue)
			ordered = false
		}
		first, lastName, lastValue = false, name, value

		var got, want pairSet
		level, problem := x.list(off, got.add)
		if problem != "" {
			v.found(level, place(), "%s", problem)
		}
		key, ok := x.pair(name, value)
		if name == "" && value == "" {
			all, ok = true, true
			for _, ref := range x.refs {
				want.add(ref)
			}
		} else if ok {
			want = sets[key]
			delete(left, key)
		}
		if problem != "" && level != Odd || got == want && ok {
			return nil
		}
		if compared++; compared > 2*maxFindings { // each comparison reads all series
			v.found(Unreadable, place(), "the list has %d series, but %d have the label", got.n, want.n)
			return nil
		}
		if level, problem := x.compareList(off, name, value); problem != "" {
			v.found(level, place(), "%s", problem)
		}
		return nil
	})
	switch {
	case err != nil:
		v.found(Unloadable, "index, postings table", "%v", err)
		return
	case !all:
		v.found(Unreadable, "index, postings table", "no list of all series")
	}
	for _, key := range slices.Sorted(maps.Keys(left)) {
		v.found(Unreadable, postingsOf(x.symbols[key>>32], x.symbols[uint32(key)])(), "missing")
		delete(sets, key)
	}
	if !ordered && x.reader != nil {
		v.lookups(ctx, x, sets)
	}
}

// postingsOf returns a function that returns the place of a postings list.
func postingsOf(name, value string) func() string {
	return func() string { return fmt.Sprintf("index, postings of %.100q=%.100q", name, value) }
}

// lookups looks up every label pair with the TSDB's reader, which assumes that the table is sorted.
func (v *verifier) lookups(ctx context.Context, x *indexFile, sets map[uint64]pairSet) {
	for _, key := range slices.Sorted(maps.Keys(sets)) {
		name, value := x.symbols[key>>32], x.symbols[uint32(key)]
		var got pairSet
		p, err := x.reader.Postings(ctx, name, value)
		for err == nil && p.Next() {
			got.add(uint64(p.At()))
		}
		if err == nil {
			err = p.Err()
		}
		if err != nil {
			v.found(Unreadable, postingsOf(name, value)(), "Prometheus does not find the list: %v", err)
		} else if got != sets[key] {
			v.found(Unreadable, postingsOf(name, value)(),
				"Prometheus does not find the list: the table is not in order")
		}
	}
}

// compareList describes how a postings list differs from the series with the label pair. An empty
// pair means all series.
func (x *indexFile) compareList(off uint64, name, value string) (Level, string) {
	in := map[uint64]bool{}
	x.list(off, func(ref uint64) { in[ref] = true })
	n, want, missing := len(in), 0, 0
	var s series
	for _, ref := range x.refs {
		listed := in[ref]
		delete(in, ref)
		has := name == "" && value == ""
		if !has && x.series(ref, &s) == nil {
			for i := 0; i < len(s.pairs) && !has; i += 2 {
				has = x.symbols[s.pairs[i]] == name && x.symbols[s.pairs[i+1]] == value
			}
		}
		if has {
			want++
			if !listed {
				missing++
			}
		}
	}
	problem := fmt.Sprintf("the list has %d series, but %d have the label", n, want)
	switch {
	case missing > 0:
		return Unreadable, fmt.Sprintf("%s: %d are missing", problem, missing)
	case len(in) > 0: // refs of no series
		return Unreadable, fmt.Sprintf("%s: %d are not in the index", problem, len(in))
	case n != want:
		return Odd, problem
	}
	return Odd, ""
}

// list calls add for the refs of the postings list at an offset, and returns what is wrong with
// the list; problem is empty for a good list.
func (x *indexFile) list(off uint64, add func(uint64)) (level Level, problem string) {
	if off > uint64(len(x.data)) {
		return Unreadable, fmt.Sprintf("the offset %d is beyond the end of the file", off)
	}
	d := encoding.NewDecbufAt(x.data, int(off), x.crc)
	n := d.Be32int()
	if d.Err() != nil {
		return Unreadable, d.Err().Error()
	}
	b := d.Get()
	if len(b) != 4*n {
		return Unreadable, fmt.Sprintf("the list of %d series has %d bytes", n, len(b))
	}
	for i := range n {
		ref := binary.BigEndian.Uint32(b[4*i:])
		if i > 0 {
			switch last := binary.BigEndian.Uint32(b[4*i-4:]); {
			case ref < last: // Prometheus searches the list as if it were sorted
				return Unreadable, "the list is not in order"
			case ref == last:
				problem = "the list has a series twice"
				continue
			}
		}
		add(uint64(ref))
	}
	return Odd, problem
}

// compare compares two symbols as strings.
func (x *indexFile) compare(a, b uint32) int {
	if x.places == nil {
		return cmp.Compare(a, b)
	}
	return cmp.Compare(x.symbols[a], x.symbols[b])
}

// place returns the position of a symbol in symbols.
func (x *indexFile) place(symbol string) (uint32, bool) {
	if x.places != nil {
		i, ok := x.places[symbol]
		return i, ok
	}
	i, ok := slices.BinarySearch(x.symbols, symbol)
	return uint32(i), ok
}

// pair returns the key of a label pair, and whether both symbols exist.
func (x *indexFile) pair(name, value string) (uint64, bool) {
	n, ok := x.place(name)
	m, ok2 := x.place(value)
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
	if ref*x.align >= uint64(len(x.data)) {
		return encoding.ErrInvalidSize
	}
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
			return fmt.Errorf("symbol %d is not in the table", symbol)
		}
		if x.places != nil && ok {
			place = uint64(x.places[x.symbols[place]])
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
	s.rest = d.Len()
	return nil
}

// name returns the labels of a series for a message.
func (x *indexFile) name(s *series) string {
	var all []labels.Label
	for i := 0; i+1 < len(s.pairs); i += 2 {
		name, value := x.symbols[s.pairs[i]], x.symbols[s.pairs[i+1]]
		all = append(all, labels.Label{Name: name[:min(len(name), 300)], Value: value[:min(len(value), 300)]})
	}
	return brief(labels.New(all...))
}
