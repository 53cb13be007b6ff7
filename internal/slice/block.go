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
	// messageSize is the target size of a message, in bytes.
	messageSize = 1 << 20

	// chunkGuess is the number of bytes that are read for a chunk of unknown length.
	// Nearly all chunks are smaller.
	chunkGuess = 1 << 10

	// maxChunk is the maximum size of a chunk, in bytes. Servers write a few kilobytes. A
	// longer one is damage: its length must not determine how much memory is used.
	maxChunk = 16 << 20
)

// Block sends the selected series of one block: BlockStart, Symbols and Series, BlockEnd.
// It selects chunks like Prometheus' querier, by their times in the index. It sends a
// chunk that it cannot read as [wire.Unread] and counts the series that it cannot read in
// BlockEnd; it sends the rest in both cases. An error means that the index or the
// tombstones cannot be used, or that ctx is done.
//
// Block does not send the first skip Series messages and does not read their chunks. The
// series of a message depend on the block and the selection only, so a resumed stream can
// count messages.
//
// A message is valid during the call of send. Block stops without an error when send
// returns false.
func Block(ctx context.Context, b *datadir.Block, s *Selection, skip uint64, send func(wire.Message) bool) error {
	r := &blockReader{ctx: ctx, sel: s, send: send, skip: skip}
	err := r.block(b)
	if errors.Is(err, errStop) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read block %s: %w", b.Meta.ULID, err)
	}
	return nil
}

// blockReader reads the selected series of a block for [Block].
type blockReader struct {
	ctx  context.Context
	sel  *Selection
	send func(wire.Message) bool
	skip uint64 // Series messages that are not sent

	chunks  []*window                  // one for each chunk file; nil: missing
	file    int                        // index in chunks of the last read
	lost    bool                       // chunk files are missing: their chunks are skipped
	symbol  uint64                     // number of symbols
	refs    []chunkRef                 // selected chunks of the current series
	deleted map[uint64][]wire.Interval // by series id
	series  wire.Series                // current message
	end     wire.BlockEnd
}

// emit sends a message. It returns errStop if send returns false.

func (r *blockReader) emit(m wire.Message) error {
	if err := r.ctx.Err(); err != nil {
		return err
	}
	if !r.send(m) {
		return errStop
	}
	return nil
}

// block sends all messages.
func (r *blockReader) block(b *datadir.Block) error {
	f := b.File("index")
	if f == nil {
		return errors.New("no index")
	}
	x, err := openIndex(f)
	if err != nil {
		return err
	}
	if r.deleted, err = deletions(b.File("tombstones")); err != nil {
		return err
	}
	for _, f := range b.Chunks() {
		if f == nil { // missing; the plan reports it
			r.chunks = append(r.chunks, nil)
			continue
		}
		r.chunks = append(r.chunks, &window{f: f})
	}
	r.lost = len(b.Lost) > 0
	start := &wire.BlockStart{
		ULID: b.Meta.ULID, MinTime: max(r.sel.MinTime, b.Meta.MinTime), MaxTime: min(r.sel.MaxTime, b.Meta.MaxTime-1),
		Selected: &wire.Interval{MinTime: r.sel.MinTime, MaxTime: r.sel.MaxTime}, Hints: b.Meta.Compaction.Hints,
	}
	start.MaxTime = max(start.MinTime, start.MaxTime) // in meta.json the end may be before the start
	if err := r.emit(start); err != nil {
		return err
	}
	if len(r.sel.lists) == 0 {
		if err := r.symbols(x, func(uint32) bool { return true }); err != nil {
			return err
		}
		err = x.all(r.entry, r.unread)
	} else {
		err = r.matched(x)
	}
	if err != nil {
		return err
	}
	return r.emit(&r.end)
}

