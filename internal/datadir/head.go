package datadir

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Head is what the data dir has outside of blocks.
type Head struct {
	WAL    []*File // the checkpoint's segments, then those after it
	WBL    []*File // the out-of-order log
	Chunks []*File // of chunks_head, for [RawHead] only

	// MinValidTime is the first time, in Unix milliseconds, from which in-order
	// samples of the WAL count; a block has those before. math.MinInt64: all count.
	MinValidTime int64

	lastWAL *File // the segment that may be written to, if any
	lastWBL *File
}

// Bytes is the size of the head's files, in bytes.
func (h *Head) Bytes() int64 { return sizes(h.WAL) + sizes(h.WBL) + sizes(h.Chunks) }

func (h *Head) close() error {
	return errors.Join(closeAll(h.WAL), closeAll(h.WBL), closeAll(h.Chunks))
}

// open opens the head chunks before the logs: a log that is younger than the
// chunks has all of their samples that still count, an older one may not.
func (h *Head) open(dir string, want HeadFiles, last bool) error {
	h.MinValidTime = math.MinInt64
	if want == NoHead {
		return nil
	}
	var err error
	if want == RawHead {
		if h.Chunks, err = openSegments(dir, "chunks_head", 0); err != nil {
			return err
		}
	}
	checkpoint, from, err := lastCheckpoint(dir)
	if err != nil {
		return err
	}
	if checkpoint != "" {
		if h.WAL, err = openSegments(dir, checkpoint, 0); err != nil {
			return err
		}
		if len(h.WAL) == 0 {
			return fmt.Errorf("%w: %s is empty", errChanged, checkpoint)
		}
	}
	wal, err := openSegments(dir, "wal", from)
	h.WAL = append(h.WAL, wal...)
	if err != nil {
		return err
	}
	h.lastWAL = lastWritten(wal)
	if len(wal) > 0 {
		// The first segment after a checkpoint is the next one. If it isn't, segments
		// were dropped between our looks at the directory.
		if n, _ := strconv.Atoi(filepath.Base(wal[0].Name)); checkpoint != "" && n != from {
			return fmt.Errorf("%w: %s is followed by segment %d", errChanged, checkpoint, n)
		}
	}
	if h.WBL, err = openSegments(dir, "wbl", 0); err != nil {
		return err
	}
	h.lastWBL = lastWritten(h.WBL)
	// A checkpoint that came meanwhile has what the segments before it had.
	if now, _, err := lastCheckpoint(dir); err != nil {
		return err
	} else if now != checkpoint {
		return fmt.Errorf("%w: %s came", errChanged, now)
	}
	// While a server repairs its log, a segment has this name and is no segment.
	for _, name := range []string{"wal", "wbl"} {
		found, err := filepath.Glob(filepath.Join(dir, name, "*.repair"))
		if err == nil && len(found) > 0 && !last {
			return fmt.Errorf("%w: %s is repaired", errChanged, name)
		}
	}
	if want == RawHead {
		return h.cut()
	}
	return nil
}

// lastWritten is the segment that may end within a record. A server that starts
// after a crash makes a new, empty one before it looks at the one that it died in.
func lastWritten(files []*File) *File {
	for _, f := range slices.Backward(files) {
		if f.Size > 0 {
			return f
		}
	}
	return nil
}

// cut ends the files that may be written to at the last whole record or chunk.
// A torn record makes Prometheus repair its log at start, and a torn chunk
// makes it drop all head chunks. And no marker in the out-of-order log may stand
// for a chunk that is not there.
func (h *Head) cut() error {
	for _, f := range []*File{h.lastWAL, h.lastWBL} {
		if f == nil {
			continue
		}
		size, err := wholeRecords(f)
		if err != nil {
			return fmt.Errorf("find the end of %s: %w", f.Name, err)
		}
		f.Size = size
	}
	for _, f := range h.WBL {
		if err := blankMarkers(f); err != nil {
			return err
		}
	}
	if n := len(h.Chunks); n > 0 {
		last := h.Chunks[n-1]
		size, err := wholeChunks(last)
		if err != nil {
			return err
		}
		if last.Size = size; size == 0 {
			h.Chunks = h.Chunks[:n-1]
			return last.f.Close()
		}
	}
	return nil
}

