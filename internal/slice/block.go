package slice

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/prometheus/prometheus/tsdb/tombstones"

	"github.com/promdump/promdump/internal/datadir"
	"github.com/promdump/promdump/internal/wire"
)

const (
	// messageSize is how much one message carries before the next is begun, in bytes.
	messageSize = 1 << 20

	// chunkGuess is read for a chunk whose length is not known yet: more than
	// nearly every chunk has.
	chunkGuess = 1 << 10
)

// Block tells the selected series of one block: BlockStart, Symbols and Series,
// BlockEnd. The first skip messages with series are left out, and their chunks
// are not read: which series are in one depends on the block and the selection
// alone. It stops early without an error when tell gives false.
func Block(ctx context.Context, b *datadir.Block, s *Selection, skip uint64, tell func(wire.Message) bool) error {
	t := &teller{
		ctx: ctx, sel: s, tell: tell, skip: skip,
		min: max(s.MinTime, b.Meta.MinTime),
		max: min(s.MaxTime, b.Meta.MaxTime-1),
	}
	err := t.block(b)
	if errors.Is(err, errStop) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read block %s: %w", b.Meta.ULID, err)
	}
	return nil
}

type teller struct {
	ctx      context.Context
	sel      *Selection
	tell     func(wire.Message) bool
	skip     uint64
	min, max int64 // of the block that is cut, Unix milliseconds, both included

	chunks  []*window                  // one for each chunk file
	file    int                        // the one that was read last
	deleted map[uint64][]wire.Interval // by series id
	series  wire.Series
	end     wire.BlockEnd
}

func (t *teller) say(m wire.Message) error {
	if err := t.ctx.Err(); err != nil {
		return err
	}
	if !t.tell(m) {
		return errStop
	}
	return nil
}

func (t *teller) block(b *datadir.Block) error {
	f := b.File("index")
	if f == nil {
		return errors.New("it has no index")
	}
	x, err := openIndex(f)
	if err != nil {
		return err
	}
	if t.deleted, err = deletions(b.File("tombstones")); err != nil {
		return err
	}
	for _, f := range b.Chunks() {
		t.chunks = append(t.chunks, &window{f: f})
	}
	if err := t.say(&wire.BlockStart{ULID: b.Meta.ULID, MinTime: t.min, MaxTime: t.max, Hints: b.Meta.Compaction.Hints}); err != nil {
		return err
	}
	if len(t.sel.lists) == 0 {
		if err := t.symbols(x, func(uint32) bool { return true }); err != nil {
			return err
		}
		err = x.all(t.entry)
	} else {
		err = t.matched(x)
	}
	if err != nil {
		return err
	}
	return t.say(&t.end)
}

// matched goes twice over the selected series: first for the symbols that they
// use, so that no others are told.
func (t *teller) matched(x *indexFile) error {
	ids, err := x.selected(t.sel)
	if err != nil {
		return err
	}
	// A symbol takes two bytes of the index at least.
	used := newBits(x.toc.Series / 2)
	err = x.some(ids, func(e *entry) error {
		if !t.inRange(e) {
			ids.clear(e.id)
			return nil
		}
		for _, ref := range e.labels {
			if !used.set(uint64(ref)) {
				return fmt.Errorf("a series has the unknown symbol %d", ref)
			}
		}
		return t.ctx.Err()
	})
	if err != nil {
		return err
	}
	if err := t.symbols(x, func(ref uint32) bool { return used.has(uint64(ref)) }); err != nil {
		return err
	}
	return x.some(ids, t.entry)
}

func (t *teller) inRange(e *entry) bool {
	for _, c := range e.chunks {
		if c.minTime <= t.max && c.maxTime >= t.min {
			return true
		}
	}
	return false
}

func (t *teller) symbols(x *indexFile, wanted func(uint32) bool) error {
	var msg wire.Symbols
	var size int
	flush := func() error {
		if len(msg.Refs) == 0 {
			return nil
		}
		err := t.say(&msg)
		msg.Refs, msg.Strings, size = msg.Refs[:0], msg.Strings[:0], 0
		return err
	}
	var failed error
	err := x.symbols(func(ref uint32, symbol []byte) bool {
		if !wanted(ref) {
			return true
		}
		if size > 0 && size+len(symbol) > messageSize {
			if failed = flush(); failed != nil {
				return false
			}
		}
		msg.Refs, msg.Strings = append(msg.Refs, ref), append(msg.Strings, string(symbol))
		size += len(symbol) + 8
		return true
	})
	if failed != nil {
		return failed
	}
	if err != nil {
		return err
	}
	return flush()
}

