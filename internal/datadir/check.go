package datadir

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"math"
	"slices"

	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"
	"github.com/prometheus/prometheus/tsdb/tombstones"
)

// These checks do what tsdb.OpenBlock does, with a few reads and a pass over the index's
// symbols and postings offset table. A block that they reject prevents a server from
// starting, and a running server from loading any new block (tsdb/db.go, reloadBlocks). A
// server loads each block that they accept. TestJudge proves both.

// unknown is the number of chunk segments that the index needs if it cannot be determined.
const unknown = -1

// readAt fills p from off. It returns a *brokenError that names the file what if the file
// ends too early.
func readAt(f *File, p []byte, off int64, what string) error {
	n, err := f.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		return broken("%s is truncated", what)
	}
	return err
}

// checkSegment checks the header of a chunk segment (tsdb/chunks/chunks.go, newReader).
func checkSegment(f *File) error {
	name := f.Name[len("01ARZ3NDEKTSV4RRFFQ69G5FAV/"):]
	if f.Size < chunks.SegmentHeaderSize {
		return broken("%s has %d bytes, less than a header", name, f.Size)
	}
	var head [chunks.SegmentHeaderSize]byte
	if err := readAt(f, head[:], 0, name); err != nil {
		return err
	}
	if binary.BigEndian.Uint32(head[:]) != chunks.MagicChunks {
		return broken("%s has a bad magic number", name)
	}
	if head[chunks.MagicChunksSize] != 1 {
		return broken("%s has unknown format version %d", name, head[chunks.MagicChunksSize])
	}
	return nil
}

const tocSize = 6*8 + crc32.Size

// checkIndex checks an index like index.NewFileReader. It returns the number of chunk
// segments that the index refers to, or [unknown].
func checkIndex(f *File) (needed int, err error) {
	if f.Size < index.HeaderLen {
		return 0, broken("index has %d bytes, less than a header", f.Size)
	}
	var head [index.HeaderLen]byte
	if err := readAt(f, head[:], 0, "index"); err != nil {
		return 0, err
	}
	if binary.BigEndian.Uint32(head[:]) != index.MagicIndex {
		return 0, broken("index has a bad magic number")
	}
	version := int(head[4])
	if version < index.FormatV1 || version > index.FormatV3 {
		return 0, broken("index has unknown format version %d", version)
	}
	if f.Size < tocSize {
		return 0, broken("index has %d bytes, less than a table of contents", f.Size)
	}
	var toc [tocSize]byte
	if err := readAt(f, toc[:], f.Size-tocSize, "index"); err != nil {
		return 0, err
	}
	body := toc[:tocSize-crc32.Size]
	if crc32.Checksum(body, castagnoli) != binary.BigEndian.Uint32(toc[len(body):]) {
		return 0, broken("index: table of contents: bad checksum")
	}
	names, all, err := postingsTable(f, binary.BigEndian.Uint64(body[40:]))
	if err != nil {
		return 0, err
	}
	sorted, err := symbolTable(f, binary.BigEndian.Uint64(body), names)
	if err != nil {
		return 0, err
	}
	if !sorted {
		if err := checkSmallIndex(f); err != nil {
			return 0, err
		}
	}
	if all < 0 {
		return 0, nil
	}
	return segmentsNeeded(f, version, all), nil
}

// section reads a part of an index that begins with its length and ends with its checksum.
type section struct {
	r    *bufio.Reader
	name string // for errors
	left int64  // unread bytes of the content
	sum  uint32 // checksum of the bytes that were read
	want uint32 // checksum in the file
}

