package block

import (
	"encoding/binary"
	"hash/crc32"
	"hash/maphash"
	"io"
	mathbits "math/bits"
	"os"
	"path/filepath"
	"slices"
)

// SeriesCounter counts the distinct series of several blocks: a series that is in two
// of them is one. The index files of the blocks are written to it from start to end, so
// that a block that is being received need not be stored. It holds eight bytes for each
// series, and for each symbol of one block.
//
// The number is not exact if an index cannot be read this way; [SeriesCounter.Count]
// reports that. Series are distinguished by a 64-bit hash.
type SeriesCounter struct {
	seed    maphash.Seed
	ids     []uint64 // of series; the first `compact` are sorted and distinct
	compact int      // see ids
	inexact bool
}

// NewSeriesCounter makes a counter that has seen no block.
func NewSeriesCounter() *SeriesCounter { return &SeriesCounter{seed: maphash.MakeSeed()} }

const (
	maxCounted   = 16 << 20 // distinct series, 128 MiB
	minCompacted = 1 << 16
	maxIndexItem = 16 << 20 // bytes of one series or symbol
)

// Count returns the number of distinct series of the indexes that are done. exact is
// false if an index could not be read.
func (c *SeriesCounter) Count() (n uint64, exact bool) {
	c.compactIDs()
	return uint64(len(c.ids)), !c.inexact
}

func (c *SeriesCounter) add(id uint64) {
	if c.inexact {
		return
	}
	c.ids = append(c.ids, id)
	if len(c.ids) < max(minCompacted, 2*c.compact) {
		return
	}
	c.compactIDs()
	if len(c.ids) > maxCounted {
		c.inexact, c.ids, c.compact = true, nil, 0
	}
}

func (c *SeriesCounter) compactIDs() {
	slices.Sort(c.ids)
	c.ids = slices.Compact(c.ids)
	c.compact = len(c.ids)
}

// Fork returns a counter that has seen no block, for Merge.
func (c *SeriesCounter) Fork() *SeriesCounter { return &SeriesCounter{seed: c.seed} }

// Merge adds the blocks of a counter that Fork made.
func (c *SeriesCounter) Merge(o *SeriesCounter) {
	c.inexact = c.inexact || o.inexact
	for _, id := range o.ids {
		c.add(id)
	}
}

// Block counts the series of a block on this machine. The argument series is the count
// in its meta.json.
func (c *SeriesCounter) Block(dir string, series uint64) error {
	f, err := os.Open(filepath.Join(dir, "index"))
	if err != nil {
		c.inexact = true
		return err
	}
	defer f.Close()
	i := c.Index(series)
	_, err = io.Copy(i, f)
	i.Done()
	return err
}

// Index returns a counter for the index of one more block. The argument series is the
// count in its meta.json.
func (c *SeriesCounter) Index(series uint64) *IndexCounter {
	return &IndexCounter{all: c, want: series, next: (*IndexCounter).header}
}

// Forget says that an index which was counted does not count: which of its series are in
// others as well is not known.
func (c *SeriesCounter) Forget() { c.inexact = true }

// IndexCounter takes the bytes of an index file.
type IndexCounter struct {
	all     *SeriesCounter
	want    uint64
	found   uint64
	symbols []uint64 // their hashes
	left    uint64   // symbols to come
	buf     []byte   // bytes that are not parsed yet
	pos     int64    // offset of buf in the file

	next func(*IndexCounter, []byte) (used int, ok bool) // nil: the rest is not needed
}

