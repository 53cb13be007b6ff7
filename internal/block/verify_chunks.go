package block

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
)

// chunkStats is Stats with what only the comparison with meta.json needs.
type chunkStats struct {
	Stats
	floats, histograms uint64
}

// shareSeries is how many series a worker takes at a time.
const shareSeries = 256

// share is the result of checking some of the series; shares are reported in the order
// of the series.
type share struct {
	findings []Finding // at most maxFindings of each level
	counts   [levels]int
}

// chunks reads all chunks of all series, on all processors.
func (v *verifier) chunks(ctx context.Context, x *indexFile, meta *tsdb.BlockMeta, segs []segment) (chunkStats, error) {
	shares := make([]share, (len(x.refs)+shareSeries-1)/shareSeries)
	workers := make([]chunkChecker, min(runtime.GOMAXPROCS(0), max(len(shares), 1)))
	var next atomic.Int64
	var wg sync.WaitGroup
	for i := range workers {
		w := &workers[i]
		*w = chunkChecker{
			crc: crc32.MakeTable(crc32.Castagnoli), x: x, segs: segs,
			min: math.MinInt64, max: math.MaxInt64, // of the block, excluded
		}
		w.stats.MinTime, w.stats.MaxTime = math.MaxInt64, math.MinInt64
		if meta != nil && meta.MinTime < meta.MaxTime {
			w.min, w.max = meta.MinTime, meta.MaxTime
		}
		wg.Go(func() {
			for ctx.Err() == nil {
				n := int(next.Add(1)) - 1
				if n >= len(shares) {
					return
				}
				w.share = &shares[n]
				for _, ref := range x.refs[n*shareSeries : min((n+1)*shareSeries, len(x.refs))] {
					w.series(ref)
				}
				w.release()
			}
		})
	}
	wg.Wait()

	sum := chunkStats{Stats: Stats{Series: uint64(len(x.refs)), MinTime: math.MaxInt64, MaxTime: math.MinInt64}}
	for i := range workers {
		s := &workers[i].stats
		sum.Samples += s.Samples
		sum.Chunks += s.Chunks
		sum.Unknown += s.Unknown
		sum.floats += s.floats
		sum.histograms += s.histograms
		sum.MinTime, sum.MaxTime = min(sum.MinTime, s.MinTime), max(sum.MaxTime, s.MaxTime)
	}
	if sum.MinTime > sum.MaxTime {
		sum.MinTime, sum.MaxTime = 0, 0
	}
	for _, s := range shares {
		for _, f := range s.findings {
			v.found(f.Level, f.Place, "%s", f.Problem)
			s.counts[f.Level]--
		}
		for l, n := range s.counts {
			v.counts[l] += n
		}
	}
	if sum.Unknown > 0 {
		v.found(Odd, chunksDir,
			"%d chunks have an encoding that is not known here; only a Prometheus that knows it can query them", sum.Unknown)
	}
	return sum, ctx.Err()
}

// chunkChecker is one worker's state.
type chunkChecker struct {
	x        *indexFile
	segs     []segment
	crc      *crc32.Table
	min, max int64

	s     series
	cut   cutter
	stats chunkStats
	share *share
	read  extent
}

// extent is a part of a segment file.
type extent struct {
	segment, from, to int
}

// release gives back the pages of the chunks that were read. Chunks lie in the
// order of their series, so nobody needs them again; otherwise the whole block
// would end up in what counts as our memory. Where they lie in another order, pages
// are read again from the page cache.
func (c *chunkChecker) release() {
	if c.read.to > 0 {
		dropPages(c.segs[c.read.segment].data, c.read.from, c.read.to)
	}
	c.read = extent{}
}

// found notes a finding in the worker's share.
func (c *chunkChecker) found(level Level, place, problem string) {
	if c.share.counts[level]++; c.share.counts[level] <= maxFindings {
		c.share.findings = append(c.share.findings, Finding{Level: level, Place: place, Problem: problem})
	}
}

// series checks the chunks of one series.
func (c *chunkChecker) series(ref uint64) {
	defer func() {
		if p := recover(); p != nil {
			c.found(Unreadable, fmt.Sprintf("index, series at %d", ref*c.x.align), fmt.Sprintf("malformed: %v", p))
		}
	}()
	if c.x.series(ref, &c.s) != nil {
		return // was found with the labels
	}
	if len(c.s.chunks) == 0 {
		c.found(Odd, "index, series "+c.x.name(&c.s), "it has no chunks")
	}
	end := int64(math.MinInt64) // of the chunks so far
	for i, m := range c.s.chunks {
		c.stats.Chunks++
		level, problem := c.chunk(m)
		switch {
		case problem != "":
		case m.MinTime > m.MaxTime:
			problem = fmt.Sprintf("it starts at %d and ends at %d", m.MinTime, m.MaxTime)
		case m.MinTime < c.min || m.MaxTime >= c.max && c.max != math.MaxInt64:
			problem = fmt.Sprintf("its times %d to %d are outside of the block's, %d to %d", m.MinTime, m.MaxTime, c.min, c.max-1)
		case i > 0 && m.MinTime <= end:
			problem = fmt.Sprintf("it starts at %d, when the chunk before it has not ended (%d)", m.MinTime, end)
		}
		if level == Odd {
			end = max(end, m.MaxTime)
			c.stats.MinTime, c.stats.MaxTime = min(c.stats.MinTime, m.MinTime), max(c.stats.MaxTime, m.MaxTime)
		}
		if problem == "" {
			continue
		}
		seg, off := chunks.BlockChunkRef(m.Ref).Unpack()
		file := fmt.Sprintf("segment %d", seg+1)
		if seg < len(c.segs) {
			file = c.segs[seg].name
		}
		c.found(level, fmt.Sprintf("index, series %s, chunk %d (%s at %d)", c.x.name(&c.s), i+1, file, off), problem)
	}
}

