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
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/tombstones"

	"github.com/promdump/promdump/internal/wire"
)

// maxLabelBytes is the length that Prometheus' labels can hold; at it they panic.
const maxLabelBytes = 1 << 24

// Builder builds a block from the series that it receives of a cut block. The block has
// exactly the samples that Prometheus serves of them in the range, even if their order
// is odd. The input is not trusted: no input makes a Builder panic. After an error the
// Builder cannot be used; every method returns the same error.
type Builder struct {
	w       *writer
	outside tombstones.Intervals // the times that the spec excludes
	symbols map[uint32]string
	err     error

	// The current series.
	open    bool // received in part
	refs    []uint32
	labels  labels.Labels
	drop    tombstones.Intervals // outside and what was deleted
	started bool                 // it has a chunk in w
	pending []chunks.Meta        // not yet in w

	pairs []labels.Label
	lb    labels.ScratchBuilder
	cut   cutter
	raw   []*rawChunk // reused
	nth   int         // number of raw in use
}

// NewBuilder begins a block under spec.Parent. Finish or Discard must follow.
func NewBuilder(spec Spec) (*Builder, error) {
	w, err := newWriter(spec)
	if err != nil {
		return nil, err
	}
	b := &Builder{w: w, symbols: map[uint32]string{}, lb: labels.NewScratchBuilder(32)}
	keep := wire.Interval{MinTime: spec.MinTime, MaxTime: spec.MaxTime}
	if spec.Selected != nil {
		keep = *spec.Selected
	}
	if keep.MinTime > math.MinInt64 {
		b.outside = b.outside.Add(tombstones.Interval{Mint: math.MinInt64, Maxt: keep.MinTime - 1})
	}
	if keep.MaxTime < math.MaxInt64 {
		b.outside = b.outside.Add(tombstones.Interval{Mint: keep.MaxTime + 1, Maxt: math.MaxInt64})
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
			return b.fail(fmt.Errorf("symbol %d is received again with another string", ref))
		}
		b.symbols[ref] = strings.Clone(str)
	}
	return nil
}

// Series takes a series, or the next part of one, and keeps nothing of it. Chunks that
// cannot be read, or that must be cut and cannot be decoded, are left out and counted
// in Lost. The error for a chunk that must be cut and cannot be decoded for want of
// knowing its encoding is an *EncodingError.
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
			continue // it deletes nothing
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
	b.pairs = b.pairs[:0]
	for i := 0; i < len(refs); i += 2 {
		name, ok := b.symbols[refs[i]]
		if !ok {
			return fmt.Errorf("a series refers to symbol %d, which was not received", refs[i])
		}
		value, ok := b.symbols[refs[i+1]]
		if !ok {
			return fmt.Errorf("a series refers to symbol %d, which was not received", refs[i+1])
		}
		if name != "" { // no query asks for a label without a name
			b.pairs = append(b.pairs, labels.Label{Name: name, Value: value})
		}
	}
	slices.SortStableFunc(b.pairs, func(x, y labels.Label) int { return cmp.Compare(x.Name, y.Name) })
	b.pairs = slices.Compact(b.pairs)
	b.lb.Reset()
	twice := false
	for i, l := range b.pairs {
		// An index cannot be written with a name twice. Prometheus' API shows the last.
		if i+1 < len(b.pairs) && b.pairs[i+1].Name == l.Name {
			twice = true
			continue
		}
		b.lb.Add(l.Name, l.Value)
	}
	b.labels = b.lb.Labels()
	if twice {
		b.w.lost.label(b.labels)
	}
	b.refs = append(b.refs[:0], refs...)
	b.drop = append(b.drop[:0], b.outside...)
	b.started = false
	return nil
}

// chunk puts what remains of c into pending.
func (b *Builder) chunk(c *wire.Chunk) error {
	enc := chunkenc.Encoding(c.Encoding)
	mint, maxt := min(c.MinTime, c.MaxTime), max(c.MinTime, c.MaxTime)
	drop := b.drop[sort.Search(len(b.drop), func(i int) bool { return b.drop[i].Maxt >= mint }):]
	cut := len(drop) > 0 && drop[0].Mint <= maxt
	switch {
	case cut && drop[0].Mint <= mint && maxt <= drop[0].Maxt:
		return nil
	case c.Encoding == wire.Unread:
		b.w.lost.chunk(b.labels, mint, maxt, string(c.Data[:min(len(c.Data), 300)]))
		return nil
	case b.labels.IsEmpty(): // no index can hold it, and no query asks for it
		b.w.lost.chunk(b.labels, mint, maxt, "the series has no labels")
		return nil
	case !known(enc) && cut:
		return &EncodingError{Series: brief(b.labels), Encoding: c.Encoding}
	case known(enc) && len(c.Data) < headerBytes(enc):
		b.w.lost.chunk(b.labels, mint, maxt, "the chunk is too short")
		return nil
	case known(enc) && sampleCount(enc, c.Data) == 0:
		return nil
	case !cut && (c.MinTime <= c.MaxTime || !known(enc)):
		b.pending = append(b.pending, chunks.Meta{MinTime: mint, MaxTime: maxt, Chunk: b.rawChunk(enc, c.Data)})
		return nil
	}
	n := len(b.pending)
	var err error
	if b.pending, err = b.cut.cut(b.pending, enc, c.Data, b.drop); err != nil {
		b.pending = b.pending[:n]
		b.w.lost.chunk(b.labels, mint, maxt, err.Error())
	}
	return nil
}

// flush writes the pending chunks.
func (b *Builder) flush() error {
	if len(b.pending) > 0 {
		if !b.started {
			if err := b.w.startSeries(b.labels); err != nil {
				return err
			}
			b.started = true
		}
		if err := b.w.addChunks(b.pending); err != nil {
			return err
		}
	}
	b.pending = b.pending[:0]
	b.cut.release()
	b.nth = 0
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

// Lost returns what is missing from the block so far because of damage.
func (b *Builder) Lost() Lost { return b.w.lost }

// Lost counts what of the source is missing from a built block, and describes the first
// losses.
type Lost struct {
	Chunks int      // chunks that cannot be read
	First  []string // the first of these chunks: series, times and reason
	Labels int      // series that had a label twice; the last value is kept
	Twice  string   // the first of these series
}

func (l *Lost) label(lset labels.Labels) {
	if l.Labels++; l.Labels == 1 {
		l.Twice = brief(lset)
	}
}

const maxLost = 3

func (l *Lost) chunk(lset labels.Labels, mint, maxt int64, why string) {
	if l.Chunks++; l.Chunks > maxLost {
		return
	}
	show := func(ms int64) string { return time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.999Z07:00") }
	l.First = append(l.First, fmt.Sprintf("%s from %s to %s (%s)", brief(lset), show(mint), show(maxt), why))
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