// entry tells one series, with the chunks that overlap the range.
func (t *teller) entry(e *entry) error {
	from, to := 0, len(e.chunks)
	for from < to && e.chunks[from].maxTime < t.min {
		from++
	}
	for from < to && e.chunks[to-1].minTime > t.max {
		to--
	}
	if from == to {
		return nil
	}
	t.series.Labels, t.series.Deleted = e.labels, t.deleted[e.id]
	t.end.Series++
	t.end.Chunks += uint64(to - from)
	for from < to {
		n := t.fit(e.chunks[from:to])
		if t.skip > 0 {
			t.skip--
			from += n
			continue
		}
		if err := t.read(e.chunks[from : from+n]); err != nil {
			return err
		}
		from += n
		t.series.More = from < to
		if err := t.say(&t.series); err != nil {
			return err
		}
	}
	return nil
}

// fit is how many of the chunks lie together closely enough to be read at once.
func (t *teller) fit(chunks []chunkRef) int {
	for i, c := range chunks[1:] {
		if c.file() != chunks[0].file() || c.offset() <= chunks[i].offset() || c.offset()-chunks[0].offset() > messageSize {
			return i + 1
		}
	}
	return len(chunks)
}

// read gets the chunks into t.series, as views of their file's window.
func (t *teller) read(refs []chunkRef) error {
	first, last := refs[0], refs[len(refs)-1]
	if first.file() >= len(t.chunks) {
		return fmt.Errorf("index names the chunk file %06d, which is not there", first.file()+1)
	}
	if t.file != first.file() {
		// Series go through the files in order; a block may have hundreds.
		t.chunks[t.file].buf = nil
		t.file = first.file()
	}
	w := t.chunks[first.file()]
	span := int(last.offset() - first.offset())
	b, err := w.at(first.offset(), span+chunkGuess)
	if err != nil {
		return err
	}
	if len(b) < span {
		return fmt.Errorf("read %s at byte %d: %w", w.f.Name, last.offset(), io.ErrUnexpectedEOF)
	}
	size, n := binary.Uvarint(b[span:])
	if n <= 0 || size > maxEntry {
		return fmt.Errorf("%s has no chunk at byte %d", w.f.Name, last.offset())
	}
	if b, err = w.at(first.offset(), span+n+1+int(size)+crc32.Size); err != nil {
		return err
	}
	t.series.Chunks = t.series.Chunks[:0]
	for _, ref := range refs {
		c, err := parseChunk(b[ref.offset()-first.offset():])
		if err != nil {
			return fmt.Errorf("%s at byte %d: %w", w.f.Name, ref.offset(), err)
		}
		c.MinTime, c.MaxTime = ref.minTime, ref.maxTime
		t.series.Chunks = append(t.series.Chunks, c)
	}
	return nil
}

func parseChunk(b []byte) (wire.Chunk, error) {
	size, n := binary.Uvarint(b)
	if n <= 0 || size > maxEntry || len(b) < n+1+int(size)+crc32.Size {
		return wire.Chunk{}, errors.New("no whole chunk")
	}
	body := b[n : n+1+int(size)]
	if crc32.Checksum(body, castagnoli) != binary.BigEndian.Uint32(b[n+len(body):]) {
		return wire.Chunk{}, errors.New("chunk is damaged: its checksum differs")
	}
	return wire.Chunk{Encoding: body[0], Data: body[1:]}, nil
}

// deletions reads a tombstones file: what is deleted of which series. A block without one has none.
func deletions(f *datadir.File) (map[uint64][]wire.Interval, error) {
	if f == nil {
		return nil, nil
	}
	if f.Size > maxEntry {
		return nil, fmt.Errorf("tombstones has %d bytes, more than can be held", f.Size)
	}
	b, err := io.ReadAll(f.Body())
	if err != nil {
		return nil, fmt.Errorf("read tombstones: %w", err)
	}
	const magic, sum = 4, crc32.Size
	if len(b) < magic+1+sum || binary.BigEndian.Uint32(b) != tombstones.MagicTombstone {
		return nil, errors.New("tombstones does not begin as a tombstones file does")
	}
	body := b[magic : len(b)-sum]
	// The checksum leaves the version byte out.
	if crc32.Checksum(body[1:], castagnoli) != binary.BigEndian.Uint32(b[len(b)-sum:]) {
		return nil, errors.New("tombstones is damaged: its checksum differs")
	}
	// Not by the TSDB's decoder: it panics on some deletions without an end.
	d := numbers{b: body[1:]}
	out := map[uint64][]wire.Interval{}
	for len(d.b) > 0 && !d.bad {
		id := d.uvarint()
		out[id] = append(out[id], wire.Interval{MinTime: d.varint(), MaxTime: d.varint()})
	}
	if d.bad || body[0] != 1 {
		return nil, errors.New("tombstones has a format that is not known")
	}
	return out, nil
}