// chunk reads one chunk and returns what is wrong with it. The level is Odd when its
// samples can be read, with a problem or without.
func (c *chunkChecker) chunk(m chunks.Meta) (level Level, problem string) {
	ref, off := chunks.BlockChunkRef(m.Ref).Unpack()
	if ref >= len(c.segs) {
		return Unreadable, "there is no such segment file"
	}
	data := c.segs[ref].data
	if data == nil {
		return Unreadable, "the segment file cannot be read"
	}
	if off < chunks.SegmentHeaderSize || off >= len(data) {
		return Unreadable, fmt.Sprintf("it is beyond the end of the file, %d", len(data))
	}
	data = data[off:]
	length, n := binary.Uvarint(data[:min(len(data), chunks.MaxChunkLengthFieldSize)])
	if n <= 0 || length > uint64(len(data)) || n+chunks.ChunkEncodingSize+int(length)+crc32.Size > len(data) {
		return Unreadable, "it goes beyond the end of the file"
	}
	data = data[n:]
	end := chunks.ChunkEncodingSize + int(length)
	if c.read.segment != ref {
		c.release()
	}
	if c.read.to == 0 {
		c.read = extent{ref, off, 0}
	}
	c.read.from, c.read.to = min(c.read.from, off), max(c.read.to, off+end)
	if want, got := binary.BigEndian.Uint32(data[end:]), crc32.Checksum(data[:end], c.crc); want != got {
		return Unreadable, fmt.Sprintf("checksum is %08x, not %08x", got, want)
	}
	return c.samples(chunkenc.Encoding(data[0]), data[chunks.ChunkEncodingSize:end:end], m)
}

// samples decodes a chunk to its end.
func (c *chunkChecker) samples(enc chunkenc.Encoding, data []byte, m chunks.Meta) (level Level, problem string) {
	count := sampleCount(enc, data)
	if !known(enc) {
		c.stats.Samples += uint64(count)
		c.stats.Unknown++
		return Odd, ""
	}
	if count == 0 && len(data) >= headerBytes(enc) { // readers ignore the bytes that follow
		return Odd, "it has no samples"
	}
	if first, last, ok := walked(enc, data); ok && first == m.MinTime && last == m.MaxTime {
		c.count(enc, count)
		return Odd, ""
	}
	defer func() {
		if p := recover(); p != nil {
			delete(c.cut.in, enc)
			level, problem = Unreadable, fmt.Sprintf("cannot be decoded (encoding %s): %v", enc, p)
		}
	}()
	it, err := c.cut.read(enc, data)
	if err != nil {
		return Unreadable, fmt.Sprintf("cannot be decoded (encoding %s): %v", enc, err)
	}
	var first, last int64
	read := 0
	for ; it.Next() != chunkenc.ValNone; read++ {
		t := it.AtT()
		if read == 0 {
			first = t
		} else if t <= last && problem == "" {
			problem = fmt.Sprintf("sample %d is at %d, the one before it at %d", read+1, t, last)
		}
		last = t
	}
	if err := it.Err(); err != nil {
		return Unreadable, fmt.Sprintf("cannot be decoded (encoding %s) after %d of %d samples: %v", enc, read, count, err)
	}
	c.count(enc, read)
	switch {
	case problem != "":
	case read != count:
		problem = fmt.Sprintf("says %d samples, has %d", count, read)
	case first != m.MinTime || last != m.MaxTime:
		problem = fmt.Sprintf("has samples from %d to %d, the index says %d to %d", first, last, m.MinTime, m.MaxTime)
	}
	return Odd, problem
}

func (c *chunkChecker) count(enc chunkenc.Encoding, samples int) {
	c.stats.Samples += uint64(samples)
	if isHistogram(enc) {
		c.stats.histograms += uint64(samples)
	} else {
		c.stats.floats += uint64(samples)
	}
}

// checkSegmentHeader says what is wrong with the head of a chunk file.
func checkSegmentHeader(data []byte) string {
	const version = 1
	switch {
	case len(data) < chunks.SegmentHeaderSize:
		return "the file is shorter than its header"
	case binary.BigEndian.Uint32(data) != chunks.MagicChunks:
		return "it does not begin as a file of chunks"
	case data[chunks.MagicChunksSize] != version:
		return fmt.Sprintf("its version %d is not known", data[chunks.MagicChunksSize])
	}
	return ""
}

// yolo is a string without a copy, valid as long as the mapped file is.
func yolo(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
