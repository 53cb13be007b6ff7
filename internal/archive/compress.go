package archive

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// kind is what a piece of the tar mostly holds. It decides the level.
type kind uint8

const (
	chunkKind kind = iota // samples, bit-packed already
	indexKind
	logKind // WAL, out-of-order WAL
	smallKind
)

func kindOf(name string) kind {
	switch {
	case strings.Contains(name, "/chunks/"), strings.HasPrefix(name, "chunks_head/"):
		return chunkKind
	case strings.HasSuffix(name, "/index"):
		return indexKind
	case strings.HasPrefix(name, "wal/"), strings.HasPrefix(name, "wbl/"):
		return logKind
	}
	return smallKind
}

// encoder compresses one piece after the other, each for itself, so that several
// encoders can work on one stream.
type encoder interface {
	// encode appends src compressed to dst.
	encode(dst, src []byte, k kind) ([]byte, error)
}

// Sizes of pieces. Uncompressed, it should still be in the cache when it is
// hashed and written. A gzip member loses 32 KiB of history, a zstd frame all of it.
const (
	nonePiece = 256 << 10
	gzipPiece = 1 << 20
	zstdPiece = 5 << 19

	// Encoders hold a window. Logs repeat over all of a piece (which needs a power
	// of two that holds it), chunks do not.
	zstdFar  = 4 << 20
	zstdNear = 1 << 20
)

func pieceSize(c Compression) int {
	switch c {
	case Gzip:
		return gzipPiece
	case Zstd:
		return zstdPiece
	}
	return nonePiece
}

func newEncoder(c Compression) (encoder, error) {
	switch c {
	case Gzip:
		return &gzipEncoder{}, nil
	case Zstd:
		fast, err := newZstd(zstd.SpeedFastest, zstdNear)
		if err != nil {
			return nil, err
		}
		small, err := newZstd(zstd.SpeedBetterCompression, zstdFar)
		if err != nil {
			return nil, err
		}
		return zstdEncoder{fast, small}, nil
	}
	return nil, fmt.Errorf("unknown compression %q", c)
}

func newZstd(level zstd.EncoderLevel, window int) (*zstd.Encoder, error) {
	e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(level), zstd.WithWindowSize(window),
		zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true))
	if err != nil {
		return nil, fmt.Errorf("make zstd encoder: %w", err)
	}
	return e, nil
}

// zstdEncoder has the better level for what it makes smaller, and the fastest for
// chunks. Ratio and MB per CPU second, 2 MiB a frame:
//
//	          fastest       default       better
//	chunks   0.908 @ 493   0.896 @ 193   0.891 @ 88
//	index    0.260 @ 273   0.243 @ 234   0.213 @ 183
//	WAL      0.458 @ 163   0.361 @ 148   0.324 @ 108
//
// The WAL gains by longer frames too: 0.368 at 1 MiB, 0.324 at 2 MiB.
type zstdEncoder struct{ fast, small *zstd.Encoder }

func (e zstdEncoder) encode(dst, src []byte, k kind) ([]byte, error) {
	if k == indexKind || k == logKind {
		return e.small.EncodeAll(src, dst), nil
	}
	return e.fast.EncodeAll(src, dst), nil
}

// gzipEncoder has a level for each kind. Ratio and MB per CPU second, 1 MiB a
// member, beside gzip -6 of the whole:
//
//	          gzip -6     Huffman     level 1     level 3     level 5
//	chunks   0.855 @ 13  0.90 @ 375  0.96 @ 435  0.91 @ 204  0.89 @ 111
//	index    0.284 @ 26  0.61 @ 408  0.32 @ 301  0.31 @ 236  0.30 @ 148
//	WAL      0.70  @ 13  0.79 @ 307  0.79 @  97  0.75 @  84  0.73 @  51
//
// Matches are rare in chunks, and a fast search for them spoils the literals'
// code: Huffman alone is smaller than levels 1 and 2. Where many series stand
// still that turns round, so a sample of each piece decides. Level 3 must save 7 %:
// on chunks of which it saves 3 % it takes 12 ms of CPU a MB, Huffman 5.
type gzipEncoder struct {
	huffman, fast, index *gzip.Writer
	sample               []byte // compressed
}

const (
	fastLevel  = 3
	indexLevel = 5
	sampleSize = 32 << 10
)

func (e *gzipEncoder) encode(dst, src []byte, k kind) ([]byte, error) {
	switch k {
	case indexKind:
		return gzipTo(&e.index, indexLevel, dst, src)
	case chunkKind:
		level, err := e.chunkLevel(src)
		if err != nil {
			return dst, err
		}
		if level == gzip.HuffmanOnly {
			return gzipTo(&e.huffman, level, dst, src)
		}
	}
	return gzipTo(&e.fast, fastLevel, dst, src)
}

// chunkLevel tries a sample from the middle of a piece. Huffman is twice as fast
// and wins unless the other is smaller by 7 %.
func (e *gzipEncoder) chunkLevel(src []byte) (int, error) {
	at := max(0, len(src)/2-sampleSize/2)
	sample := src[at:min(len(src), at+sampleSize)]
	out, err := gzipTo(&e.huffman, gzip.HuffmanOnly, e.sample[:0], sample)
	if err != nil {
		return 0, err
	}
	huffman := len(out)
	if out, err = gzipTo(&e.fast, fastLevel, out[:0], sample); err != nil {
		return 0, err
	}
	fast := len(out)
	e.sample = out
	if fast*100 < huffman*93 {
		return fastLevel, nil
	}
	return gzip.HuffmanOnly, nil
}

// gzipTo appends src as one gzip member, without name and time: the output
// depends on the input alone.
func gzipTo(w **gzip.Writer, level int, dst, src []byte) ([]byte, error) {
	out := bytes.NewBuffer(dst)
	if *w == nil {
		z, err := gzip.NewWriterLevel(out, level)
		if err != nil {
			return dst, fmt.Errorf("make gzip encoder: %w", err)
		}
		*w = z
	} else {
		(*w).Reset(out)
	}
	if _, err := (*w).Write(src); err != nil {
		return dst, fmt.Errorf("gzip: %w", err)
	}
	if err := (*w).Close(); err != nil {
		return dst, fmt.Errorf("gzip: %w", err)
	}
	return out.Bytes(), nil
}
