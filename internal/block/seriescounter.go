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

// SeriesCounter counts the distinct series of several blocks. It reads the index files of the
// blocks as streams, so a block that is being received need not be stored. It holds eight bytes
// for each series and for each symbol of one block, at most for 16 million series.
//
// The number is not exact if an index cannot be read as a stream or there are too many series;
// [SeriesCounter.Count] reports that. A SeriesCounter identifies series by a 64-bit hash.
type SeriesCounter struct {
	seed    maphash.Seed
	ids     []uint64 // hashes of series; the first compact of them are sorted and distinct
	compact int
	inexact bool
}

// NewSeriesCounter returns a counter of no blocks.
func NewSeriesCounter() *SeriesCounter { return &SeriesCounter{seed: maphash.MakeSeed()} }

const (
	maxCounted   = 16 << 20 // distinct series, 128 MiB
	minCompacted = 1 << 16
	maxIndexItem = 16 << 20 // bytes of one series or symbol
)

// Count returns the number of distinct series of the blocks so far. exact is false if the
// series of a block could not be counted or [SeriesCounter.Forget] was called.
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

// Fork returns a counter of no blocks, for Merge.
func (c *SeriesCounter) Fork() *SeriesCounter { return &SeriesCounter{seed: c.seed} }

// Merge adds the series of a counter that Fork of c returned.
func (c *SeriesCounter) Merge(o *SeriesCounter) {
	c.inexact = c.inexact || o.inexact
	for _, id := range o.ids {
		c.add(id)
	}
}

// Block counts the series of the block in dir. series is the number in its meta.json.
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

// Index returns a writer for the index file of one more block. series is the number in the
// block's meta.json. The caller must call [IndexCounter.Done] after the last byte, and must not
// write two indexes at once.
func (c *SeriesCounter) Index(series uint64) *IndexCounter {
	return &IndexCounter{all: c, want: series, next: (*IndexCounter).header}
}

// Forget makes the count inexact. Call it for a block that was counted and is not part of the
// result: its series cannot be subtracted, because other blocks may have them too.
func (c *SeriesCounter) Forget() { c.inexact = true }

// IndexCounter counts the series of an index file that is written to it.
type IndexCounter struct {
	all     *SeriesCounter
	want    uint64   // number of series in meta.json
	found   uint64   // number of series so far
	symbols []uint64 // hashes
	left    uint64   // number of symbols that follow
	buf     []byte   // unparsed bytes
	pos     int64    // offset of buf in the file

	next func(*IndexCounter, []byte) (used int, ok bool) // nil: the rest is not needed
}

// Write parses the next bytes of the file. It never returns an error: an index that cannot be
// read makes the count inexact.
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
	if !held || i.pos > begun { // otherwise buf already holds data
		i.buf = append(i.buf[:0], data...)
	}
	return len(p), nil
}

// DoneWith is like Done for an index whose number of series, in meta.json, was unknown before.
func (i *IndexCounter) DoneWith(series uint64) {
	i.want = series
	i.Done()
}

// Done ends the file. The count becomes inexact if the number of series differs from that in
// meta.json.
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
	// In version 1, series refer to symbols by offset.
	if binary.BigEndian.Uint32(data) != 0xBAAAD700 || data[4] < 2 {
		i.next = nil
		return 0, false
	}
	i.left = uint64(binary.BigEndian.Uint32(data[9:]))
	i.next = (*IndexCounter).symbol
	return size, true
}

// symbol parses one symbol, or the checksum after the last one.
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

// series parses one series, which begins at a multiple of 16 and ends with a checksum. An entry
// with a bad checksum ends the section: the next one follows.
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

// id returns a hash of the labels of a series, independent of their order.
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
		// The constants are odd and differ, so that an equal name and value do not cancel out.
		x, y := i.symbols[name]^0x9e3779b97f4a7c15, mathbits.RotateLeft64(i.symbols[value], 32)^0xd6e8feb86659fd93
		high, low := mathbits.Mul64(x, y)
		id += high ^ low
	}
	return id, ok
}
