package slice

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"

	"github.com/prometheus/prometheus/tsdb/index"

	"github.com/promdump/promdump/internal/datadir"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

const (
	tocSize = 6*8 + crc32.Size

	// seriesAlign is the alignment of series in an index since format version 2, in bytes.
	seriesAlign = 16

	// maxEntry is the maximum size of a symbol, a label value or a tombstones file, in
	// bytes.
	maxEntry = 256 << 20

	// maxSeries is the maximum size of a series entry, in bytes. A longer one is damage:
	// its length must not determine how much memory is used.
	maxSeries = 64 << 20
)

// maxOldIndex is the maximum size of an index of format version 1 that can be cut, in bytes.
// A set of its series takes one bit for each of its bytes.
const maxOldIndex = 64 << 20

// ErrOldIndex reports an index of format version 1, which Prometheus 2.0 wrote, that is
// larger than maxOldIndex.
var ErrOldIndex = errors.New(
	"a block with an index of format version 1 and more than 64 MiB can be dumped whole, but not cut")

// indexFile reads the index of a block piece by piece.
type indexFile struct {
	f     *datadir.File
	toc   index.TOC
	end   uint64 // of the series section
	align int64  // of series, in bytes; the unit of series ids in postings and tombstones

	// symbolAt has the offsets of the symbols in format version 1, in order: a series refers to
	// its symbols by offset.
	symbolAt []uint32
}