// matched sends the symbols and the series of a selection with matchers. It reads the series
// twice: the first pass finds the symbols that they use, so that it sends no others.
func (r *blockReader) matched(x *indexFile) error {
	ids, err := x.selected(r.sel, r.unread)
	if err != nil {
		return err
	}
	// A symbol has at least two bytes in the index, before the series.
	used := newBits(x.toc.Series / 2)
	err = x.some(ids, func(e *entry) error {
		if len(r.selected(e)) == 0 {
			ids.clear(e.id)
			return nil
		}
		for _, ref := range e.labels {
			used.set(uint64(ref)) // entry reports one that is out of range
		}
		return r.ctx.Err()
	}, func(id uint64, err error) {
		ids.clear(id)
		r.unread(id, err)
	})
	if err != nil {
		return err
	}
	if err := r.symbols(x, func(ref uint32) bool { return used.has(uint64(ref)) }); err != nil {
		return err
	}
	return x.some(ids, r.entry, r.unread)
}

// unread counts a series that cannot be read, and keeps the first error as the reason.
func (r *blockReader) unread(_ uint64, err error) {
	if r.end.Unread++; r.end.Unread == 1 {
		r.end.Reason = err.Error()
	}
}

// selected returns the chunks of e that overlap the range, in the order of the index. Like
// Prometheus it relies on the times in the index. It skips chunks in missing files.
func (r *blockReader) selected(e *entry) []chunkRef {
	r.refs = r.refs[:0]
	for _, c := range e.chunks {
		if r.lost && (c.file() >= len(r.chunks) || r.chunks[c.file()] == nil) {
			continue
		}
		if c.maxTime >= r.sel.MinTime && c.minTime <= r.sel.MaxTime {
			r.refs = append(r.refs, c)
		}
	}
	return r.refs
}

