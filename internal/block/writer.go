package block

import (
	"bufio"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"

	"github.com/promdump/promdump/internal/wire"
)

// Spec describes a block to build.
type Spec struct {
	Parent string // existing directory in which the block directory is created

	// MinTime and MaxTime are the time range of the block, inclusive, in Unix
	// milliseconds. meta.json has an exclusive end, so its maxTime is MaxTime + 1.
	MinTime, MaxTime int64

	// Selected, if not nil, is the range of samples to keep, for a block with samples
	// outside MinTime and MaxTime. The range in meta.json is extended to include them.
	Selected *wire.Interval

	// Origin is the source of the samples (a block's ULID, "head", …). It determines the
	// ULID too: equal samples of two origins make two blocks.
	Origin string

	// Hints are the compaction hints in meta.json.
	Hints []string
}

// segmentBytes is the size limit of a chunk segment file. Prometheus uses 512 MiB and
// preallocates it: too much for a staging directory that may be in memory.
const segmentBytes = 64 << 20

// writer writes one block. The caller adds series sorted by labels, each with chunks sorted by
// time; in another order finish writes the block a second time. Its memory grows with the
// number of distinct label names and values, not of series or chunks: an index begins with all
// symbols, so a spool file holds the series until finish.
//
//	newWriter, (addSeries | startSeries addChunks* endSeries)*, finish or discard
type writer struct {
	spec   Spec
	outer  string // temporary directory with spool and dir
	dir    string // block directory, until finish renames it
	chunks *chunks.Writer

	spoolFile *os.File
	spool     *bufio.Writer
	buf       []byte
	hashBuf   []byte

	symbols map[string]uint32 // numbers in the order of addition
	digest  hash.Hash

	last     labels.Labels // of the last series
	inSeries bool          // the last series has not ended
	lastMax  int64         // of the series' last chunk; valid if chunkNow > 0
	chunkNow int           // number of chunks of the series

	lost             Lost
	disordered       bool  // the series or chunks are not in the order of an index
	minTime, maxTime int64 // of all chunks; minTime > maxTime: no chunk

	stats tsdb.BlockStats
}

// newWriter creates a temporary directory in spec.Parent and begins a block in it.
func newWriter(spec Spec) (_ *writer, err error) {
	if spec.MinTime > spec.MaxTime {
		return nil, fmt.Errorf("build block: empty time range from %d to %d", spec.MinTime, spec.MaxTime)
	}
	w := &writer{spec: spec, symbols: map[string]uint32{}, digest: sha256.New(),
		minTime: math.MaxInt64, maxTime: math.MinInt64}
	if w.outer, err = os.MkdirTemp(spec.Parent, "build-*"); err != nil {
		return nil, fmt.Errorf("build block: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.discard())
		}
	}()
	// MkdirTemp creates a private directory; a block has the usual mode.
	w.dir = filepath.Join(w.outer, "block")
	if err := os.Mkdir(w.dir, 0o777); err != nil {
		return nil, fmt.Errorf("build block: %w", err)
	}
	if w.spoolFile, err = os.Create(filepath.Join(w.outer, "spool")); err != nil {
		return nil, fmt.Errorf("build block: %w", err)
	}
	w.spool = bufio.NewWriterSize(w.spoolFile, 1<<18)
	w.chunks, err = chunks.NewWriter(filepath.Join(w.dir, chunksDir), chunks.WithSegmentSize(segmentBytes))
	if err != nil {
		return nil, fmt.Errorf("build block: open chunk writer: %w", err)
	}

	w.hashInts(spec.MinTime, spec.MaxTime, int64(len(spec.Origin)))
	w.digest.Write([]byte(spec.Origin))
	return w, nil
}

// addSeries adds a series with all its chunks, which it writes; it overwrites their Ref. It
// skips a series without chunks.
func (w *writer) addSeries(lset labels.Labels, metas []chunks.Meta) error {
	if len(metas) == 0 {
		return nil
	}
	if err := w.startSeries(lset); err != nil {
		return err
	}
	if err := w.addChunks(metas); err != nil {
		return err
	}
	return w.endSeries()
}

