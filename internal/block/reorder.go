package block

import (
	"bufio"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
)

// spooled is a series of a writer's spool.
type spooled struct {
	labels []uint32 // symbol numbers: name, value, …
	chunks int64    // offset of its chunks in the spool
}

// inOrder copies the writer's series into a new writer, in the order of an index. It merges
// series with the same labels and encodes overlapping chunks again without overlap. It needs
// disk space for a second copy of the chunks, and memory for the labels of all series.
func (w *writer) inOrder(ctx context.Context) (_ *writer, err error) {
	if err := w.spool.Flush(); err != nil {
		return nil, fmt.Errorf("write spool: %w", err)
	}
	symbols := make([]string, len(w.symbols))
	for s, i := range w.symbols {
		symbols[i] = s
	}
	all, err := w.spooled()
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(all, func(a, b spooled) int {
		return slices.CompareFunc(a.labels, b.labels, func(x, y uint32) int {
			return cmp.Compare(symbols[x], symbols[y])
		})
	})
	out, err := newWriter(w.spec)
	if err != nil {
		return nil, err
	}
	segments, err := openSegments(filepath.Join(w.dir, chunksDir))
	defer func() {
		segments.close()
		if err != nil {
			err = errors.Join(err, out.discard())
		}
	}()
	if err != nil {
		return nil, err
	}
	var metas []chunks.Meta
	lb := labels.NewScratchBuilder(32)
	for len(all) > 0 {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		one := all[0].labels
		metas = metas[:0]
		for len(all) > 0 && slices.Equal(all[0].labels, one) {
			if metas, err = w.spooledChunks(metas, all[0].chunks); err != nil {
				return nil, err
			}
			all = all[1:]
		}
		lb.Reset()
		for i := 0; i < len(one); i += 2 {
			lb.Add(symbols[one[i]], symbols[one[i+1]])
		}
		for i := range metas {
			if metas[i].Chunk, err = segments.read(metas[i].Ref); err != nil {
				return nil, err
			}
		}
		lset := lb.Labels()
		lose := func(m chunks.Meta, err error) { w.lost.chunk(lset, m.MinTime, m.MaxTime, err.Error()) }
		if metas, err = withoutOverlap(metas, lose); err != nil {
			if e, ok := errors.AsType[*EncodingError](err); ok {
				e.Series = brief(lset)
				return nil, e
			}
			return nil, fmt.Errorf("series %s: %w", brief(lset), err)
		}
		if err := out.addSeries(lset, metas); err != nil {
			return nil, err
		}
	}
	if out.disordered {
		return nil, errors.New("the series cannot be sorted")
	}
	return out, nil
}

// spooled returns the series of the spool.
func (w *writer) spooled() ([]spooled, error) {
	r := &spoolReader{r: bufio.NewReaderSize(io.NewSectionReader(w.spoolFile, 0, math.MaxInt64), 1<<18)}
	all := make([]spooled, 0, w.stats.NumSeries)
	for range w.stats.NumSeries {
		var s spooled
		for n := 2 * r.uvarint(); n > 0 && r.err == nil; n-- {
			s.labels = append(s.labels, uint32(r.uvarint()))
		}
		s.chunks = r.at
		r.chunks(nil)
		if r.err != nil {
			return nil, fmt.Errorf("read spool: %w", r.err)
		}
		all = append(all, s)
	}
	return all, nil
}

// spooledChunks appends the chunks at an offset of the spool to metas.
func (w *writer) spooledChunks(metas []chunks.Meta, at int64) ([]chunks.Meta, error) {
	r := &spoolReader{r: bufio.NewReader(io.NewSectionReader(w.spoolFile, at, math.MaxInt64-at))}
	r.chunks(func(m chunks.Meta) { metas = append(metas, m) })
	if r.err != nil {
		return nil, fmt.Errorf("read spool: %w", r.err)
	}
	return metas, nil
}

// spoolReader reads numbers of a spool. After the first error it returns zeros.
type spoolReader struct {
	r   *bufio.Reader
	at  int64 // number of bytes read
	err error
}

// ReadByte implements [io.ByteReader].
func (r *spoolReader) ReadByte() (byte, error) {
	b, err := r.r.ReadByte()
	if err == nil {
		r.at++
	}
	return b, err
}

func (r *spoolReader) uvarint() uint64 {
	if r.err != nil {
		return 0
	}
	v, err := binary.ReadUvarint(r)
	r.err = err
	return v
}