// openSection returns a reader of the section at off. It returns a *brokenError if the
// section is not inside the file.
func openSection(f *File, off uint64, name string) (*section, error) {
	if off > uint64(f.Size) || f.Size-int64(off) < 4 {
		return nil, broken("index: the %s begins outside the file", name)
	}
	var length, sum [4]byte
	if err := readAt(f, length[:], int64(off), "index"); err != nil {
		return nil, err
	}
	n := int64(binary.BigEndian.Uint32(length[:]))
	start := int64(off) + 4
	if f.Size-start < n+crc32.Size {
		return nil, broken("index: the %s ends outside the file", name)
	}
	if err := readAt(f, sum[:], start+n, "index"); err != nil {
		return nil, err
	}
	r := bufio.NewReaderSize(io.NewSectionReader(f, start, n), 64<<10)
	return &section{r: r, name: name, left: n, want: binary.BigEndian.Uint32(sum[:])}, nil
}

// take reads n bytes and returns the first keep of them in buf, which it grows if needed.
func (s *section) take(buf []byte, n uint64, keep int) ([]byte, error) {
	if n > uint64(s.left) {
		return nil, broken("index: an entry of the %s is longer than the rest of it", s.name)
	}
	s.left -= int64(n)
	kept := int(min(n, uint64(keep)))
	buf = slices.Grow(buf[:0], kept)[:kept]
	if _, err := io.ReadFull(s.r, buf); err != nil {
		return nil, s.fault(err)
	}
	s.sum = crc32.Update(s.sum, castagnoli, buf)
	return buf, s.pass(int64(n) - int64(kept))
}

// pass reads n bytes into the checksum. The caller has subtracted them from s.left.
func (s *section) pass(n int64) error {
	for n > 0 {
		p, err := s.r.Peek(int(min(n, 32<<10)))
		if len(p) == 0 {
			return s.fault(err)
		}
		s.sum = crc32.Update(s.sum, castagnoli, p)
		n -= int64(len(p))
		if _, err := s.r.Discard(len(p)); err != nil {
			return s.fault(err)
		}
	}
	return nil
}

// fault returns a *brokenError for the end of the file, and other errors as they are.
func (s *section) fault(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return broken("index is truncated")
	}
	return err
}

// uint32 reads a big-endian number.
func (s *section) uint32() (uint32, error) {
	var buf [4]byte
	b, err := s.take(buf[:], 4, 4)
	if err != nil {
		return 0, err
	}
	return binary.BigEndian.Uint32(b), nil
}

// uvarint reads a number of variable length.
func (s *section) uvarint() (uint64, error) {
	p, err := s.r.Peek(int(min(s.left, binary.MaxVarintLen64)))
	if err != nil && len(p) == 0 && s.left > 0 {
		return 0, s.fault(err)
	}
	v, n := binary.Uvarint(p)
	if n <= 0 {
		return 0, broken("index: the %s has an invalid number", s.name)
	}
	s.left -= int64(n)
	s.sum = crc32.Update(s.sum, castagnoli, p[:n])
	_, err = s.r.Discard(n)
	return v, err
}

// finish reads the rest of the section and checks the checksum.
func (s *section) finish() error {
	n := s.left
	s.left = 0
	if err := s.pass(n); err != nil {
		return err
	}
	if s.sum != s.want {
		return broken("index: %s: bad checksum", s.name)
	}
	return nil
}

// Limits that bound the memory.
const (
	maxNameBytes  = 1 << 20 // number of bytes of a name or symbol that are compared
	maxNamesBytes = 4 << 20 // total bytes of the names that are looked up in the symbols
)