// startSeries begins a series, which must get at least one chunk. It retains lset.
func (w *writer) startSeries(lset labels.Labels) error {
	if w.inSeries {
		return fmt.Errorf("series %s begins before the end of series %s", brief(lset), brief(w.last))
	}
	if lset.IsEmpty() {
		return errors.New("a series has no labels")
	}
	if w.stats.NumSeries > 0 && labels.Compare(lset, w.last) <= 0 {
		w.disordered = true
	}
	w.last, w.inSeries, w.chunkNow = lset, true, 0
	w.stats.NumSeries++

	b := binary.AppendUvarint(w.buf[:0], uint64(lset.Len()))
	h := binary.BigEndian.AppendUint64(w.hashBuf[:0], uint64(lset.Len()))
	lset.Range(func(l labels.Label) {
		b = binary.AppendUvarint(b, uint64(w.symbol(l.Name)))
		b = binary.AppendUvarint(b, uint64(w.symbol(l.Value)))
		h = binary.BigEndian.AppendUint64(h, uint64(len(l.Name)))
		h = append(h, l.Name...)
		h = binary.BigEndian.AppendUint64(h, uint64(len(l.Value)))
		h = append(h, l.Value...)
	})
	w.digest.Write(h)
	w.hashBuf = h
	w.buf = b
	return w.toSpool(b)
}

// addChunks adds chunks to the current series.
func (w *writer) addChunks(metas []chunks.Meta) error {
	for i := range metas {
		m := &metas[i]
		if m.MinTime > m.MaxTime {
			return fmt.Errorf("series %s: a chunk ends at %d, before its start at %d",
				brief(w.last), m.MaxTime, m.MinTime)
		}
		w.disordered = w.disordered || w.chunkNow > 0 && m.MinTime <= w.lastMax
		w.lastMax = m.MaxTime
		w.minTime, w.maxTime = min(w.minTime, m.MinTime), max(w.maxTime, m.MaxTime)
		w.chunkNow++

		enc, data, samples := m.Chunk.Encoding(), m.Chunk.Bytes(), uint64(m.Chunk.NumSamples())
		w.stats.NumChunks++
		w.stats.NumSamples += samples
		switch {
		case isHistogram(enc):
			w.stats.NumHistogramSamples += samples
		case enc == chunkenc.EncXOR || enc == chunkenc.EncXOR2:
			w.stats.NumFloatSamples += samples
		}
		w.hashInts(m.MinTime, m.MaxTime, int64(enc), int64(len(data)))
		w.digest.Write(data)
	}
	if err := w.chunks.WriteChunks(metas...); err != nil {
		return fmt.Errorf("write chunks of series %s: %w", brief(w.last), err)
	}
	b := w.buf[:0]
	for _, m := range metas {
		b = append(b, 1)
		b = binary.AppendVarint(b, m.MinTime)
		b = binary.AppendUvarint(b, uint64(m.MaxTime-m.MinTime))
		b = binary.AppendUvarint(b, uint64(m.Ref))
	}
	w.buf = b
	return w.toSpool(b)
}

// endSeries ends the current series.
func (w *writer) endSeries() error {
	if w.chunkNow == 0 {
		return fmt.Errorf("series %s has no chunks", brief(w.last))
	}
	w.inSeries = false
	return w.toSpool([]byte{0})
}

// finish writes the index and meta.json, and renames the block directory to its ULID. It
// returns nil, nil and leaves nothing on disk if there are no series. After an error the caller
// must call discard.
func (w *writer) finish(ctx context.Context) (*Built, error) {
	if w.inSeries {
		return nil, fmt.Errorf("build block: series %s has not ended", brief(w.last))
	}
	cw := w.chunks
	w.chunks = nil
	if err := cw.Close(); err != nil {
		return nil, fmt.Errorf("build block: close chunk segment: %w", err)
	}
	if w.stats.NumSeries == 0 {
		return nil, w.discard()
	}
	if w.disordered {
		out, err := w.inOrder(ctx)
		if err != nil {
			return nil, fmt.Errorf("build block: sort the series: %w", err)
		}
		if err := w.discard(); err != nil {
			return nil, errors.Join(err, out.discard())
		}
		built, err := out.finish(ctx)
		if err != nil {
			return nil, errors.Join(err, out.discard())
		}
		return built, nil
	}
	if err := w.writeIndex(ctx); err != nil {
		return nil, fmt.Errorf("build block: %w", err)
	}

	id, err := contentULID(w.spec.MaxTime, w.digest.Sum(nil))
	if err != nil {
		return nil, err
	}
	begin, end := w.spec.MinTime, w.spec.MaxTime
	if w.spec.Selected != nil {
		begin, end = min(begin, w.minTime), max(end, w.maxTime)
	}
	if end < math.MaxInt64 {
		end++
	}
	built := &Built{
		Dir: filepath.Join(w.spec.Parent, id.String()),
		Meta: tsdb.BlockMeta{
			ULID:    id,
			MinTime: begin,
			MaxTime: end,
			Stats:   w.stats,
			Version: metaVersion,
			Compaction: tsdb.BlockMetaCompaction{
				Level:   1,
				Sources: []ulid.ULID{id},
				Hints:   slices.Sorted(slices.Values(w.spec.Hints)),
			},
		},
	}
	if err := writeMeta(w.dir, &built.Meta); err != nil {
		return nil, fmt.Errorf("build block: %w", err)
	}
	if built.Files, err = listFiles(w.dir); err != nil {
		return nil, err
	}
	if err := os.Rename(w.dir, built.Dir); err != nil {
		return nil, fmt.Errorf("build block: %w", err)
	}
	if err := w.discard(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(built.Dir))
	}
	return built, nil
}