// symbols sends the symbols for which wanted returns true.
func (r *blockReader) symbols(x *indexFile, wanted func(uint32) bool) error {
	var msg wire.Symbols
	var size int
	flush := func() error {
		if len(msg.Refs) == 0 {
			return nil
		}
		err := r.emit(&msg)
		msg.Refs, msg.Strings, size = msg.Refs[:0], msg.Strings[:0], 0
		return err
	}
	var failed error
	err := x.symbols(func(ref uint32, symbol []byte) bool {
		r.symbol = uint64(ref) + 1
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

// entry sends one series with the chunks that overlap the range, in one or more messages.
func (r *blockReader) entry(e *entry) error {
	for _, ref := range e.labels {
		if uint64(ref) >= r.symbol {
			r.unread(e.id, fmt.Errorf("series %d of index has unknown symbol %d", e.id, ref))
			return nil
		}
	}
	refs := r.selected(e)
	if len(refs) == 0 {
		return nil
	}
	r.series.Labels, r.series.Deleted = e.labels, r.deleted[e.id]
	r.end.Series++
	r.end.Chunks += uint64(len(refs))
	for len(refs) > 0 {
		// The chunks of a message must not depend on which of them can be read: a resumed
		// stream counts messages.
		n := fit(refs)
		if r.skip > 0 {
			r.skip--
			refs = refs[n:]
			continue
		}
		r.read(refs[:n])
		refs = refs[n:]
		r.series.More = len(refs) > 0
		if err := r.emit(&r.series); err != nil {
			return err
		}
	}
	return nil
}

// fit returns the number of chunks that one read and one message can hold: those in the same
// file, in order, within messageSize.
func fit(chunks []chunkRef) int {
	for i, c := range chunks[1:] {
		ordered := c.file() == chunks[0].file() && c.offset() > chunks[i].offset()
		if !ordered || c.offset()-chunks[0].offset() > messageSize {
			return i + 1
		}
	}
	return len(chunks)
}

// read reads the chunks into r.series. The data are valid until the next read.
func (r *blockReader) read(refs []chunkRef) {
	r.series.Chunks = r.series.Chunks[:0]
	b, err := r.span(refs)
	if err != nil && len(refs) > 1 {
		// One of the chunks is damaged or beyond the end of the file. Each is read on its
		// own and copied, because the next read overwrites the window.
		for _, ref := range refs {
			b, err := r.span([]chunkRef{ref})
			r.chunk(ref, bytes.Clone(b), err)
		}
		return
	}
	for _, ref := range refs {
		if err != nil {
			r.chunk(ref, nil, err)
			continue
		}
		r.chunk(ref, b[ref.offset()-refs[0].offset():], nil)
	}
}

// chunk adds the chunk at the beginning of b to r.series, or an unread one if err is not nil
// or the chunk is damaged.
func (r *blockReader) chunk(ref chunkRef, b []byte, err error) {
	var c wire.Chunk
	if err == nil {
		c, err = parseChunk(b)
	}
	if err != nil {
		c = wire.Chunk{Encoding: wire.Unread,
			Data: fmt.Appendf(nil, "chunks/%06d at byte %d: %v", ref.file()+1, ref.offset(), err)}
	}
	c.MinTime, c.MaxTime = ref.minTime, ref.maxTime
	r.series.Chunks = append(r.series.Chunks, c)
}

// span reads from the start of the first chunk to the end of the last one. All are in one
// file.
func (r *blockReader) span(refs []chunkRef) ([]byte, error) {
	first, last := refs[0], refs[len(refs)-1]
	if first.file() >= len(r.chunks) {
		return nil, errors.New("the file is missing")
	}
	if r.file != first.file() {
		// Frees the buffer: series use the files in order, and a block may have hundreds.
		if w := r.chunks[r.file]; w != nil {
			w.buf = nil
		}
		r.file = first.file()
	}
	w := r.chunks[first.file()]
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

var errNoChunk = errors.New("incomplete chunk")

// parseChunk parses the chunk at the beginning of b and checks its checksum.
func parseChunk(b []byte) (wire.Chunk, error) {
	size, n := binary.Uvarint(b)
	if n <= 0 || size > maxChunk || len(b) < n+1+int(size)+crc32.Size {
		return wire.Chunk{}, errNoChunk
	}
	body := b[n : n+1+int(size)]
	if crc32.Checksum(body, castagnoli) != binary.BigEndian.Uint32(b[n+len(body):]) {
		return wire.Chunk{}, errors.New("bad checksum")
	}
	return wire.Chunk{Encoding: body[0], Data: body[1:]}, nil
}

// deletions reads a tombstones file. It returns the deleted intervals by series id, and nil
// for a block without the file.
func deletions(f *datadir.File) (map[uint64][]wire.Interval, error) {
	if f == nil {
		return nil, nil
	}
	if f.Size > maxEntry {
		return nil, fmt.Errorf("tombstones is too large (%d bytes)", f.Size)
	}
	b, err := io.ReadAll(f.Body())
	if err != nil {
		return nil, fmt.Errorf("read tombstones: %w", err)
	}
	const magic, sum = 4, crc32.Size
	if len(b) < magic+1+sum || binary.BigEndian.Uint32(b) != tombstones.MagicTombstone {
		return nil, errors.New("tombstones has a bad magic number")
	}
	body := b[magic : len(b)-sum]
	// The checksum does not cover the version byte.
	if crc32.Checksum(body[1:], castagnoli) != binary.BigEndian.Uint32(b[len(b)-sum:]) {
		return nil, errors.New("tombstones: bad checksum")
	}
	// The TSDB's decoder panics on some deletions that end at math.MaxInt64.
	d := numbers{b: body[1:]}
	out := map[uint64][]wire.Interval{}
	for len(d.b) > 0 && !d.bad {
		id := d.uvarint()
		out[id] = append(out[id], wire.Interval{MinTime: d.varint(), MaxTime: d.varint()})
	}
	if d.bad || body[0] != 1 {
		return nil, errors.New("tombstones has an unknown format")
	}
	return out, nil
}