// postingsTable reads the postings offset table. It returns the label names in it, sorted,
// and the offset of the list of all series, which is -1 if there is none.
func postingsTable(f *File, off uint64) (names [][]byte, all int64, err error) {
	s, err := openSection(f, off, "postings offset table")
	if err != nil {
		return nil, 0, err
	}
	count, err := s.uint32()
	if err != nil {
		return nil, 0, err
	}
	var name, value, last []byte
	size := 0
	all = -1
	for ; count > 0 && s.left > 0; count-- {
		keys, err := s.uvarint()
		if err != nil {
			return nil, 0, err
		}
		if keys != 2 {
			return nil, 0, broken("index: an entry of the postings offset table has %d keys", keys)
		}
		n, err := s.uvarint()
		if err != nil {
			return nil, 0, err
		}
		if name, err = s.take(name, n, maxNameBytes); err != nil {
			return nil, 0, err
		}
		if n, err = s.uvarint(); err != nil {
			return nil, 0, err
		}
		if value, err = s.take(value, n, 1); err != nil {
			return nil, 0, err
		}
		place, err := s.uvarint()
		if err != nil {
			return nil, 0, err
		}
		if len(name) == 0 {
			if len(value) == 0 && place <= math.MaxInt64 {
				all = int64(place)
			}
			continue
		}
		if !bytes.Equal(name, last) && size < maxNamesBytes {
			last = bytes.Clone(name)
			names = append(names, last)
			size += len(last)
		}
	}
	if err := s.finish(); err != nil {
		return nil, 0, err
	}
	slices.SortFunc(names, bytes.Compare)
	return slices.CompactFunc(names, bytes.Equal), all, nil
}

// symbolTable reads the symbols and looks up the sorted names in them. It does not look
// them up in unsorted symbols, in which a server finds only some names.
func symbolTable(f *File, off uint64, names [][]byte) (sorted bool, err error) {
	s, err := openSection(f, off, "symbols")
	if err != nil {
		return false, err
	}
	count, err := s.uint32()
	if err != nil {
		return false, err
	}
	var symbol, last []byte
	sorted = true
	for i := uint32(0); i < count; i++ {
		n, err := s.uvarint()
		if err != nil {
			return false, err
		}
		if symbol, err = s.take(symbol, n, maxNameBytes); err != nil {
			return false, err
		}
		sorted = sorted && (i == 0 || bytes.Compare(last, symbol) <= 0)
		if len(names) > 0 && bytes.Equal(names[0], symbol) {
			names = names[1:]
		}
		last, symbol = symbol, last
	}
	if err := s.finish(); err != nil {
		return false, err
	}
	if sorted && len(names) > 0 {
		return true, broken("index: the symbols lack the label name %q", names[0])
	}
	return sorted, nil
}

// smallIndex is the maximum size of a file that is read into memory, in bytes.
const smallIndex = 4 << 20

// checkSmallIndex checks an index with unsorted symbols, which no Prometheus writes, with
// the TSDB's reader. It accepts an index larger than smallIndex unchecked.
func checkSmallIndex(f *File) (err error) {
	if f.Size > smallIndex {
		return nil
	}
	b := make([]byte, f.Size)
	if err := readAt(f, b, 0, "index"); err != nil {
		return err
	}
	defer func() {
		if r := recover(); r != nil {
			err = broken("index: %v", r)
		}
	}()
	r, err := index.NewReader(byteSlice(b), index.DecodePostingsRaw)
	if err != nil {
		return broken("index: %w", err)
	}
	return r.Close()
}

// byteSlice implements [index.ByteSlice].
type byteSlice []byte

func (b byteSlice) Len() int                    { return len(b) }
func (b byteSlice) Range(start, end int) []byte { return b[start:end] }

// tombstonesHead is the size of magic and version, in bytes.
const tombstonesHead = 4 + 1

