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

// maxLabelBytes is the length at which Prometheus' labels panic.
const maxLabelBytes = 1 << 24

// Builder builds a block from the received series of a cut block. The block has exactly the
// samples of these series in the range that Prometheus serves, also if they are not in order.
// No input makes a Builder panic. After an error, Symbols, Series and Finish return that error.
// The methods must not be called concurrently.
type Builder struct {
	w       *writer
	outside tombstones.Intervals // times outside the selection
	symbols map[uint32]string
	err     error

	// The current series.
	open    bool // more parts follow
	refs    []uint32
	labels  labels.Labels
	drop    tombstones.Intervals // outside and deleted times
	started bool                 // w has a chunk of it
	pending []chunks.Meta        // chunks that are not in w yet

	pairs []labels.Label
	lb    labels.ScratchBuilder
	cut   cutter
	raw   []*rawChunk // for reuse
	nth   int         // number of raw in use
}

// NewBuilder creates a temporary directory in spec.Parent and begins a block in it. The caller
// must call Finish or Discard.
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

// Symbols adds the strings that later series refer to. It does not retain s.
func (b *Builder) Symbols(s *wire.Symbols) error {
	if b.err != nil {
		return b.err
	}
	if len(s.Refs) != len(s.Strings) {
		return b.fail(fmt.Errorf("received %d symbols with %d refs", len(s.Strings), len(s.Refs)))
	}
	for i, ref := range s.Refs {
		str := s.Strings[i]
		if len(str) >= maxLabelBytes {
			return b.fail(fmt.Errorf("symbol %d is too long for a label (%d bytes)", ref, len(str)))
		}
		if old, ok := b.symbols[ref]; ok && old != str {
			return b.fail(fmt.Errorf("received symbol %d twice with different strings", ref))
		}
		b.symbols[ref] = strings.Clone(str)
	}
	return nil
}

// Series adds a series, or the next part of one. It does not retain s. It skips chunks that
// cannot be read, or that must be cut and are damaged, and counts them in Lost. It returns an
// *EncodingError for a chunk that must be cut and has an unknown encoding.
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
		return fmt.Errorf("received another series before the end of series %s", brief(b.labels))
	}
	for _, d := range s.Deleted {
		if d.MinTime > d.MaxTime {
			continue // deletes nothing
		}
		// Add panics on an interval to math.MaxInt64 that begins before the end of another.
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
		return fmt.Errorf("received a series with %d label refs, which are not pairs", len(refs))
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
		if name != "" { // queries cannot select a label without a name
			b.pairs = append(b.pairs, labels.Label{Name: name, Value: value})
		}
	}
	slices.SortStableFunc(b.pairs, func(x, y labels.Label) int { return cmp.Compare(x.Name, y.Name) })
	b.pairs = slices.Compact(b.pairs)
	b.lb.Reset()
	twice := false
	for i, l := range b.pairs {
		// An index cannot hold a label name twice. Prometheus' API returns the last value.
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

// chunk appends the selected part of c to b.pending.
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
	case b.labels.IsEmpty(): // an index cannot hold it, and queries cannot select it
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

// flush adds the pending chunks to the writer.
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

// rawChunk returns a chunk of data, which is valid until flush.
func (b *Builder) rawChunk(enc chunkenc.Encoding, data []byte) *rawChunk {
	if b.nth == len(b.raw) {
		b.raw = append(b.raw, new(rawChunk))
	}
	c := b.raw[b.nth]
	b.nth++
	c.enc, c.data = enc, data
	return c
}

// Lost returns the losses so far.
func (b *Builder) Lost() Lost { return b.w.lost }

// Lost counts the damaged data of the source that a built block lacks.
type Lost struct {
	Chunks int      // chunks that cannot be read
	First  []string // the first three of them: series, times and reason
	Labels int      // series with a duplicate label, of which the block has the last value
	Twice  string   // labels of the first such series
}

// label counts a series with a duplicate label.
func (l *Lost) label(lset labels.Labels) {
	if l.Labels++; l.Labels == 1 {
		l.Twice = brief(lset)
	}
}

// maxLost is the maximum number of entries in Lost.First.
const maxLost = 3

// chunk counts a lost chunk.
func (l *Lost) chunk(lset labels.Labels, mint, maxt int64, why string) {
	if l.Chunks++; l.Chunks > maxLost {
		return
	}
	show := func(ms int64) string { return time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.999Z07:00") }
	l.First = append(l.First, fmt.Sprintf("%s from %s to %s (%s)", brief(lset), show(mint), show(maxt), why))
}

// Finish finishes the block and returns it. It returns nil, nil and leaves nothing on disk if
// the block has no sample. After an error the caller must call Discard.
func (b *Builder) Finish(ctx context.Context) (*Built, error) {
	if b.err != nil {
		return nil, b.err
	}
	if b.open {
		return nil, b.fail(fmt.Errorf("the block ends before the end of series %s", brief(b.labels)))
	}
	built, err := b.w.finish(ctx)
	if err != nil {
		return nil, b.fail(err)
	}
	b.err = errors.New("the block is finished")
	return built, nil
}

// Discard removes the files of an unfinished block. It does nothing after Finish. It may be
// called more than once.
func (b *Builder) Discard() error {
	if b.err == nil {
		b.err = errors.New("the block was discarded")
	}
	return b.w.discard()
}

// fail makes err, if not nil, the error of the Builder and returns it.
func (b *Builder) fail(err error) error {
	if err != nil {
		b.err = err
	}
	return err
}
