package block

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sort"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/tombstones"

	"github.com/promdump/promdump/internal/wire"
)

// maxLabelBytes is the length that Prometheus' labels can hold; at it they panic.
const maxLabelBytes = 1 << 24

// Builder makes a block of the told series of a cut block. What it is told may
// come from anywhere: nothing in it makes a Builder panic. After an error the
// Builder is of no more use, and repeats the error.
type Builder struct {
	w       *writer
	outside tombstones.Intervals // the times that the spec excludes
	symbols map[uint32]string
	err     error

	// The series that is being told.
	open    bool // told in part
	refs    []uint32
	labels  labels.Labels
	drop    tombstones.Intervals // outside and what was deleted
	started bool                 // it has a chunk in w
	pending []chunks.Meta        // not yet in w
	lastMin int64                // start of the last chunk told

	lb  labels.ScratchBuilder
	cut cutter
	raw []*rawChunk // to be used again
	nth int         // of raw in use
}

// NewBuilder begins a block under spec.Parent. Finish or Discard must follow.
func NewBuilder(spec Spec) (*Builder, error) {
	w, err := newWriter(spec)
	if err != nil {
		return nil, err
	}
	b := &Builder{w: w, symbols: map[uint32]string{}, lb: labels.NewScratchBuilder(32)}
	if spec.MinTime > math.MinInt64 {
		b.outside = b.outside.Add(tombstones.Interval{Mint: math.MinInt64, Maxt: spec.MinTime - 1})
	}
	if spec.MaxTime < math.MaxInt64 {
		b.outside = b.outside.Add(tombstones.Interval{Mint: spec.MaxTime + 1, Maxt: math.MaxInt64})
	}
	return b, nil
}

// Symbols takes the strings that later series refer to. It keeps copies.
func (b *Builder) Symbols(s *wire.Symbols) error {
	if b.err != nil {
		return b.err
	}
	if len(s.Refs) != len(s.Strings) {
		return b.fail(fmt.Errorf("%d symbols come with %d refs", len(s.Strings), len(s.Refs)))
	}
	for i, ref := range s.Refs {
		str := s.Strings[i]
		if len(str) >= maxLabelBytes {
			return b.fail(fmt.Errorf("symbol %d has %d bytes, more than a label can hold", ref, len(str)))
		}
		if old, ok := b.symbols[ref]; ok && old != str {
			return b.fail(fmt.Errorf("symbol %d is told again with another string", ref))
		}
		b.symbols[ref] = strings.Clone(str)
	}
	return nil
}

// Series takes a series, or the next part of one, and keeps nothing of it. Series
// come in strictly increasing order of labels, chunks in the order of their start.
// The error for a chunk that must be cut and cannot be decoded for want of knowing
// its encoding is an *EncodingError.
func (b *Builder) Series(s *wire.Series) error {
	if b.err != nil {
		return b.err
	}
	return b.fail(b.series(s))
}

func (b *Builder) series(s *wire.Series) error {
	if !b.open {
		if err := b.begin(s.Labels); err != nil {
			return err
		}
	} else if !slices.Equal(s.Labels, b.refs) {
		return fmt.Errorf("series %s is not finished when another one begins", brief(b.labels))
	}
	for _, d := range s.Deleted {
		if d.MinTime > d.MaxTime {
			return fmt.Errorf("series %s: a deletion ends at %d, before its start %d", brief(b.labels), d.MaxTime, d.MinTime)
		}
		// Add panics on an interval to the end of time that begins among others.
		b.drop = b.drop.Add(tombstones.Interval{Mint: d.MinTime, Maxt: min(d.MaxTime, math.MaxInt64-1)})
	}
	for i := range s.Chunks {
		if err := b.chunk(&s.Chunks[i]); err != nil {
			return err
		}
	}
	b.open = s.More
	if err := b.flush(); err != nil {
		return err
	}
	if !b.open && b.started {
		return b.w.endSeries()
	}
	return nil
}

// begin sets the labels of a new series.
func (b *Builder) begin(refs []uint32) error {
	if len(refs) == 0 || len(refs)%2 != 0 {
		return fmt.Errorf("a series has %d label refs, not pairs of name and value", len(refs))
	}
	b.lb.Reset()
	last := ""
	for i := 0; i < len(refs); i += 2 {
		name, ok := b.symbols[refs[i]]
		if !ok {
			return fmt.Errorf("a series refers to symbol %d, which was not told", refs[i])
		}
		value, ok := b.symbols[refs[i+1]]
		if !ok {
			return fmt.Errorf("a series refers to symbol %d, which was not told", refs[i+1])
		}
		if name <= last { // so an empty name is refused as well
			return fmt.Errorf("a series has label %.300q after label %.300q: not in order", name, last)
		}
		last = name
		b.lb.Add(name, value)
	}
	b.labels = b.lb.Labels()
	b.refs = append(b.refs[:0], refs...)
	b.drop = append(b.drop[:0], b.outside...)
	b.started, b.lastMin = false, math.MinInt64
	return nil
}

