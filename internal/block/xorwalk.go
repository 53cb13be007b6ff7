package block

import (
	"encoding/binary"

	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// walkXOR goes over the samples of a chunk of floats (chunkenc.EncXOR; its format is
// tsdb/docs/bstream.md of Prometheus) without making the values, which takes a third
// of the time. It gives the times of the first and the last sample, if the chunk has
// as many as it says, in the order of time. Otherwise ok is false: what is wrong is
// found by chunkenc's iterator, which is the judge.
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
	data = data[n+8:] // behind the first value
	if left--; left == 0 {
		return first, last, true
	}
	delta, n := binary.Uvarint(data)
	if n <= 0 {
		return 0, 0, false
	}
	b := bits{data: data, at: 8 * n}
	mbits := 64 // that differ from one value to the next: of the value before
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
		case w>>63 == 0: // the value before
			b.at++
		case w>>62 == 0b10: // as many bits as before
			b.at += 2 + mbits
		default:
			// 5 bits say where they begin, 6 how many there are. 64 does not fit: it is 0.
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

// walked is walkXOR for chunks that it knows.
func walked(enc chunkenc.Encoding, data []byte) (first, last int64, ok bool) {
	if enc != chunkenc.EncXOR {
		return 0, 0, false
	}
	return walkXOR(data)
}

// bits is a stream of bits. Behind its end there are zeros: who reads compares at
// with its length.
type bits struct {
	data []byte
	at   int
}

// peek gives the next bits, at least 57 of them, from the highest on.
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

// deltaOfDelta reads by how much the time between two samples changed.
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
	if v > 1<<(size-1) { // and not >=, as its writer has it
		v -= 1 << size
	}
	return v
}
