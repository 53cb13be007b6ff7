package block

import (
	"bufio"
	"errors"
	"fmt"
	"os"

	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// spool is a temporary file of chunks and encoded samples, which keeps them out of memory until
// the blocks are written.
type spool struct {
	file *os.File
	w    *bufio.Writer
	size int64 // in bytes
}

// spooledRef is the place of a chunk or of encoded samples in a spool.
type spooledRef struct {
	offset     int64
	mint, maxt int64             // of the samples
	size       uint32            // in bytes
	enc        chunkenc.Encoding // for chunks only
	mapped     bool              // in the spool of the m-mapped chunks
}

// newSpool creates a spool file in the directory parent. The caller must close it.
func newSpool(parent string) (*spool, error) {
	file, err := os.CreateTemp(parent, "head-*.spool")
	if err != nil {
		return nil, fmt.Errorf("create spool: %w", err)
	}
	return &spool{file: file, w: bufio.NewWriterSize(file, 1<<18)}, nil
}

// put appends data with samples from mint to maxt.
func (s *spool) put(data []byte, mint, maxt int64) (spooledRef, error) {
	ref := spooledRef{offset: s.size, mint: mint, maxt: maxt, size: uint32(len(data))}
	if _, err := s.w.Write(data); err != nil {
		return ref, fmt.Errorf("write spool: %w", err)
	}
	s.size += int64(len(data))
	return ref, nil
}

// flush must be called between the last put and the first read.
func (s *spool) flush() error {
	if err := s.w.Flush(); err != nil {
		return fmt.Errorf("write spool: %w", err)
	}
	return nil
}

// read reads ref into buf, which must have its size.
func (s *spool) read(ref spooledRef, buf []byte) error {
	if _, err := s.file.ReadAt(buf, ref.offset); err != nil {
		return fmt.Errorf("read spool: %w", err)
	}
	return nil
}

// close closes and removes the file. It may be called more than once.
func (s *spool) close() error {
	if s.file == nil {
		return nil
	}
	file := s.file
	s.file = nil
	return errors.Join(file.Close(), os.Remove(file.Name()))
}

var _ chunkSink = (*spoolSink)(nil)

// spoolSink writes the finished chunks of a series to its shard's spool.
type spoolSink struct {
	b      *headShard
	series *headSeries
}

func (k *spoolSink) take(o *openChunk) error {
	k.b.addWindow(o.mint)
	ref, err := k.b.spool.put(o.chunk.Bytes(), o.mint, o.maxt)
	if err != nil {
		return err
	}
	ref.enc = o.chunk.Encoding()
	k.series.chunks = append(k.series.chunks, ref)
	o.recycle()
	return nil
}
