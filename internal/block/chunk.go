package block

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sort"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/tombstones"
)

// EncodingError reports a chunk that must be cut but has an unknown encoding.
type EncodingError struct {
	Series   string // labels, possibly shortened
	Encoding uint8
}

// Error implements error.
func (e *EncodingError) Error() string {
	return fmt.Sprintf("series %s: a chunk crosses the border of the selection or of a deletion and cannot be cut: "+
		"unknown encoding %d; use --whole-blocks to dump the blocks unchanged", e.Series, e.Encoding)
}

// sampleCount returns the number of samples in a chunk's header. It reads the header of an
// unknown encoding like that of all known ones.
func sampleCount(enc chunkenc.Encoding, data []byte) int {
	if len(data) < 2 {
		return 0
	}
	n := binary.BigEndian.Uint16(data)
	switch enc {
	case chunkenc.EncHistogramST, chunkenc.EncFloatHistogramST:
		n &= 0x3fff // the two highest bits are the counter reset header
	}
	return int(n)
}

// headerBytes returns the length of the header of a chunk with a known encoding.
func headerBytes(enc chunkenc.Encoding) int {
	if enc == chunkenc.EncXOR {
		return 2
	}
	return 3
}

// counterResetHeader returns a pointer to the byte of a histogram chunk whose two highest bits
// are the counter reset header, and nil for other chunks. Chunks with start timestamps have it
// in another place.
func counterResetHeader(enc chunkenc.Encoding, data []byte) *byte {
	switch enc {
	case chunkenc.EncHistogram, chunkenc.EncFloatHistogram:
		return &data[2]
	case chunkenc.EncHistogramST, chunkenc.EncFloatHistogramST:
		return &data[0]
	}
	return nil
}

// rawChunk is an encoded chunk of any encoding for a chunk writer. It implements
// [chunkenc.Chunk].
type rawChunk struct {
	enc  chunkenc.Encoding
	data []byte
}

func (c *rawChunk) Bytes() []byte               { return c.data }
func (c *rawChunk) Encoding() chunkenc.Encoding { return c.enc }
func (c *rawChunk) NumSamples() int             { return sampleCount(c.enc, c.data) }
func (c *rawChunk) Compact()                    {}
func (c *rawChunk) Reset(data []byte)           { c.data = data }

func (c *rawChunk) Appender() (chunkenc.Appender, error) {
	return nil, errors.New("a raw chunk cannot be appended to")
}

func (c *rawChunk) Iterator(it chunkenc.Iterator) chunkenc.Iterator {
	chk, err := chunkenc.FromData(c.enc, c.data)
	if err != nil {
		return errIterator{chunkenc.NewNopIterator(), err}
	}
	return chk.Iterator(it)
}

// errIterator is an iterator without samples that returns an error.
type errIterator struct {
	chunkenc.Iterator
	err error
}

func (it errIterator) Err() error { return it.err }

// isGauge reports whether a chunk has gauge histograms. The stale samples of such a chunk lack
// the hint that they are gauges.
func isGauge(enc chunkenc.Encoding, data []byte) bool {
	header := counterResetHeader(enc, data)
	return header != nil && chunkenc.CounterResetHeader(*header&chunkenc.CounterResetHeaderMask) == chunkenc.GaugeType
}

// known reports whether chunks of the encoding can be decoded.
func known(enc chunkenc.Encoding) bool { return chunkenc.IsValidEncoding(enc) }

// cutter removes samples from chunks. The chunks that it returns are valid until release.
type cutter struct {
	in    map[chunkenc.Encoding]*reader
	spare map[chunkenc.Encoding][]chunkenc.Chunk // for reuse
	used  []chunkenc.Chunk                       // since the last release
	hist  histogram.Histogram
	fhist histogram.FloatHistogram
}

// reader is a reusable chunk and iterator.
type reader struct {
	chunk chunkenc.Chunk
	it    chunkenc.Iterator
}

// dropped reports whether the time t is in one of the sorted intervals.
func dropped(drop tombstones.Intervals, t int64) bool {
	i := sort.Search(len(drop), func(i int) bool { return drop[i].Maxt >= t })
	return i < len(drop) && drop[i].Mint <= t
}

// read returns an iterator over the samples of a chunk with a known encoding. It is valid until
// the next call for this encoding.
func (c *cutter) read(enc chunkenc.Encoding, data []byte) (chunkenc.Iterator, error) {
	if err := checkLayout(enc, data); err != nil {
		return nil, err
	}
	r := c.in[enc]
	if r == nil {
		chunk, err := chunkenc.NewEmptyChunk(enc)
		if err != nil {
			return nil, err
		}
		if c.in == nil {
			c.in = map[chunkenc.Encoding]*reader{}
		}
		r = &reader{chunk: chunk}
		c.in[enc] = r
	}
	r.chunk.Reset(data)
	r.it = r.chunk.Iterator(r.it)
	return r.it, nil
}

