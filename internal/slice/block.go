package slice

import (
	"bytes"
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

	// maxChunk bounds a chunk, in bytes. Servers write a few kilobytes; a length
	// beyond it is damage, and memory is scarce here.
	maxChunk = 16 << 20
)

// Block tells the selected series of one block: BlockStart, Symbols and Series,
// BlockEnd. Chunks are selected as Prometheus' querier does, by their times in the
// index. A chunk that cannot be read is sent as wire.Unread, and a series that cannot
// be read is counted; in both cases the rest is still sent. The first skip messages
// with series are left out, and their chunks are not read: which series are in one
// depends on the block and the selection alone. It stops early without an error when
// tell returns false.
func Block(ctx context.Context, b *datadir.Block, s *Selection, skip uint64, tell func(wire.Message) bool) error {
	t := &teller{
		ctx: ctx, sel: s, tell: tell, skip: skip,
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
	ctx  context.Context
	sel  *Selection
	tell func(wire.Message) bool
	skip uint64

	chunks  []*window                  // one for each chunk file
	file    int                        // the one that was read last
	lost    bool                       // chunk files are missing: their chunks are left out
	symbol  uint64                     // number of symbols
	refs    []chunkRef                 // of the selected chunks of the series
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
		if f == nil { // it is lost, as the plan says
			t.chunks = append(t.chunks, nil)
			continue
		}
		t.chunks = append(t.chunks, &window{f: f})
	}
	t.lost = len(b.Lost) > 0
	start := &wire.BlockStart{
		ULID: b.Meta.ULID, MinTime: max(t.sel.MinTime, b.Meta.MinTime), MaxTime: min(t.sel.MaxTime, b.Meta.MaxTime-1),
		Selected: &wire.Interval{MinTime: t.sel.MinTime, MaxTime: t.sel.MaxTime}, Hints: b.Meta.Compaction.Hints,
	}
	start.MaxTime = max(start.MinTime, start.MaxTime) // meta.json may have an end before the start
	if err := t.say(start); err != nil {
		return err
	}
	if len(t.sel.lists) == 0 {
		if err := t.symbols(x, func(uint32) bool { return true }); err != nil {
			return err
		}
		err = x.all(t.entry, t.unread)
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
		if len(t.selected(e)) == 0 {
			ids.clear(e.id)
			return nil
		}
		for _, ref := range e.labels {
			used.set(uint64(ref)) // the next step reports one that is out of range
		}
		return t.ctx.Err()
	}, func(id uint64, err error) {
		ids.clear(id)
		t.unread(id, err)
	})
	if err != nil {
		return err
	}
	if err := t.symbols(x, func(ref uint32) bool { return used.has(uint64(ref)) }); err != nil {
		return err
	}
	return x.some(ids, t.entry, t.unread)
}

// unread counts a series that cannot be read.
func (t *teller) unread(_ uint64, err error) {
	if t.end.Unread++; t.end.Unread == 1 {
		t.end.Reason = err.Error()
	}
}

// selected returns the chunks that overlap the range, in the order of the index. It
// trusts the times in the index, as Prometheus does.
func (t *teller) selected(e *entry) []chunkRef {
	t.refs = t.refs[:0]
	for _, c := range e.chunks {
		if t.lost && (c.file() >= len(t.chunks) || t.chunks[c.file()] == nil) {
			continue
		}
		if c.maxTime >= t.sel.MinTime && c.minTime <= t.sel.MaxTime {
			t.refs = append(t.refs, c)
		}
	}
	return t.refs
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
		t.symbol = uint64(ref) + 1
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
	for _, ref := range e.labels {
		if uint64(ref) >= t.symbol {
			t.unread(e.id, fmt.Errorf("series at byte %d of index has the unknown symbol %d", e.id*seriesAlign, ref))
			return nil
		}
	}
	refs := t.selected(e)
	if len(refs) == 0 {
		return nil
	}
	t.series.Labels, t.series.Deleted = e.labels, t.deleted[e.id]
	t.end.Series++
	t.end.Chunks += uint64(len(refs))
	for len(refs) > 0 {
		// The content of a message does not depend on what can be read, because
		// messages are counted when a stream is resumed.
		n := fit(refs)
		if t.skip > 0 {
			t.skip--
			refs = refs[n:]
			continue
		}
		t.read(refs[:n])
		refs = refs[n:]
		t.series.More = len(refs) > 0
		if err := t.say(&t.series); err != nil {
			return err
		}
	}
	return nil
}

// fit is how many of the chunks lie together closely enough to be read at once.
func fit(chunks []chunkRef) int {
	for i, c := range chunks[1:] {
		if c.file() != chunks[0].file() || c.offset() <= chunks[i].offset() || c.offset()-chunks[0].offset() > messageSize {
			return i + 1
		}
	}
	return len(chunks)
}

// read gets the chunks into t.series, as views of their file's window.
func (t *teller) read(refs []chunkRef) {
	t.series.Chunks = t.series.Chunks[:0]
	b, err := t.span(refs)
	if err != nil && len(refs) > 1 {
		// One of the chunks is damaged or beyond the end of the file. Views of the
		// window are valid until the next read, so each chunk is copied.
		for _, ref := range refs {
			b, err := t.span([]chunkRef{ref})
			t.chunk(ref, bytes.Clone(b), err)
		}
		return
	}
	for _, ref := range refs {
		if err != nil {
			t.chunk(ref, nil, err)
			continue
		}
		t.chunk(ref, b[ref.offset()-refs[0].offset():], nil)
	}
}

// chunk adds a chunk to t.series that begins b, or that cannot be read.
func (t *teller) chunk(ref chunkRef, b []byte, err error) {
	var c wire.Chunk
	if err == nil {
		c, err = parseChunk(b)
	}
	if err != nil {
		c = wire.Chunk{Encoding: wire.Unread,
			Data: fmt.Appendf(nil, "chunks/%06d at byte %d: %v", ref.file()+1, ref.offset(), err)}
	}
	c.MinTime, c.MaxTime = ref.minTime, ref.maxTime
	t.series.Chunks = append(t.series.Chunks, c)
}

// span reads from the start of the first chunk to the end of the last one.
func (t *teller) span(refs []chunkRef) ([]byte, error) {
	first, last := refs[0], refs[len(refs)-1]
	if first.file() >= len(t.chunks) {
		return nil, errors.New("there is no such file")
	}
	if t.file != first.file() {
		// Series go through the files in order; a block may have hundreds.
		if w := t.chunks[t.file]; w != nil {
			w.buf = nil
		}
		t.file = first.file()
	}
	w := t.chunks[first.file()]
	span := int(last.offset() - first.offset())
	b, err := w.at(first.offset(), span+chunkGuess)
	if err != nil {
		return nil, err
	}
	if len(b) < span {
		return nil, io.ErrUnexpectedEOF
	}
	size, n := binary.Uvarint(b[span:])
	if n <= 0 || size > maxChunk {
		return nil, errNoChunk
	}
	return w.at(first.offset(), span+n+1+int(size)+crc32.Size)
}

var errNoChunk = errors.New("no whole chunk")

func parseChunk(b []byte) (wire.Chunk, error) {
	size, n := binary.Uvarint(b)
	if n <= 0 || size > maxChunk || len(b) < n+1+int(size)+crc32.Size {
		return wire.Chunk{}, errNoChunk
	}
	body := b[n : n+1+int(size)]
	if crc32.Checksum(body, castagnoli) != binary.BigEndian.Uint32(b[n+len(body):]) {
		return wire.Chunk{}, errors.New("its checksum differs")
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
