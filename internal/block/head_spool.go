package block

import (
	"bufio"
	"errors"
	"fmt"
	"os"

	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// spool is a file of what need not be in memory until the blocks are written.
type spool struct {
	file *os.File
	w    *bufio.Writer
	size int64 // bytes
}

// spooledRef is where something is in the spool.
type spooledRef struct {
	offset     int64
	mint, maxt int64 // of its samples
	size       uint32
	enc        chunkenc.Encoding // of a chunk
	mapped     bool              // in the spool of the m-mapped chunks
}

func newSpool(parent string) (*spool, error) {
	file, err := os.CreateTemp(parent, "head-*.spool")
	if err != nil {
		return nil, fmt.Errorf("make spool: %w", err)
	}
	return &spool{file: file, w: bufio.NewWriterSize(file, 1<<18)}, nil
}

func (s *spool) put(data []byte, mint, maxt int64) (spooledRef, error) {
	ref := spooledRef{offset: s.size, mint: mint, maxt: maxt, size: uint32(len(data))}
	if _, err := s.w.Write(data); err != nil {
		return ref, fmt.Errorf("write spool: %w", err)
	}
	s.size += int64(len(data))
	return ref, nil
}

// flush comes between the last put and the first read.
func (s *spool) flush() error {
	if err := s.w.Flush(); err != nil {
		return fmt.Errorf("write spool: %w", err)
	}
	return nil
}

// read fills buf, which has the size of what is read.
func (s *spool) read(ref spooledRef, buf []byte) error {
	if _, err := s.file.ReadAt(buf, ref.offset); err != nil {
		return fmt.Errorf("read spool: %w", err)
	}
	return nil
}

// close removes the file. It may be called again.
func (s *spool) close() error {
	if s.file == nil {
		return nil
	}
	file := s.file
	s.file = nil
	return errors.Join(file.Close(), os.Remove(file.Name()))
}

var _ chunkSink = (*spoolSink)(nil)

// spoolSink takes the finished chunks of one series.
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