// Head chunk files, see tsdb/docs/format/head_chunks.md: a header, then chunks
// of series ref, first and last time, encoding, length, data and CRC. A file may
// be longer than what was written to it, filled with zeros.
const (
	chunksHeaderSize = 8
	chunkHeaderSize  = 8 + 8 + 8 + 1
)

// wholeChunks is the size of f up to the end of its last whole chunk, in bytes;
// 0 when not even its header is whole.
func wholeChunks(f *File) (int64, error) {
	r := bufio.NewReaderSize(f.Body(), 1<<16)
	if _, err := r.Discard(chunksHeaderSize); err != nil {
		return 0, ignoreEOF(err)
	}
	whole := int64(chunksHeaderSize)
	sum := crc32.New(castagnoli)
	for {
		head, err := r.Peek(chunkHeaderSize + binary.MaxVarintLen32)
		if err != nil && len(head) <= chunkHeaderSize {
			return whole, ignoreEOF(err)
		}
		length, n := binary.Uvarint(head[chunkHeaderSize:])
		if n <= 0 || length > math.MaxUint32 || head[0]|head[1]|head[2]|head[3]|head[4]|head[5]|head[6]|head[7] == 0 {
			return whole, nil
		}
		size := int64(chunkHeaderSize) + int64(n) + int64(length)
		if whole+size+crc32.Size > f.Size {
			return whole, nil
		}
		sum.Reset()
		if _, err := io.CopyN(sum, r, size); err != nil {
			return whole, ignoreEOF(err)
		}
		var crc [crc32.Size]byte
		if _, err := io.ReadFull(r, crc[:]); err != nil {
			return whole, ignoreEOF(err)
		}
		if binary.BigEndian.Uint32(crc[:]) != sum.Sum32() {
			return whole, nil
		}
		whole += size + crc32.Size
	}
}

func ignoreEOF(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return err
}

// lastCheckpoint is the newest finished checkpoint and the number of the first
// segment that it does not cover.
func lastCheckpoint(dir string) (name string, from int, err error) {
	entries, err := os.ReadDir(filepath.Join(dir, "wal"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", 0, fmt.Errorf("list wal: %w", err)
	}
	for _, e := range entries {
		num, ok := strings.CutPrefix(e.Name(), "checkpoint.")
		if !ok || !e.IsDir() {
			continue
		}
		n, err := strconv.Atoi(num) // not a number: checkpoint.N.tmp
		if err == nil && (name == "" || n >= from) {
			name, from = "wal/"+e.Name(), n+1
		}
	}
	return name, from, nil
}

// segments are the names of the numbered files in a directory, in order. A
// directory that is not there has none.
func segments(dir, name string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(dir, filepath.FromSlash(name)))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list %s: %w", name, err)
	}
	type numbered struct {
		name string
		n    int
	}
	var found []numbered
	for _, e := range entries {
		if n, err := strconv.Atoi(e.Name()); err == nil && n >= 0 {
			found = append(found, numbered{name + "/" + e.Name(), n})
		}
	}
	slices.SortFunc(found, func(a, b numbered) int { return a.n - b.n })
	names := make([]string, len(found))
	for i, s := range found {
		if i > 0 && s.n != found[i-1].n+1 {
			return nil, fmt.Errorf("%w: %s goes from %d to %d", errChanged, name, found[i-1].n, s.n)
		}
		names[i] = s.name
	}
	return names, nil
}

// openSegments opens the numbered files from number `from` on.
func openSegments(dir, name string, from int) ([]*File, error) {
	names, err := segments(dir, name)
	if err != nil {
		return nil, err
	}
	var files []*File
	for _, n := range names {
		if num, _ := strconv.Atoi(filepath.Base(n)); num < from {
			continue
		}
		f, err := openFile(dir, n)
		if err != nil {
			return nil, errors.Join(err, closeAll(files))
		}
		files = append(files, f)
	}
	return files, nil
}