// discard removes the temporary directory; it keeps a finished block. It may be called more
// than once.
func (w *writer) discard() error {
	var errs []error
	if w.chunks != nil {
		w.chunks.Close() //nolint:errcheck // closes its files, which are then removed
		w.chunks = nil
	}
	if w.spoolFile != nil {
		errs = append(errs, w.spoolFile.Close())
		w.spoolFile = nil
	}
	if w.outer != "" {
		errs = append(errs, os.RemoveAll(w.outer))
		w.outer = ""
	}
	return errors.Join(errs...)
}

// writeIndex writes the index: the sorted symbols, then the spooled series.
func (w *writer) writeIndex(ctx context.Context) (err error) {
	if err := w.spool.Flush(); err != nil {
		return fmt.Errorf("write spool: %w", err)
	}
	if _, err := w.spoolFile.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("read spool: %w", err)
	}
	iw, err := index.NewWriter(ctx, filepath.Join(w.dir, indexName))
	if err != nil {
		return fmt.Errorf("open index writer: %w", err)
	}
	closed := false
	defer func() {
		if !closed { // after an error: closes the files
			iw.Close() //nolint:errcheck // the first error is returned
		}
	}()

	byNumber := make([]string, len(w.symbols))
	for s, i := range w.symbols {
		byNumber[i] = s
	}
	w.symbols = nil // frees memory: the index writer has its own copy
	for _, s := range slices.SortedFunc(slices.Values(byNumber), cmp.Compare[string]) {
		if err := iw.AddSymbol(s); err != nil {
			return fmt.Errorf("write symbols of index: %w", err)
		}
	}
	if err := w.replay(iw, byNumber); err != nil {
		return err
	}
	closed = true
	if err := iw.Close(); err != nil {
		return fmt.Errorf("close index: %w", err)
	}
	return nil
}

// replay adds the spooled series to the index.
func (w *writer) replay(iw *index.Writer, symbols []string) error {
	var (
		r     = &spoolReader{r: bufio.NewReaderSize(w.spoolFile, 1<<18)}
		lb    = labels.NewScratchBuilder(32)
		metas []chunks.Meta
	)
	for ref := range w.stats.NumSeries {
		lb.Reset()
		for n := r.uvarint(); n > 0 && r.err == nil; n-- {
			name, value := r.uvarint(), r.uvarint()
			lb.Add(symbols[name], symbols[value])
		}
		metas = metas[:0]
		r.chunks(func(m chunks.Meta) { metas = append(metas, m) })
		if r.err != nil {
			return fmt.Errorf("read spool: %w", r.err)
		}
		// Labels, not Overwrite: the index writer retains the labels until the next call.
		if err := iw.AddSeries(storage.SeriesRef(ref), lb.Labels(), metas...); err != nil {
			return fmt.Errorf("write index: %w", err)
		}
	}
	return nil
}

// toSpool appends b to the spool.
func (w *writer) toSpool(b []byte) error {
	if _, err := w.spool.Write(b); err != nil {
		return fmt.Errorf("write spool: %w", err)
	}
	return nil
}

// symbol returns the number of a symbol, which it adds if needed.
func (w *writer) symbol(s string) uint32 {
	n, ok := w.symbols[s]
	if !ok {
		n = uint32(len(w.symbols))
		w.symbols[s] = n
	}
	return n
}

// hashInts adds numbers to the digest.
func (w *writer) hashInts(values ...int64) {
	b := w.hashBuf[:0]
	for _, v := range values {
		b = binary.BigEndian.AppendUint64(b, uint64(v))
	}
	w.digest.Write(b)
	w.hashBuf = b
}

// isHistogram reports whether chunks of the encoding have histograms.
func isHistogram(enc chunkenc.Encoding) bool {
	switch enc {
	case chunkenc.EncHistogram, chunkenc.EncFloatHistogram, chunkenc.EncHistogramST, chunkenc.EncFloatHistogramST:
		return true
	}
	return false
}

// brief returns the labels of a series for an error, truncated because a label value may have
// megabytes.
func brief(lset labels.Labels) string {
	const limit = 300
	s := lset.String()
	if len(s) <= limit {
		return s
	}
	return s[:limit] + "…"
}