// Write parses the next bytes of the file. It never fails: an index that cannot be read
// makes the count inexact.
func (i *IndexCounter) Write(p []byte) (int, error) {
	if i.next == nil {
		return len(p), nil
	}
	data, begun := p, i.pos
	if len(i.buf) > 0 {
		i.buf = append(i.buf, p...)
		data = i.buf
	}
	held := len(i.buf) > 0
	for i.next != nil {
		used, ok := i.next(i, data)
		if !ok {
			break
		}
		data = data[used:]
		i.pos += int64(used)
	}
	if i.next == nil || len(data) > maxIndexItem {
		i.next, i.buf = nil, nil
		return len(p), nil
	}
	if !held || i.pos > begun { // else it is in ids already
		i.buf = append(i.buf[:0], data...)
	}
	return len(p), nil
}

// DoneWith is Done for a block whose number of series was not known before.
func (i *IndexCounter) DoneWith(series uint64) {
	i.want = series
	i.Done()
}

// Done is called after the last byte of the file.
func (i *IndexCounter) Done() {
	if i.found != i.want {
		i.all.inexact = true
	}
	i.next, i.buf, i.symbols = nil, nil, nil
}

// Each step parses one item at the start of data. ok is false if more bytes are needed
// or i.next is nil.

// header parses the magic number and the version of the file, and the length and number
// of the symbols.
func (i *IndexCounter) header(data []byte) (int, bool) {
	const size = 4 + 1 + 4 + 4
	if len(data) < size {
		return 0, false
	}
	// In version 1 series name their symbols by offsets.
	if binary.BigEndian.Uint32(data) != 0xBAAAD700 || data[4] < 2 {
		i.next = nil
		return 0, false
	}
	i.left = uint64(binary.BigEndian.Uint32(data[9:]))
	i.next = (*IndexCounter).symbol
	return size, true
}

func (i *IndexCounter) symbol(data []byte) (int, bool) {
	if i.left == 0 {
		const checksum = 4
		if len(data) < checksum {
			return 0, false
		}
		i.next = (*IndexCounter).series
		return checksum, true
	}
	size, n := binary.Uvarint(data)
	if n < 0 || size > maxIndexItem {
		i.next = nil
		return 0, false
	}
	end := n + int(size)
	if n == 0 || len(data) < end {
		return 0, false
	}
	i.symbols = append(i.symbols, maphash.Bytes(i.all.seed, data[n:end]))
	i.left--
	return end, true
}

var indexSums = crc32.MakeTable(crc32.Castagnoli)

// series parses one series, which begins at a multiple of 16 and ends with a checksum.
// An entry whose checksum differs is behind the last series.
func (i *IndexCounter) series(data []byte) (int, bool) {
	const align = 16
	start := int(-i.pos & (align - 1))
	if len(data) < start+binary.MaxVarintLen32 {
		return 0, false
	}
	size, n := binary.Uvarint(data[start:])
	if n <= 0 || size == 0 || size > maxIndexItem {
		i.next = nil
		return 0, false
	}
	begin := start + n
	end := begin + int(size)
	if len(data) < end+crc32.Size {
		return 0, false
	}
	body := data[begin:end]
	id, ok := i.id(body)
	if !ok || crc32.Checksum(body, indexSums) != binary.BigEndian.Uint32(data[end:]) {
		i.next = nil
		return 0, false
	}
	i.found++
	i.all.add(id)
	return end + crc32.Size, true
}

// id returns a hash of the labels of a series that does not depend on their order.
func (i *IndexCounter) id(body []byte) (id uint64, ok bool) {
	next := func() uint64 {
		v, n := binary.Uvarint(body)
		if n <= 0 {
			ok = false
			return 0
		}
		body = body[n:]
		return v
	}
	ok = true
	for range next() {
		name, value := next(), next()
		if !ok || name >= uint64(len(i.symbols)) || value >= uint64(len(i.symbols)) {
			return 0, false
		}
		// Odd constants: a name and a value that are the same do not cancel out.
		x, y := i.symbols[name]^0x9e3779b97f4a7c15, mathbits.RotateLeft64(i.symbols[value], 32)^0xd6e8feb86659fd93
		high, low := mathbits.Mul64(x, y)
		id += high ^ low
	}
	return id, ok
}