// checkTombstones checks a tombstones file like tombstones.ReadTombstones.
func checkTombstones(f *File) error {
	if f.Size < tombstonesHead+crc32.Size {
		return broken("tombstones has %d bytes, less than a header and a checksum", f.Size)
	}
	var head [tombstonesHead]byte
	if err := readAt(f, head[:], 0, "tombstones"); err != nil {
		return err
	}
	if binary.BigEndian.Uint32(head[:]) != tombstones.MagicTombstone {
		return broken("tombstones has a bad magic number")
	}
	if head[4] != 1 {
		return broken("tombstones has unknown format version %d", head[4])
	}
	var sum [crc32.Size]byte
	if err := readAt(f, sum[:], f.Size-crc32.Size, "tombstones"); err != nil {
		return err
	}
	n := f.Size - tombstonesHead - crc32.Size
	s := &section{
		r: bufio.NewReader(io.NewSectionReader(f, tombstonesHead, n)), left: n, want: binary.BigEndian.Uint32(sum[:]),
	}
	endless := false
	for s.left > 0 {
		for i := range 3 { // series, first and last time
			v, err := s.uvarint()
			if _, bad := errors.AsType[*brokenError](err); bad {
				return broken("tombstones has an invalid number")
			}
			if err != nil {
				return err
			}
			endless = endless || i == 2 && v == math.MaxUint64-1 // math.MaxInt64 in zigzag encoding
		}
	}
	if err := s.finish(); err != nil {
		return err
	}
	if s.sum != s.want {
		return broken("tombstones: bad checksum")
	}
	if endless && f.Size < smallIndex {
		return decodeTombstones(f)
	}
	return nil
}

// decodeTombstones runs the TSDB's decoder, which panics on some deletions that end at
// math.MaxInt64. A server then panics as well.
func decodeTombstones(f *File) (err error) {
	b := make([]byte, f.Size)
	if err := readAt(f, b, 0, "tombstones"); err != nil {
		return err
	}
	defer func() {
		if r := recover(); r != nil {
			err = broken("tombstones cannot be decoded: %v", r)
		}
	}()
	if _, err := tombstones.Decode(b[4 : len(b)-crc32.Size]); err != nil {
		return broken("tombstones: %w", err)
	}
	return nil
}

// segmentsNeeded returns the number of chunk segments that the last series of an index
// refer to. A writer adds series and chunks in the same order, so no earlier series refers
// to a later segment. all is the offset of the list of all series. If the series cannot be
// read, segmentsNeeded returns [unknown]; readers of the series report the error later.
func segmentsNeeded(f *File, version int, all int64) int {
	const looks = 8 // series at the end may have no chunks, so several are read
	var head [8]byte
	if readAt(f, head[:], all, "index") != nil {
		return unknown
	}
	count := int64(binary.BigEndian.Uint32(head[4:]))
	needed := 0
	for i := max(0, count-looks); i < count; i++ {
		var id [4]byte
		if readAt(f, id[:], all+8+4*i, "index") != nil {
			return unknown
		}
		off := int64(binary.BigEndian.Uint32(id[:]))
		if version != index.FormatV1 {
			off *= 16
		}
		n, ok := lastSegment(f, off)
		if !ok {
			return unknown
		}
		needed = max(needed, n)
	}
	if needed == 0 && count > looks {
		return unknown
	}
	return needed
}

// lastSegment returns the number of the last chunk segment that the series at off refers
// to, counted from 1. It returns 0 if the series has no chunks, and false if the series
// cannot be read.
func lastSegment(f *File, off int64) (int, bool) {
	if off >= f.Size {
		return 0, false
	}
	r := bufio.NewReaderSize(io.NewSectionReader(f, off, f.Size-off), 4<<10)
	ok := true
	next := func() uint64 {
		v, err := binary.ReadUvarint(r)
		ok = ok && err == nil
		return v
	}
	next() // length of the series entry
	labels := next()
	for i := uint64(0); i < 2*labels && ok; i++ {
		next()
	}
	count := next()
	var ref, most int64
	for i := uint64(0); i < count && ok; i++ {
		next() // first time
		next() // last time
		if i == 0 {
			ref = int64(next())
		} else {
			ref += unzigzag(next())
		}
		most = max(most, ref>>32+1)
	}
	return int(most), ok && most < math.MaxInt32
}

// unzigzag decodes a signed number in zigzag encoding.
func unzigzag(v uint64) int64 { return int64(v>>1) ^ -int64(v&1) }
