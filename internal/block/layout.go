package block

import (
	"errors"

	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// checkLayout returns an error if the layout at the beginning of a histogram chunk is
// incomplete or has more buckets than the chunk has bits. Each bucket takes at least one bit
// of the first sample.
//
// Prometheus' decoder allocates the number of buckets that the layout gives: a few malicious
// bytes can make it allocate 100 GiB, and a program cannot recover from running out of
// memory. The layout is specified in Prometheus' tsdb/docs/format/chunks.md.
func checkLayout(enc chunkenc.Encoding, data []byte) error {
	const headerBytes = 3
	if !isHistogram(enc) {
		return nil
	}
	if len(data) < headerBytes {
		return errShortChunk
	}
	r := bitReader{data: data[headerBytes:]}
	if r.bits(8) == 255 { // the zero threshold: an exponent, or 255 and a float
		r.bits(64)
	}
	r.varbit() // schema
	limit := uint64(len(data)) * 8
	buckets := uint64(0)
	for range 2 { // positive, negative
		for n := r.varbit(); n > 0 && !r.over; n-- {
			buckets += uint64(uint32(r.varbit())) // length, which the decoder truncates to 32 bits
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

// bitReader reads bits, the highest of each byte first. After the end it returns zeros and
// sets over.
type bitReader struct {
	data []byte
	pos  int // in bits
	over bool
}

// bits reads n bits.
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

// varbit reads a number in Prometheus' variable encoding: n ones select a width, then follow
// a zero and the bits of the number.
func (r *bitReader) varbit() uint64 {
	widths := [...]int{0, 3, 6, 9, 12, 18, 25, 56, 64}
	ones := 0
	for ones < 8 && r.bits(1) == 1 {
		ones++
	}
	return r.bits(widths[ones])
}
