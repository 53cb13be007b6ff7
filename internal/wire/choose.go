package wire

import (
	"time"

	"github.com/klauspost/compress/zstd"
)

// level is how strongly a segment is compressed.
type level uint8

const (
	none level = iota
	fast
	strong
	levels
)

var zstdLevels = [levels]zstd.EncoderLevel{fast: zstd.SpeedFastest, strong: zstd.SpeedDefault}

// chooser decides which segments are compressed. It knows how long the stream takes a
// byte, and of each class how long a level takes and what it saves. What relays and
// decompresses the bytes costs CPU, too, and on the same machine it shows as a slow
// stream.
type chooser struct {
	link  linkSpeed
	stats [classes][levels]levelStats
	since [classes]int // segments since the last trial
}

// levelStats are what a level does with a class; size 0: not known.
type levelStats struct {
	perByte float64 // ns, of the bytes before
	size    float64 // after, as a part of the size before
}

const (
	// slowLink is what a stream is taken for until it is known, in ns a byte: 20 MiB/s.
	slowLink = 48

	// strongLink is from when on the strong level is tried, in ns a byte.
	strongLink = 100

	// trialEvery is after how many segments of a class a level is tried again.
	trialEvery = 64

	// tooSmall segments are no measure of their class. They are compressed where that
	// was worth it for the last ones.
	tooSmall = 16 << 10

	// cpuWeight is what compressing costs beside the time it takes here, where the
	// stream goes on sending what is buffered: CPU of the server's machine, and
	// decompression.
	cpuWeight = 0.75
)

// choose returns the level for the next segment of a class.
func (c *chooser) choose(k class, size int) level {
	best, cost := none, c.link.perByte
	for l := fast; l < levels; l++ {
		s := c.stats[k][l]
		if s.size == 0 {
			if size >= tooSmall && (l == fast || c.link.perByte >= strongLink) {
				return l
			}
			continue
		}
		if x := s.size*c.link.perByte + cpuWeight*s.perByte; x < cost {
			best, cost = l, x
		}
	}
	if c.since[k]++; c.since[k] >= trialEvery && size >= tooSmall && best == none {
		c.since[k] = 0
		return fast
	}
	if size < tooSmall && best == none && c.stats[k][fast].size == 0 {
		return fast
	}
	return best
}

// compressed notes what a level did with a segment.
func (c *chooser) compressed(k class, l level, before, after int, took time.Duration) {
	if before < tooSmall {
		return
	}
	s := &c.stats[k][l]
	perByte, size := float64(took)/float64(before), float64(after)/float64(before)
	if s.size == 0 {
		*s = levelStats{perByte, size}
		return
	}
	s.perByte += (perByte - s.perByte) / 4
	s.size += (size - s.size) / 4
}

// linkSpeed measures how long the stream takes a byte.
type linkSpeed struct {
	perByte float64 // ns
	written int64
}

const (
	// fills is how many bytes pipes and buffers on the way may take at once, which says
	// nothing about the stream.
	fills = 8 << 20

	// remembers is how many bytes the measure goes back.
	remembers = 4 << 20
)

func (l *linkSpeed) took(n int, d time.Duration) {
	perByte := float64(d) / float64(n)
	l.written += int64(n)
	if l.written <= fills && perByte < l.perByte {
		return
	}
	l.perByte += (perByte - l.perByte) * float64(n) / float64(n+remembers)
}