// chunk puts what remains of c into pending.
func (b *Builder) chunk(c *wire.Chunk) error {
	if c.MinTime > c.MaxTime {
		return fmt.Errorf("series %s: a chunk ends at %d, before its start %d", brief(b.labels), c.MaxTime, c.MinTime)
	}
	if c.MinTime < b.lastMin {
		return fmt.Errorf("series %s: a chunk that starts at %d comes after one that starts at %d", brief(b.labels), c.MinTime, b.lastMin)
	}
	b.lastMin = c.MinTime

	enc := chunkenc.Encoding(c.Encoding)
	drop := b.drop[sort.Search(len(b.drop), func(i int) bool { return b.drop[i].Maxt >= c.MinTime }):]
	if len(drop) == 0 || drop[0].Mint > c.MaxTime {
		if sampleCount(enc, c.Data) == 0 {
			return fmt.Errorf("series %s: the chunk at %d has no samples", brief(b.labels), c.MinTime)
		}
		b.pending = append(b.pending, chunks.Meta{MinTime: c.MinTime, MaxTime: c.MaxTime, Chunk: b.rawChunk(enc, c.Data)})
		return nil
	}
	if drop[0].Mint <= c.MinTime && c.MaxTime <= drop[0].Maxt {
		return nil
	}
	if !known(enc) {
		return &EncodingError{Series: brief(b.labels), Encoding: c.Encoding}
	}
	var err error
	if b.pending, err = b.cut.cut(b.pending, enc, c.Data, b.drop); err != nil {
		return fmt.Errorf("series %s: cut the chunk at %d: %w", brief(b.labels), c.MinTime, err)
	}
	return nil
}

// flush writes the pending chunks. While the series is not at its end, the last
// ones stay: the next to come may overlap them.
func (b *Builder) flush() error {
	byStart := func(x, y chunks.Meta) int { return cmp.Compare(x.MinTime, y.MinTime) }
	if !slices.IsSortedFunc(b.pending, byStart) { // the border was inside overlapping chunks
		slices.SortStableFunc(b.pending, byStart)
	}
	from, overlap := 0, false // where the last group of overlapping chunks begins
	end := int64(math.MinInt64)
	var out []chunks.Meta // only when something overlaps; else pending is as it should be
	for i, m := range b.pending {
		if i > 0 && m.MinTime > end {
			if overlap {
				if err := b.merge(&out, from, i); err != nil {
					return err
				}
			} else if out != nil {
				out = append(out, b.pending[from:i]...)
			}
			from, overlap = i, false
		} else if i > from {
			if out == nil {
				out = append(make([]chunks.Meta, 0, len(b.pending)), b.pending[:from]...)
			}
			overlap = true
		}
		end = max(end, m.MaxTime)
	}
	keep := len(b.pending)
	if b.open {
		keep = from
	} else if overlap {
		if err := b.merge(&out, from, keep); err != nil {
			return err
		}
	} else if out != nil {
		out = append(out, b.pending[from:]...)
	}
	if out == nil {
		out = b.pending[:keep]
	}
	if len(out) > 0 {
		if !b.started {
			if err := b.w.startSeries(b.labels); err != nil {
				return err
			}
			b.started = true
		}
		if err := b.w.addChunks(out); err != nil {
			return err
		}
	}

	held := b.pending[keep:]
	for i := range held {
		held[i].Chunk = &rawChunk{enc: held[i].Chunk.Encoding(), data: slices.Clone(held[i].Chunk.Bytes())}
	}
	b.pending = append(b.pending[:0], held...)
	b.cut.release()
	b.nth = 0
	return nil
}

// merge appends to out the pending chunks [from, to), made not to overlap.
func (b *Builder) merge(out *[]chunks.Meta, from, to int) error {
	group := b.pending[from:to]
	for _, m := range group {
		if enc := m.Chunk.Encoding(); !known(enc) {
			return &EncodingError{Series: brief(b.labels), Encoding: uint8(enc)}
		}
	}
	merged, err := merge(group)
	if err != nil {
		return fmt.Errorf("series %s: %w", brief(b.labels), err)
	}
	*out = append(*out, merged...)
	return nil
}

func (b *Builder) rawChunk(enc chunkenc.Encoding, data []byte) *rawChunk {
	if b.nth == len(b.raw) {
		b.raw = append(b.raw, new(rawChunk))
	}
	c := b.raw[b.nth]
	b.nth++
	c.enc, c.data = enc, data
	return c
}

// Finish writes what remains and gives the block. When no sample was kept it
// returns nil, nil, and nothing is left on disk. After an error, Discard.
func (b *Builder) Finish(ctx context.Context) (*Built, error) {
	if b.err != nil {
		return nil, b.err
	}
	if b.open {
		return nil, b.fail(fmt.Errorf("series %s is not finished when the block ends", brief(b.labels)))
	}
	built, err := b.w.finish(ctx)
	if err != nil {
		return nil, b.fail(err)
	}
	b.err = errors.New("the block is finished")
	return built, nil
}

// Discard removes what was written, unless the block is finished. It may be
// called at any time, and more than once.
func (b *Builder) Discard() error {
	if b.err == nil {
		b.err = errors.New("the block was discarded")
	}
	return b.w.discard()
}

func (b *Builder) fail(err error) error {
	if err != nil {
		b.err = err
	}
	return err
}
