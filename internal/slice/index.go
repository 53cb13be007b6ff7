package slice

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/prometheus/prometheus/tsdb/index"

	"github.com/promdump/promdump/internal/datadir"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

const (
	tocSize = 6*8 + crc32.Size

	// seriesAlign is what a series' place in the index is a multiple of; postings
	// and tombstones count in it.
	seriesAlign = 16

	// maxEntry bounds one entry of the index, in bytes: one symbol, or one series
	// with the places of its chunks.
	maxEntry = 256 << 20

	// maxSeries bounds one series of the index, in bytes. A length beyond it is
	// damage, and memory is scarce here.
	maxSeries = 64 << 20
)

// ErrOldIndex says that an index is of the first format, which no Prometheus
// since 2.0 writes.
var ErrOldIndex = errors.New("its index has format version 1, which cannot be cut")

// indexFile is a block's index, read in pieces.
type indexFile struct {
	f   *datadir.File
	toc index.TOC
	end uint64 // of the series section
}

func openIndex(f *datadir.File) (*indexFile, error) {
	var head [index.HeaderLen]byte
	if f.Size < int64(len(head)+tocSize) {
		return nil, errors.New("index is too short")
	}
	if _, err := f.ReadAt(head[:], 0); err != nil {
		return nil, fmt.Errorf("read index: %w", err)
	}
	if binary.BigEndian.Uint32(head[:]) != index.MagicIndex {
		return nil, errors.New("index does not begin as an index does")
	}
	switch head[4] {
	case index.FormatV1:
		return nil, ErrOldIndex
	case index.FormatV2, index.FormatV3:
	default:
		return nil, fmt.Errorf("index has the unknown format version %d", head[4])
	}
	var toc [tocSize]byte
	if _, err := f.ReadAt(toc[:], f.Size-tocSize); err != nil {
		return nil, fmt.Errorf("read table of contents of index: %w", err)
	}
	body := toc[:len(toc)-crc32.Size]
	if crc32.Checksum(body, castagnoli) != binary.BigEndian.Uint32(toc[len(body):]) {
		return nil, errors.New("table of contents of index is damaged")
	}
	x := &indexFile{f: f, end: uint64(f.Size - tocSize), toc: index.TOC{
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
		return nil, errors.New("table of contents of index points outside of it")
	}
	return x, nil
}

func (x *indexFile) scan(off uint64) *scanner {
	return &scanner{window: window{f: x.f}, pos: int64(off)}
}

// ids is how many places for a series there can be: one bit for each.
func (x *indexFile) ids() uint64 { return x.end/seriesAlign + 1 }

// table walks the entries of a section that begins with its length and its
// count and ends with a checksum. Entry reads one entry.
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
			return fmt.Errorf("read %s: its entries are longer than it", name)
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
		return fmt.Errorf("%s is damaged: its checksum differs", name)
	}
	return nil
}

// summed is a scanner that keeps the checksum of what it took.
type summed struct {
	*scanner
	sum uint32
}

func (s *summed) take(n int) ([]byte, error) {
	b, err := s.scanner.take(n)
	s.sum = crc32.Update(s.sum, castagnoli, b)
	return b, err
}

func (s *summed) uvarint() (uint64, error) {
	b, err := s.at(s.pos, binary.MaxVarintLen64)
	if err != nil {
		return 0, err
	}
	v, n := binary.Uvarint(b)
	if n <= 0 {
		return 0, fmt.Errorf("%s has no number at byte %d", s.f.Name, s.pos)
	}
	_, err = s.take(n)
	return v, err
}

// bytes takes a length and that many bytes; they are valid until the next take.
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

// symbols gives each symbol with its ref. The bytes are valid during the call.
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

// errStop ends a walk whose listener has had enough.
var errStop = errors.New("stop")

// entry is one series of the index. It is overwritten by the next.
type entry struct {
	id     uint64 // its place, in units of seriesAlign
	labels []uint32
	chunks []chunkRef
}

// chunkRef is the place of a chunk.
type chunkRef struct {
	minTime, maxTime int64 // Unix milliseconds, both included
	ref              uint64
}

func (c chunkRef) file() int     { return int(c.ref >> 32) }
func (c chunkRef) offset() int64 { return int64(c.ref & 0xffffffff) }

// series reads the entry at the scanner's place, which must be one.
func (x *indexFile) series(s *scanner, e *entry) error {
	at := s.pos
	e.id = uint64(at) / seriesAlign
	head, err := s.at(at, binary.MaxVarintLen32)
	if err != nil {
		return err
	}
	size, n := binary.Uvarint(head)
	if n <= 0 || size > maxSeries {
		return fmt.Errorf("series at byte %d of index has no length", at)
	}
	s.pos += int64(n)
	b, err := s.take(int(size) + crc32.Size)
	if err != nil {
		return fmt.Errorf("series at byte %d of index: %w", at, err)
	}
	body := b[:size]
	if crc32.Checksum(body, castagnoli) != binary.BigEndian.Uint32(b[size:]) {
		return fmt.Errorf("series at byte %d of index is damaged: its checksum differs", at)
	}
	if err := e.parse(body); err != nil {
		return fmt.Errorf("series at byte %d of index: %w", at, err)
	}
	return nil
}

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
		return errors.New("it ends within itself")
	}
	return nil
}

// numbers reads varints until the bytes run out.
type numbers struct {
	b   []byte
	bad bool
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

// all yields every series in order. It calls lost for entries that cannot be read.
func (x *indexFile) all(f func(*entry) error, lost func(id uint64, err error)) error {
	s := x.scan(x.toc.Series)
	var e entry
	for {
		if r := s.pos % seriesAlign; r != 0 {
			s.pos += seriesAlign - r
		}
		if uint64(s.pos) >= x.end {
			return nil
		}
		if err := x.series(s, &e); err != nil {
			// The start of an entry follows from the one before. After a damaged entry
			// the list of all series is used.
			ids, err2 := x.matching(nil)
			if err2 != nil {
				return errors.Join(err, err2)
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

// some yields the series in the set, in order. It calls lost for entries that cannot be
// read.
func (x *indexFile) some(ids bitset, f func(*entry) error, lost func(id uint64, err error)) error {
	s := x.scan(x.toc.Series)
	var e entry
	for id := range ids.all() {
		s.pos = int64(id) * seriesAlign
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
