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

// EncodingError says that a chunk must be cut but is in an encoding that this
// version of promdump cannot decode.
type EncodingError struct {
	Series   string
	Encoding uint8
}

func (e *EncodingError) Error() string {
	return fmt.Sprintf("series %s: a chunk of encoding %d lies across the border of the selection or of a deletion, "+
		"and cannot be cut: the encoding is not known; take the blocks as they are with --whole-blocks", e.Series, e.Encoding)
}

// sampleCount is the number of samples that a chunk's header says. Encodings
// beyond those known are taken to begin with it, as all known ones do.
func sampleCount(enc chunkenc.Encoding, data []byte) int {
	if len(data) < 2 {
		return 0
	}
	n := binary.BigEndian.Uint16(data)
	switch enc {
	case chunkenc.EncHistogramST, chunkenc.EncFloatHistogramST:
		n &= 0x3fff // they keep the counter reset header in the two highest bits
	}
	return int(n)
}

// headerBytes is the length of the header of a chunk of a known encoding.
func headerBytes(enc chunkenc.Encoding) int {
	if enc == chunkenc.EncXOR {
		return 2
	}
	return 3
}

// counterResetHeader gives the byte of a histogram chunk whose two highest bits
// say how the chunk began. Chunks with start timestamps have it in another place.
func counterResetHeader(enc chunkenc.Encoding, data []byte) *byte {
	switch enc {
	case chunkenc.EncHistogram, chunkenc.EncFloatHistogram:
		return &data[2]
	case chunkenc.EncHistogramST, chunkenc.EncFloatHistogramST:
		return &data[0]
	}
	return nil
}

// rawChunk is a chunk that is only ever written, in whatever encoding.
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

type errIterator struct {
	chunkenc.Iterator
	err error
}

func (it errIterator) Err() error { return it.err }

// isGauge reports whether a chunk has gauge histograms. Its stale samples do not carry
// that information.
func isGauge(enc chunkenc.Encoding, data []byte) bool {
	header := counterResetHeader(enc, data)
	return header != nil && chunkenc.CounterResetHeader(*header&chunkenc.CounterResetHeaderMask) == chunkenc.GaugeType
}

// known tells whether chunks of the encoding can be decoded.
func known(enc chunkenc.Encoding) bool { return chunkenc.IsValidEncoding(enc) }

// cutter takes samples out of chunks. What it gives is valid until release.
type cutter struct {
	in    map[chunkenc.Encoding]*reader
	spare map[chunkenc.Encoding][]chunkenc.Chunk
	used  []chunkenc.Chunk
	hist  histogram.Histogram
	fhist histogram.FloatHistogram
}

// reader is a chunk and an iterator over it, kept to be used again.
type reader struct {
	chunk chunkenc.Chunk
	it    chunkenc.Iterator
}

// dropped reports whether a time is in one of the intervals, which are sorted.
func dropped(drop tombstones.Intervals, t int64) bool {
	i := sort.Search(len(drop), func(i int) bool { return drop[i].Maxt >= t })
	return i < len(drop) && drop[i].Mint <= t
}

// read gives an iterator over the samples of a chunk of a known encoding.
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

// empty gives an empty chunk and its appender.
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

// release takes back the chunks that cut has given.
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

// cut appends to dst what is left of a chunk without the samples in drop: nothing,
// or one chunk of the same encoding (more only if the chunk was not well-formed:
// its histograms go down without a counter reset, or its times go back; then what
// is left is in the order of time). It never panics.
func (c *cutter) cut(dst []chunks.Meta, enc chunkenc.Encoding, data []byte, drop tombstones.Intervals) (_ []chunks.Meta, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("decode chunk of encoding %s: %v", enc, p)
			delete(c.in, enc) // may be in any state
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
		// A new chunk is either the old one with a wider layout, or the next one.
		var next chunkenc.Chunk
		var wider bool
		switch typ {
		case chunkenc.ValFloat:
			_, v := it.At()
			app.Append(it.AtST(), t, v)
		case chunkenc.ValHistogram:
			_, h := it.AtHistogram(&c.hist)
			if gauge { // a stale sample does not say that it is one
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
			// The chunk keeps its first sample, so how it began is still true.
			h := counterResetHeader(enc, dst[current].Chunk.Bytes())
			*h = *h&^chunkenc.CounterResetHeaderMask | *header&chunkenc.CounterResetHeaderMask
		}
	}
	if err := it.Err(); err != nil {
		return dst, fmt.Errorf("decode chunk of encoding %s: %w", enc, err)
	}
	return dst, nil
}
