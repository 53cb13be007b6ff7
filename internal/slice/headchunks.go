package slice

import (
	"context"
	"errors"
	"math"
	"slices"

	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/record"

	"github.com/promdump/promdump/internal/datadir"
	"github.com/promdump/promdump/internal/wire"
)

// findSeries reads the series records of the WAL into f.selected and f.known. It ignores
// damage, which is reported when the samples are read.
func (f *filter) findSeries(ctx context.Context, h *datadir.Head) error {
	for rec, err := range h.Records(ctx, func(datadir.Damage) {}) {
		if err != nil {
			return err
		}
		if f.dec.Type(rec) == record.Series {
			_ = f.filter(rec) // as damage: reported later
			f.take()          // discards the records
		}
	}
	return nil
}

// chunks sends the m-mapped chunks of the selected series that overlap the selection.
func (f *filter) chunks(ctx context.Context, h *datadir.Head, emit func(wire.Message) error) error {
	var msg wire.HeadChunks
	var data []byte
	flush := func() error {
		if len(msg.Chunks) == 0 {
			return nil
		}
		err := emit(&msg)
		msg.Chunks, data = msg.Chunks[:0], data[:0]
		return err
	}
	for c, err := range h.HeadChunks(ctx, f.damaged) {
		if err != nil {
			return err
		}
		if !f.wantsChunk(&c) {
			continue
		}
		if len(data) > 0 && len(data)+len(c.Data) > messageSize {
			if err := flush(); err != nil {
				return err
			}
		}
		data = slices.Grow(data, len(c.Data))
		from := len(data)
		data = append(data, c.Data...)
		msg.Chunks = append(msg.Chunks, wire.HeadChunk{Ref: c.Ref, OutOfOrder: c.OutOfOrder, Chunk: wire.Chunk{
			MinTime: c.MinTime, MaxTime: c.MaxTime, Encoding: c.Encoding, Data: data[from:len(data):len(data)],
		}})
		f.end.Chunks++
	}
	return flush()
}

// wantsChunk counts a chunk in f.end and reports whether it is selected.
func (f *filter) wantsChunk(c *datadir.HeadChunk) bool {
	if !c.OutOfOrder {
		if c.MaxTime < f.from {
			return false // a block has its samples
		}
		f.kinds.chunk(c.Ref, chunkenc.Encoding(c.Encoding))
	}
	f.count(c.Ref, c.MinTime, c.MaxTime)
	overlaps := c.MinTime <= f.sel.MaxTime && c.MaxTime >= f.sel.MinTime
	// Without matchers the receiver counts the chunks without a series record.
	if f.names() && !f.known.has(c.Ref) {
		// An out-of-order chunk stays in its file after a block has its samples and the
		// server has removed its series, so it is not counted as lost.
		if !c.OutOfOrder && (overlaps || f.hashes != nil) {
			f.end.UnknownChunkSamples += uint64(chunkSamples(c))
		}
		return false
	}
	return overlaps && (!f.matching() || f.selected.has(c.Ref))
}

// chunkSamples returns the number of samples of a chunk, which is at the beginning of its
// data in all encodings.
func chunkSamples(c *datadir.HeadChunk) int {
	if len(c.Data) < 2 {
		return 0
	}
	n := int(c.Data[0])<<8 | int(c.Data[1])
	switch chunkenc.Encoding(c.Encoding) {
	case chunkenc.EncHistogramST, chunkenc.EncFloatHistogramST:
		n &= 1<<14 - 1 // the two highest bits are the counter reset header
	}
	return n
}

// damaged adds damage to f.end. In a log, the time range of lost samples begins at the
// newest sample before the damage.
func (f *filter) damaged(d datadir.Damage) {
	if len(f.end.Damage) == wire.MaxDamage {
		f.end.MoreDamage++
		return
	}
	w := HeadDamage(d)
	if errors.Is(d.Err, datadir.ErrRepair) { // nothing is lost
		f.end.Damage = append(f.end.Damage, w)
		return
	}
	if f.newest != math.MinInt64 {
		w.After = f.newest
	}
	if f.unclosed < 0 {
		f.unclosed = len(f.end.Damage)
	}
	f.end.Damage = append(f.end.Damage, w)
	f.oldest = math.MaxInt64
}

// closeDamage ends the time range of lost samples at the oldest sample of the first record
// after the damage.
func (f *filter) closeDamage() {
	if f.unclosed < 0 || f.oldest == math.MaxInt64 {
		return
	}
	for i := range f.end.Damage[f.unclosed:] {
		f.end.Damage[f.unclosed+i].Before = f.oldest
	}
	f.unclosed = -1
}

// HeadDamage converts damage for a message. It does not set the range of lost samples.
func HeadDamage(d datadir.Damage) wire.HeadDamage {
	return wire.HeadDamage{File: d.File, Offset: d.Offset, Bytes: d.Bytes, Reason: d.Err.Error(), Fatal: d.Fatal}
}
