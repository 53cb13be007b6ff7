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

	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
)

// chunkStats is Stats with further numbers for the comparison with meta.json.
type chunkStats struct {
	Stats
	floats, histograms uint64 // number of samples
}

// shareSeries is the number of series that a worker checks at a time.
const shareSeries = 256

// share has the findings of shareSeries series. Shares are reported in the order of the series.
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
			min: math.MinInt64, max: math.MaxInt64,
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
			"%d chunks have an unknown encoding; only a Prometheus that supports it can query them", sum.Unknown)
	}
	return sum, ctx.Err()
}

// chunkChecker is the state of one worker.
type chunkChecker struct {
	x        *indexFile
	segs     []segment
	crc      *crc32.Table
	min, max int64 // time range of the block, the end exclusive

	s     series
	cut   cutter
	stats chunkStats
	share *share // current
	read  extent // read since the last release
}

// extent is a part of a segment file, in bytes.
type extent struct {
	segment, from, to int
}

// release frees the memory of the chunks that were read. Otherwise the whole mapped block would
// count as memory of this process. Chunks are usually in the order of their series and not needed
// again; in another order the kernel reads pages again from its cache.
func (c *chunkChecker) release() {
	if c.read.to > 0 {
		dropPages(c.segs[c.read.segment].data, c.read.from, c.read.to)
	}
	c.read = extent{}
}

// found adds a finding to the current share.
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
		return // labelSets reported it
	}
	if len(c.s.chunks) == 0 {
		c.found(Odd, "index, series "+c.x.name(&c.s), "no chunks")
	}
	end := int64(math.MinInt64) // end of the previous chunks
	for i, m := range c.s.chunks {
		c.stats.Chunks++
		level, problem := c.chunk(m)
		switch {
		case problem != "":
		case m.MinTime > m.MaxTime:
			problem = fmt.Sprintf("the chunk starts at %d and ends at %d", m.MinTime, m.MaxTime)
		case m.MinTime < c.min || m.MaxTime >= c.max && c.max != math.MaxInt64:
			problem = fmt.Sprintf("the chunk from %d to %d is outside the block from %d to %d",
				m.MinTime, m.MaxTime, c.min, c.max-1)
		case i > 0 && m.MinTime <= end:
			problem = fmt.Sprintf("the chunk starts at %d, before the end of an earlier one at %d", m.MinTime, end)
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

// chunk reads one chunk and returns what is wrong with it; problem is empty for a good chunk. The
// level is Odd if its samples can be read.
func (c *chunkChecker) chunk(m chunks.Meta) (level Level, problem string) {
	ref, off := chunks.BlockChunkRef(m.Ref).Unpack()
	if ref >= len(c.segs) {
		return Unreadable, "the segment file is missing"
	}
	data := c.segs[ref].data
	if data == nil {
		return Unreadable, "the segment file cannot be read"
	}
	if off < chunks.SegmentHeaderSize || off >= len(data) {
		return Unreadable, fmt.Sprintf("the chunk begins outside the file of %d bytes", len(data))
	}
	data = data[off:]
	length, n := binary.Uvarint(data[:min(len(data), chunks.MaxChunkLengthFieldSize)])
	if n <= 0 || length > uint64(len(data)) || n+chunks.ChunkEncodingSize+int(length)+crc32.Size > len(data) {
		return Unreadable, "the chunk ends outside the file"
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
		return Unreadable, fmt.Sprintf("bad checksum: computed %08x, stored %08x", got, want)
	}
	return c.samples(chunkenc.Encoding(data[0]), data[chunks.ChunkEncodingSize:end:end], m)
}

// samples decodes a chunk and returns what is wrong with its samples, like chunk.
func (c *chunkChecker) samples(enc chunkenc.Encoding, data []byte, m chunks.Meta) (level Level, problem string) {
	count := sampleCount(enc, data)
	if !known(enc) {
		c.stats.Samples += uint64(count)
		c.stats.Unknown++
		return Odd, ""
	}
	if count == 0 && len(data) >= headerBytes(enc) { // readers ignore the bytes that follow
		return Odd, "no samples"
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
			problem = fmt.Sprintf("sample %d at %d follows one at %d", read+1, t, last)
		}
		last = t
	}
	if err := it.Err(); err != nil {
		return Unreadable, fmt.Sprintf("cannot be decoded (encoding %s) after %d of %d samples: %v",
			enc, read, count, err)
	}
	c.count(enc, read)
	switch {
	case problem != "":
	case read != count:
		problem = fmt.Sprintf("the header has %d samples, but the chunk has %d", count, read)
	case first != m.MinTime || last != m.MaxTime:
		problem = fmt.Sprintf("the samples are from %d to %d, but the index has %d to %d",
			first, last, m.MinTime, m.MaxTime)
	}
	return Odd, problem
}

// count counts samples in the statistics.
func (c *chunkChecker) count(enc chunkenc.Encoding, samples int) {
	c.stats.Samples += uint64(samples)
	if isHistogram(enc) {
		c.stats.histograms += uint64(samples)
	} else {
		c.stats.floats += uint64(samples)
	}
}

// checkSegmentHeader returns what is wrong with the header of a chunk file, or an empty string.
func checkSegmentHeader(data []byte) string {
	const version = 1
	switch {
	case len(data) < chunks.SegmentHeaderSize:
		return "the file is shorter than its header"
	case binary.BigEndian.Uint32(data) != chunks.MagicChunks:
		return "bad magic number"
	case data[chunks.MagicChunksSize] != version:
		return fmt.Sprintf("unknown format version %d", data[chunks.MagicChunksSize])
	}
	return ""
}