// chunks reads the chunks of a series and calls f, if not nil, for each.
func (r *spoolReader) chunks(f func(chunks.Meta)) {
	for r.uvarint() == 1 && r.err == nil {
		mint, err := binary.ReadVarint(r)
		r.err = cmp.Or(r.err, err)
		m := chunks.Meta{MinTime: mint, MaxTime: mint + int64(r.uvarint()), Ref: chunks.ChunkRef(r.uvarint())}
		if f != nil {
			f(m)
		}
	}
}

// segmentFiles are the open chunk files of a block, in order.
type segmentFiles []*os.File

// openSegments opens the files in dir. The caller must close the result even after an error.
func openSegments(dir string) (segmentFiles, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var files segmentFiles
	for _, e := range entries {
		f, err := os.Open(filepath.Join(dir, e.Name()))
		if err != nil {
			return files, err
		}
		files = append(files, f)
	}
	return files, nil
}

func (s segmentFiles) close() {
	for _, f := range s {
		_ = f.Close() // opened for reading
	}
}

// read reads a chunk. It does not check the checksum, because this process wrote the file.
func (s segmentFiles) read(ref chunks.ChunkRef) (chunkenc.Chunk, error) {
	segment, at := chunks.BlockChunkRef(ref).Unpack()
	if segment >= len(s) {
		return nil, fmt.Errorf("chunk file %d not found", segment+1)
	}
	b := make([]byte, 256) // most chunks of floats are smaller
	n, err := s[segment].ReadAt(b, int64(at))
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	length, k := binary.Uvarint(b[:n])
	size := k + chunks.ChunkEncodingSize + int(length) + crc32.Size
	if k <= 0 || length > math.MaxInt32 {
		return nil, fmt.Errorf("%s: invalid chunk at byte %d", s[segment].Name(), at)
	}
	if size > len(b) {
		b = make([]byte, size)
		if _, err := s[segment].ReadAt(b, int64(at)); err != nil {
			return nil, err
		}
	}
	end := k + chunks.ChunkEncodingSize + int(length)
	return &rawChunk{enc: chunkenc.Encoding(b[k]), data: b[k+chunks.ChunkEncodingSize : end : end]}, nil
}

// withoutOverlap returns chunks with the samples of the given ones, sorted by time and without
// overlap. It decodes overlapping chunks only, and calls lose for each one that it cannot
// decode. It returns an *EncodingError, without the series, for an unknown encoding.
func withoutOverlap(metas []chunks.Meta, lose func(chunks.Meta, error)) ([]chunks.Meta, error) {
	for i := range metas {
		metas[i].Ref = chunks.ChunkRef(i) // the chunk has been read
	}
	slices.SortStableFunc(metas, func(a, b chunks.Meta) int { return cmp.Compare(a.MinTime, b.MinTime) })
	u := union{lose: lose, lost: map[chunks.ChunkRef]bool{}}
	var out []chunks.Meta
	for from := 0; from < len(metas); {
		to, end := from+1, metas[from].MaxTime
		for to < len(metas) && metas[to].MinTime <= end {
			end = max(end, metas[to].MaxTime)
			to++
		}
		if to == from+1 {
			out = append(out, metas[from])
		} else {
			merged, err := u.merge(metas[from:to])
			if err != nil {
				return nil, err
			}
			out = append(out, merged...)
		}
		from = to
	}
	// The times in an index may be wrong. Then all chunks are decoded for their real times.
	for i := range out {
		if i > 0 && out[i].MinTime <= out[i-1].MaxTime {
			return u.merge(metas)
		}
	}
	return out, nil
}

// union merges chunks of a series. The Ref of a chunk is its number in the series.
type union struct {
	lose func(chunks.Meta, error)
	lost map[chunks.ChunkRef]bool // chunks for which lose was called
	cut  cutter
}

// merge returns chunks with all samples of the given chunks, sorted by time. It keeps samples
// with the same time, in their order, because Prometheus serves both.
func (u *union) merge(metas []chunks.Meta) ([]chunks.Meta, error) {
	metas = slices.Clone(metas)
	slices.SortFunc(metas, func(a, b chunks.Meta) int { return cmp.Compare(a.Ref, b.Ref) })
	var all []decoded
	for _, m := range metas {
		enc := m.Chunk.Encoding()
		if !known(enc) {
			return nil, &EncodingError{Encoding: uint8(enc)}
		}
		if u.lost[m.Ref] {
			continue
		}
		n := len(all)
		var err error
		if all, err = u.cut.decode(all, enc, m.Chunk.Bytes(), func(int64) bool { return true }); err != nil {
			all, u.lost[m.Ref] = all[:n], true
			u.lose(m, err)
		}
	}
	return encodeSorted(nil, all)
}
