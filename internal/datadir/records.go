package datadir

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"iter"

	"github.com/prometheus/prometheus/tsdb/wlog"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Wider than a page, so that a page costs one read at most.
const readAhead = 256 << 10

// TornError says that a log has bytes that are no record where whole records
// should be.
type TornError struct {
	File   string // relative to the data dir
	Offset int64  // bytes
	Err    error
}

func (e *TornError) Error() string {
	return fmt.Sprintf("read %s at byte %d: %v", e.File, e.Offset, e.Err)
}

func (e *TornError) Unwrap() error { return e.Err }

// Records are the records of the WAL, uncompressed, oldest first. A record is
// valid until the next one. The last segment may end within a record, as it
// does while Prometheus writes or after it died; elsewhere that is a *TornError.
func (h *Head) Records(ctx context.Context) iter.Seq2[[]byte, error] {
	return records(ctx, h.WAL, h.lastWAL)
}

// OutOfOrderRecords are the records of the out-of-order log, as [Head.Records]
// has them.
func (h *Head) OutOfOrderRecords(ctx context.Context) iter.Seq2[[]byte, error] {
	return records(ctx, h.WBL, h.lastWBL)
}

func records(ctx context.Context, files []*File, last *File) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for _, f := range files {
			r := newSegmentReader(f, f == last)
			for r.next() {
				if err := ctx.Err(); err != nil {
					yield(nil, err)
					return
				}
				if !yield(r.Record(), nil) {
					return
				}
			}
			if r.err != nil {
				yield(nil, r.err)
				return
			}
		}
	}
}

// segmentReader reads one segment; a record never spans two.
type segmentReader struct {
	*wlog.Reader
	f     *File
	last  bool
	whole int64 // bytes up to the end of the last whole record
	err   error
}

func newSegmentReader(f *File, last bool) *segmentReader {
	return &segmentReader{Reader: wlog.NewReader(bufio.NewReaderSize(f.Body(), readAhead)), f: f, last: last}
}

func (r *segmentReader) next() bool {
	if r.Next() {
		r.whole = r.Offset()
		return true
	}
	err := r.Err()
	if err == nil && r.whole < r.f.Size {
		// The library takes a record without any of its data for the end. What may
		// follow the last record are the zeros that fill its page.
		var next [1]byte
		if _, err = r.f.ReadAt(next[:], r.whole); err == nil && next[0] != 0 {
			err = io.ErrUnexpectedEOF
		}
	}
	// A disk that cannot be read is no end either.
	_, broken := errors.AsType[*fs.PathError](err)
	if err != nil && (!r.last || broken) {
		r.err = &TornError{File: r.f.Name, Offset: r.whole, Err: err}
	}
	return false
}

// A segment is a row of pages, a page a row of fragments, each behind a header
// of type, length and checksum (tsdb/docs/format/wal.md). A record is one full
// fragment, or a first, some middle and a last one.
const (
	pageSize     = 32 << 10
	fragmentHead = 1 + 2 + 4
	fragmentType = 1<<3 - 1 // the bits above say how the record is compressed

	fullFragment   = 1
	firstFragment  = 2
	middleFragment = 3
	lastFragment   = 4
)

// wholeRecords is the size of f up to the end of the last record before anything
// that is none, in bytes. It looks at checksums and not into records.
func wholeRecords(f *File) (int64, error) {
	pages := make([]byte, 16*pageSize)
	var whole int64
	inside := false // a record that has begun and not ended
	for at := int64(0); at < f.Size; at += int64(len(pages)) {
		n, err := f.ReadAt(pages[:min(int64(len(pages)), f.Size-at)], at)
		if err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		for off := 0; off < n; off += pageSize {
			page := pages[off:min(off+pageSize, n)]
			for pos := 0; pos < len(page) && page[pos] != 0; {
				if len(page)-pos < fragmentHead {
					return whole, nil
				}
				kind, size := page[pos]&fragmentType, int(binary.BigEndian.Uint16(page[pos+1:]))
				sum := binary.BigEndian.Uint32(page[pos+3:])
				if pos += fragmentHead; len(page)-pos < size || crc32.Checksum(page[pos:pos+size], castagnoli) != sum {
					return whole, nil
				}
				if kind < fullFragment || kind > lastFragment || inside != (kind == middleFragment || kind == lastFragment) {
					return whole, nil
				}
				inside = kind == firstFragment || kind == middleFragment
				if pos += size; !inside {
					whole = at + int64(off+pos)
				}
			}
		}
	}
	return whole, nil
}
