package block

import (
	"errors"

	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// A histogram chunk begins with its layout: the spans of its buckets, which say
// how many numbers each sample has. Prometheus' decoder trusts it and allocates
// what it says, so a few hostile bytes can ask for 100 GiB, and running out of
// memory cannot be recovered from as a panic can. checkLayout counts the buckets
// first: each takes at least one bit of the first sample, so there cannot be more
// of them than the chunk has bits.
//
// The layout is specified in Prometheus' tsdb/docs/format/chunks.md.
func checkLayout(enc chunkenc.Encoding, data []byte) error {
	const headerBytes = 3
	if !isHistogram(enc) {
		return nil
	}
	if len(data) < headerBytes {
		return errShortChunk
	}
	r := bitReader{data: data[headerBytes:]}
	if r.bits(8) == 255 { // the zero threshold, as an exponent or whole
		r.bits(64)
	}
	r.varbit() // schema
	limit := uint64(len(data)) * 8
	buckets := uint64(0)
	for range 2 { // positive, negative
		for n := r.varbit(); n > 0 && !r.over; n-- {
			buckets += uint64(uint32(r.varbit())) // length, which the decoder cuts to 32 bits
			r.varbit()                            // offset
			if buckets > limit {
				return errLayout
			}
		}
	}
	if r.over {
		return errShortChunk
	}
	return nil
}

var (
	errShortChunk = errors.New("chunk is too short")
	errLayout     = errors.New("chunk has more buckets than bits")
)

// bitReader reads from the highest bit of each byte on. After the end it gives
// zeros and sets over.
type bitReader struct {
	data []byte
	pos  int // in bits
	over bool
}

func (r *bitReader) bits(n int) uint64 {
	var v uint64
	for range n {
		v <<= 1
		if r.pos>>3 >= len(r.data) {
			r.over = true
			continue
		}
		v |= uint64(r.data[r.pos>>3]>>(7-r.pos&7)) & 1
		r.pos++
	}
	return v
}

// varbit reads a number in Prometheus' bit buckets: as many ones as the bucket's
// number, a zero, then the bucket's bits.
func (r *bitReader) varbit() uint64 {
	widths := [...]int{0, 3, 6, 9, 12, 18, 25, 56, 64}
	ones := 0
	for ones < 8 && r.bits(1) == 1 {
		ones++
	}
	return r.bits(widths[ones])
}
