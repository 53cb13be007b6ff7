package block

import (
	"encoding/binary"

	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// walkXOR reads the times of a chunk of floats (chunkenc.EncXOR; the format is described in
// Prometheus' tsdb/docs/bstream.md) without decoding the values, in a third of the time. It
// returns the times of the first and the last sample. ok is false if the times do not increase
// or the chunk has fewer samples than its header says; the caller then uses chunkenc's
// iterator, which determines the problem.
func walkXOR(data []byte) (first, last int64, ok bool) {
	if len(data) < 2 {
		return 0, 0, false
	}
	left := int(binary.BigEndian.Uint16(data))
	data = data[2:]
	t, n := binary.Varint(data)
	if left == 0 || n <= 0 || len(data) < n+8 {
		return 0, 0, false
	}
	first, last = t, t
	data = data[n+8:] // after the first value
	if left--; left == 0 {
		return first, last, true
	}
	delta, n := binary.Uvarint(data)
	if n <= 0 {
		return 0, 0, false
	}
	b := bits{data: data, at: 8 * n}
	mbits := 64 // number of meaningful bits of the value before
	for i := 0; ; i++ {
		if i > 0 {
			delta += uint64(b.deltaOfDelta())
		}
		t += int64(delta)
		if t <= last {
			return 0, 0, false
		}
		last = t
		switch w := b.peek(); {
		case w>>63 == 0: // the same value
			b.at++
		case w>>62 == 0b10: // the same number of meaningful bits
			b.at += 2 + mbits
		default:
			// 5 bits for the number of leading zeros, 6 for the number of meaningful bits;
			// 0 means 64.
			if mbits = int(w >> 51 & 0x3f); mbits == 0 {
				mbits = 64
			}
			b.at += 2 + 5 + 6 + mbits
		}
		if left--; left == 0 {
			return first, last, b.at <= 8*len(data)
		}
		if b.at >= 8*len(data) {
			return 0, 0, false
		}
	}
}

// walked calls walkXOR for a chunk of encoding XOR. ok is false for other encodings.
func walked(enc chunkenc.Encoding, data []byte) (first, last int64, ok bool) {
	if enc != chunkenc.EncXOR {
		return 0, 0, false
	}
	return walkXOR(data)
}

// bits reads a stream of bits. After the end it returns zeros; the caller must compare at with
// the length.
type bits struct {
	data []byte
	at   int // in bits
}

// peek returns at least the next 57 bits, from the highest bit of the result.
func (b *bits) peek() uint64 {
	i := b.at >> 3
	if i+8 <= len(b.data) {
		return binary.BigEndian.Uint64(b.data[i:]) << (b.at & 7)
	}
	var w uint64
	for k := range 8 {
		w <<= 8
		if i+k < len(b.data) {
			w |= uint64(b.data[i+k])
		}
	}
	return w << (b.at & 7)
}

// deltaOfDelta reads the difference between two time deltas.
func (b *bits) deltaOfDelta() int64 {
	w := b.peek()
	var skip, size int
	switch {
	case w>>63 == 0:
		b.at++
		return 0
	case w>>62 == 0b10:
		skip, size = 2, 14
	case w>>61 == 0b110:
		skip, size = 3, 17
	case w>>60 == 0b1110:
		skip, size = 4, 20
	default:
		b.at += 4
		high := b.peek() >> 32
		b.at += 32
		low := b.peek() >> 32
		b.at += 32
		return int64(high<<32 | low)
	}
	v := int64(w << skip >> (64 - size))
	b.at += skip + size
	if v > 1<<(size-1) { // not >=: the writer uses the range from -2^(size-1)+1 to 2^(size-1)
		v -= 1 << size
	}
	return v
}