// openIndex reads the header and the table of contents.
func openIndex(f *datadir.File) (*indexFile, error) {
	var head [index.HeaderLen]byte
	if f.Size < int64(len(head)+tocSize) {
		return nil, errors.New("index is too short")
	}
	if _, err := f.ReadAt(head[:], 0); err != nil {
		return nil, fmt.Errorf("read index: %w", err)
	}
	if binary.BigEndian.Uint32(head[:]) != index.MagicIndex {
		return nil, errors.New("index has a bad magic number")
	}
	align := int64(seriesAlign)
	switch head[4] {
	case index.FormatV1:
		align = 1
		if f.Size > maxOldIndex {
			return nil, ErrOldIndex
		}
	case index.FormatV2, index.FormatV3:
	default:
		return nil, fmt.Errorf("index has unknown format version %d", head[4])
	}
	var toc [tocSize]byte
	if _, err := f.ReadAt(toc[:], f.Size-tocSize); err != nil {
		return nil, fmt.Errorf("read table of contents of index: %w", err)
	}
	body := toc[:len(toc)-crc32.Size]
	if crc32.Checksum(body, castagnoli) != binary.BigEndian.Uint32(toc[len(body):]) {
		return nil, errors.New("index: table of contents: bad checksum")
	}
	x := &indexFile{f: f, end: uint64(f.Size - tocSize), align: align, toc: index.TOC{
		Symbols:           binary.BigEndian.Uint64(body[0:]),
		Series:            binary.BigEndian.Uint64(body[8:]),
		LabelIndices:      binary.BigEndian.Uint64(body[16:]),
		LabelIndicesTable: binary.BigEndian.Uint64(body[24:]),
		Postings:          binary.BigEndian.Uint64(body[32:]),
		PostingsTable:     binary.BigEndian.Uint64(body[40:]),
	}}
	for _, next := range []uint64{x.toc.LabelIndices, x.toc.LabelIndicesTable, x.toc.Postings, x.toc.PostingsTable} {
		if next >= x.toc.Series && next != 0 {
			x.end = min(x.end, next)
		}
	}
	if x.toc.Series > x.end || x.toc.Symbols > x.end {
		return nil, errors.New("index: the table of contents has an offset outside the file")
	}
	if head[4] == index.FormatV1 {
		err := x.table(x.toc.Symbols, "symbol table", func(s *summed) error {
			x.symbolAt = append(x.symbolAt, uint32(s.pos))
			_, err := s.bytes()
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return x, nil
}

// scan returns a scanner of the index from off.
func (x *indexFile) scan(off uint64) *scanner {
	return &scanner{window: window{f: x.f}, pos: int64(off)}
}

// ids returns the number of possible series ids.
func (x *indexFile) ids() uint64 { return x.end/uint64(x.align) + 1 }

// table reads a section that begins with its length and the number of its entries and ends
// with a checksum. It calls entry for each entry, which must read it from its argument. The
// checksum is checked after the last entry.
func (x *indexFile) table(off uint64, name string, entry func(*summed) error) error {
	s := &summed{scanner: x.scan(off)}
	head, err := s.scanner.take(4)
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	end := s.pos + int64(binary.BigEndian.Uint32(head))
	if head, err = s.take(4); err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	for n := binary.BigEndian.Uint32(head); n > 0; n-- {
		if err := entry(s); err != nil {
			return fmt.Errorf("read %s: %w", name, err)
		}
		if s.pos > end {
			return fmt.Errorf("read %s: the entries are longer than the section", name)
		}
	}
	if _, err := s.take(int(end - s.pos)); err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	sum, err := s.scanner.take(crc32.Size)
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	if binary.BigEndian.Uint32(sum) != s.sum {
		return fmt.Errorf("%s: bad checksum", name)
	}
	return nil
}

// summed is a scanner that computes the checksum of the bytes that it returned.
type summed struct {
	*scanner
	sum uint32
}

func (s *summed) take(n int) ([]byte, error) {
	b, err := s.scanner.take(n)
	s.sum = crc32.Update(s.sum, castagnoli, b)
	return b, err
}

// uvarint reads a number of variable length.
func (s *summed) uvarint() (uint64, error) {
	b, err := s.at(s.pos, binary.MaxVarintLen64)
	if err != nil {
		return 0, err
	}
	v, n := binary.Uvarint(b)
	if n <= 0 {
		return 0, fmt.Errorf("%s: invalid number at byte %d", s.f.Name, s.pos)
	}
	_, err = s.take(n)
	return v, err
}

// bytes reads a length and that many bytes, which are valid until the next call.
func (s *summed) bytes() ([]byte, error) {
	n, err := s.uvarint()
	if err != nil {
		return nil, err
	}
	if n > maxEntry {
		return nil, fmt.Errorf("%s has an entry of %d bytes at byte %d", s.f.Name, n, s.pos)
	}
	return s.take(int(n))
}

// symbols calls f for each symbol with its number, in order; the bytes are valid during the
// call. It returns errStop if f returns false.
func (x *indexFile) symbols(f func(ref uint32, symbol []byte) bool) error {
	var ref uint32
	err := x.table(x.toc.Symbols, "symbol table", func(s *summed) error {
		b, err := s.bytes()
		if err == nil && !f(ref, b) {
			err = errStop
		}
		ref++
		return err
	})
	return err
}

// errStop ends reading without an error, because the caller's function returned false.
var errStop = errors.New("stop")

// entry is a series of the index. The next one overwrites it.
type entry struct {
	id     uint64   // offset in the index, in units of the index's align
	labels []uint32 // numbers of symbols: name, value, name, value …
	chunks []chunkRef
}

// chunkRef is the time range and the place of a chunk.
type chunkRef struct {
	minTime, maxTime int64  // Unix milliseconds, inclusive
	ref              uint64 // file and offset
}

// file returns the number of the chunk file, counted from 0.
func (c chunkRef) file() int { return int(c.ref >> 32) }

// offset returns the offset in the chunk file, in bytes.
func (c chunkRef) offset() int64 { return int64(c.ref & 0xffffffff) }

// series reads the series entry at the scanner's position.
func (x *indexFile) series(s *scanner, e *entry) error {
	at := s.pos
	e.id = uint64(at / x.align)
	head, err := s.at(at, binary.MaxVarintLen32)
	if err != nil {
		return err
	}
	size, n := binary.Uvarint(head)
	if n <= 0 || size > maxSeries {
		return fmt.Errorf("series at byte %d of index: invalid length", at)
	}
	s.pos += int64(n)
	b, err := s.take(int(size) + crc32.Size)
	if err != nil {
		return fmt.Errorf("series at byte %d of index: %w", at, err)
	}
	body := b[:size]
	if crc32.Checksum(body, castagnoli) != binary.BigEndian.Uint32(b[size:]) {
		return fmt.Errorf("series at byte %d of index: bad checksum", at)
	}
	if err := e.parse(body); err != nil {
		return fmt.Errorf("series at byte %d of index: %w", at, err)
	}
	if x.symbolAt == nil {
		return nil
	}
	for i, place := range e.labels {
		number, ok := slices.BinarySearch(x.symbolAt, place)
		if !ok {
			return fmt.Errorf("series at byte %d of index: there is no symbol at byte %d", at, place)
		}
		e.labels[i] = uint32(number)
	}
	return nil
}

// parse sets labels and chunks from the contents of a series entry.
func (e *entry) parse(b []byte) error {
	d := numbers{b: b}
	e.labels, e.chunks = e.labels[:0], e.chunks[:0]
	for n := 2 * d.uvarint(); n > 0 && !d.bad; n-- {
		e.labels = append(e.labels, uint32(d.uvarint()))
	}
	n := d.uvarint()
	var c chunkRef
	for i := uint64(0); i < n && !d.bad; i++ {
		if i == 0 {
			c.minTime = d.varint()
			c.maxTime = c.minTime + int64(d.uvarint())
			c.ref = d.uvarint()
		} else {
			c.minTime = c.maxTime + int64(d.uvarint())
			c.maxTime = c.minTime + int64(d.uvarint())
			c.ref += uint64(d.varint())
		}
		e.chunks = append(e.chunks, c)
	}
	if d.bad {
		return errors.New("the entry is too short")
	}
	return nil
}

// numbers reads numbers of variable length from bytes.
type numbers struct {
	b   []byte
	bad bool // a number was incomplete or invalid
}

func (d *numbers) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.bad = true
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *numbers) varint() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.bad = true
		return 0
	}
	d.b = d.b[n:]
	return v
}