// empty returns an empty chunk and its appender.
func (c *cutter) empty(enc chunkenc.Encoding) (chunkenc.Chunk, chunkenc.Appender, error) {
	var chunk chunkenc.Chunk
	if spare := c.spare[enc]; len(spare) > 0 {
		chunk, c.spare[enc] = spare[len(spare)-1], spare[:len(spare)-1]
	} else {
		var err error
		if chunk, err = chunkenc.NewEmptyChunk(enc); err != nil {
			return nil, nil, err
		}
	}
	c.used = append(c.used, chunk)
	app, err := chunk.Appender()
	return chunk, app, err
}

// release makes the chunks that cut returned available for reuse.
func (c *cutter) release() {
	if c.spare == nil {
		c.spare = map[chunkenc.Encoding][]chunkenc.Chunk{}
	}
	for _, chunk := range c.used {
		enc := chunk.Encoding()
		b := chunk.Bytes()[:headerBytes(enc)]
		clear(b)
		chunk.Reset(b)
		c.spare[enc] = append(c.spare[enc], chunk)
	}
	c.used = c.used[:0]
}

// cut appends to dst a chunk without the samples in the sorted intervals of drop, in the same
// encoding. It appends nothing if no sample is left, and several chunks if the chunk is
// malformed: its histograms decrease without a counter reset, or its times decrease. The chunks
// are sorted by time. It never panics.
func (c *cutter) cut(dst []chunks.Meta, enc chunkenc.Encoding, data []byte,
	drop tombstones.Intervals,
) (_ []chunks.Meta, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("decode chunk of encoding %s: %v", enc, p)
			delete(c.in, enc) // its state is unknown
		}
	}()
	it, err := c.read(enc, data)
	if err != nil {
		return dst, fmt.Errorf("decode chunk of encoding %s: %w", enc, err)
	}
	var (
		header  = counterResetHeader(enc, data)
		gauge   = isGauge(enc, data)
		all     = drop
		begun   = len(dst)
		app     chunkenc.Appender
		lastT   int64
		read    int
		current = -1 // in dst
	)
	for typ := it.Next(); typ != chunkenc.ValNone; typ = it.Next() {
		t := it.AtT()
		if read++; read > 1 && t < lastT {
			kept, err := c.decode(nil, enc, data, func(t int64) bool { return !dropped(all, t) })
			if err != nil {
				return dst[:begun], err
			}
			return encodeSorted(dst[:begun], kept)
		}
		lastT = t
		for len(drop) > 0 && drop[0].Maxt < t {
			drop = drop[1:]
		}
		if len(drop) > 0 && drop[0].Mint <= t {
			continue
		}
		if current < 0 {
			var chunk chunkenc.Chunk
			if chunk, app, err = c.empty(enc); err != nil {
				return dst, err
			}
			current = len(dst)
			dst = append(dst, chunks.Meta{MinTime: t, Chunk: chunk})
		}
		// The appender returns a new chunk in two cases: the old one with a wider layout, or
		// the next one.
		var next chunkenc.Chunk
		var wider bool
		switch typ {
		case chunkenc.ValFloat:
			_, v := it.At()
			app.Append(it.AtST(), t, v)
		case chunkenc.ValHistogram:
			_, h := it.AtHistogram(&c.hist)
			if gauge { // a stale sample lacks the hint
				h.CounterResetHint = histogram.GaugeType
			}
			next, wider, app, err = app.AppendHistogram(nil, it.AtST(), t, h, false)
		case chunkenc.ValFloatHistogram:
			_, h := it.AtFloatHistogram(&c.fhist)
			if gauge {
				h.CounterResetHint = histogram.GaugeType
			}
			next, wider, app, err = app.AppendFloatHistogram(nil, it.AtST(), t, h, false)
		}
		if err != nil {
			return dst, fmt.Errorf("encode chunk of encoding %s: %w", enc, err)
		}
		if next != nil {
			if wider {
				dst[current].Chunk = next
			} else {
				current = len(dst)
				dst = append(dst, chunks.Meta{MinTime: t, Chunk: next})
			}
		}
		dst[current].MaxTime = t
		if read == 1 && header != nil {
			// The chunk keeps its first sample, so its counter reset header stays valid.
			h := counterResetHeader(enc, dst[current].Chunk.Bytes())
			*h = *h&^chunkenc.CounterResetHeaderMask | *header&chunkenc.CounterResetHeaderMask
		}
	}
	if err := it.Err(); err != nil {
		return dst, fmt.Errorf("decode chunk of encoding %s: %w", enc, err)
	}
	return dst, nil
}
