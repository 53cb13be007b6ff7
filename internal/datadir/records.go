package datadir

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"

	"github.com/prometheus/prometheus/tsdb/wlog"
)

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