// all calls f for every series in order, and lost for each one that it cannot read. An error
// of f ends it.
func (x *indexFile) all(f func(*entry) error, lost func(id uint64, err error)) error {
	s := x.scan(x.toc.Series)
	var e entry
	for {
		if r := s.pos % x.align; r != 0 {
			s.pos += x.align - r
		}
		if uint64(s.pos) >= x.end {
			return nil
		}
		if err := x.series(s, &e); err != nil {
			// The offset of an entry follows from the length of the one before. After a
			// damaged entry, the postings list of all series has the offsets.
			ids, err2 := x.matching(nil)
			if err2 != nil {
				lost(e.id, err)
				if s.pos = x.next(int64(e.id)*x.align + x.align); s.pos > 0 {
					continue
				}
				return nil
			}
			for id := range e.id {
				ids.clear(id)
			}
			return x.some(ids, f, lost)
		}
		if err := f(&e); err != nil {
			return err
		}
	}
}

// maxNext is the maximum size of a series that next finds, in bytes. It bounds the time that
// next takes.
const maxNext = 64 << 10

// next returns the offset of the first undamaged series at or after pos, or 0.
func (x *indexFile) next(pos int64) int64 {
	s := x.scan(uint64(pos))
	var e entry
	for ; uint64(pos) < x.end; pos += x.align {
		head, err := s.at(pos, binary.MaxVarintLen32)
		if err != nil {
			return 0
		}
		// An entry of zeros is padding.
		if size, n := binary.Uvarint(head); n <= 0 || size == 0 || size > maxNext {
			continue
		}
		if s.pos = pos; x.series(s, &e) == nil && len(e.labels) > 0 {
			return pos
		}
	}
	return 0
}

// some is like all for the series in the set.
func (x *indexFile) some(ids bitset, f func(*entry) error, lost func(id uint64, err error)) error {
	s := x.scan(x.toc.Series)
	var e entry
	for id := range ids.all() {
		s.pos = int64(id) * x.align
		if err := x.series(s, &e); err != nil {
			lost(id, err)
			continue
		}
		if err := f(&e); err != nil {
			return err
		}
	}
	return nil
}
