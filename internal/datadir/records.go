package datadir

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"iter"
	"path"
	"strconv"
	"strings"

	"github.com/prometheus/prometheus/util/compression"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// readAhead is how much of a log is read at once, in bytes: some pages.
const readAhead = 8 * pageSize

// Records yields the records of the WAL, uncompressed, oldest first. A record is
// valid until the next one.
//
// What cannot be read is passed to damaged and left out: reading goes on at the
// next whole record, in the same segment or in a later one. The last segment may
// end within a record, as it does while Prometheus writes or after it was killed;
// that is no damage. An error of the sequence is one of the disk, and ends it.
func (h *Head) Records(ctx context.Context, damaged func(Damage)) iter.Seq2[[]byte, error] {
	return records(ctx, h.WAL, h.lastWAL, h.startWAL, damaged)
}

// OutOfOrderRecords yields the records of the out-of-order log in the same way as
// [Head.Records].
func (h *Head) OutOfOrderRecords(ctx context.Context, damaged func(Damage)) iter.Seq2[[]byte, error] {
	return records(ctx, h.WBL, h.lastWBL, anySegment, damaged)
}

func records(ctx context.Context, files []*File, last *File, start int, damaged func(Damage)) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		seq := sequence{next: start}
		for _, f := range files {
			for _, d := range seq.take(f) {
				damaged(d)
			}
			r := newSegmentReader(f, f == last, damaged)
			for r.next() {
				if err := ctx.Err(); err != nil {
					yield(nil, err)
					return
				}
				if !yield(r.record, nil) {
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

// anySegment lets a sequence start at any number.
const anySegment = -1

// sequence finds missing files in a log.
type sequence struct{ next int }

// take accepts the next file. It reports files that are missing before it, and a
// segment whose repair did not end. The segments of a checkpoint are not in the
// sequence.
func (s *sequence) take(f *File) (found []Damage) {
	if f.fault != nil {
		found = append(found, Damage{File: f.Name, Err: f.fault, Fatal: f.faultFatal()})
	}
	dir, base := path.Split(f.Name)
	n, err := segmentNumber(base)
	if err != nil || strings.Contains(dir, "checkpoint.") {
		return found
	}
	from := s.next
	s.next = n + 1
	// Logs of Prometheus 2.0 to 2.2 begin with segment 1.
	if from != anySegment && n > from && !(n == 1 && f.begins(oldMagic)) {
		d := Damage{File: fmt.Sprintf("%s%0*d", dir, len(strings.TrimSuffix(base, repairSuffix)), from), Err: ErrMissing, Fatal: true}
		if n-from > 1 {
			d.Err = fmt.Errorf("%w, and so are those up to %d", ErrMissing, n-1)
		}
		found = append(found, d)
	}
	if strings.HasSuffix(base, repairSuffix) {
		found = append(found, Damage{File: f.Name, Err: ErrRepair, Fatal: f.unrepaired})
	}
	return found
}

// segmentNumber returns the number in the name of a segment, including one that a
// server was repairing.
func segmentNumber(base string) (int, error) {
	return strconv.Atoi(strings.TrimSuffix(base, repairSuffix))
}

// segmentName is the name of a segment of a log. A checkpoint's are found by their
// numbers, whatever their names.
func segmentName(n int) string { return fmt.Sprintf("%08d", n) }

// A segment is a row of pages, a page a row of fragments, each behind a header
// of type, length and checksum (tsdb/docs/format/wal.md). A record is one full
// fragment, or a first, some middle and a last one. The rest of a page is zeros.
const (
	pageSize     = 32 << 10
	fragmentHead = 1 + 2 + 4
	fragmentType = 1<<3 - 1 // the bits above say how the record is compressed
	snappyRecord = 1 << 3
	zstdRecord   = 1 << 4

	fullFragment   = 1
	firstFragment  = 2
	middleFragment = 3
	lastFragment   = 4
)

var (
	errTorn     = errors.New("a record has no end")
	errOrphan   = errors.New("a record has no beginning")
	errPadding  = errors.New("the padding of a page is not zero")
	errFragment = errors.New("the header of a record is damaged")
	errChecksum = errors.New("the checksum of a record differs")
)

// oldMagic begins each segment of the log of Prometheus 2.0 to 2.2.
var oldMagic = []byte{0x43, 0xAF, 0x00, 0xEF}

// ErrOldLog reports a log of Prometheus 2.0 to 2.2, which recent servers cannot
// read.
var ErrOldLog = errors.New("it has the format of Prometheus 2.0 to 2.2, which recent servers cannot read")

// segmentReader reads one segment; a record never spans two. It accepts what
// wlog.Reader accepts. wlog.Reader ends at the first damage; segmentReader continues
// with the next whole record.
type segmentReader struct {
	f       *File
	last    bool
	damaged func(Damage)

	ahead  readBuffer
	padded []byte // the rest of the last page, if the segment ends within it
	off    int64

	record []byte // uncompressed
	start  int64  // where the record begins
	whole  int64  // where the last whole record ends

	raw      []byte // the fragments of the record
	inside   bool   // a record has begun and not ended
	skipping bool   // until the next record begins
	dec      compression.DecodeBuffer
	found    *Damage // not reported yet: it may be the torn end of the log
	err      error   // of the disk
}

func newSegmentReader(f *File, last bool, damaged func(Damage)) *segmentReader {
	return &segmentReader{
		f: f, last: last, damaged: damaged, ahead: readBuffer{f: f}, dec: compression.NewSyncDecodeBuffer(),
	}
}

// next reads the next whole record.
func (r *segmentReader) next() bool {
	for r.err == nil {
		page := r.page()
		if len(page) == 0 {
			break
		}
		if ok := r.fragment(page); !ok {
			continue
		}
		r.report()
		return true
	}
	if r.err == nil && r.inside {
		r.damage(r.start, errTorn)
	}
	if !r.last {
		r.whole, r.start = r.f.Size, r.f.Size
		r.report()
	}
	return false
}

// page returns the rest of the current page. It is empty at the end of the segment and
// after an error.
//
// A segment that ends within a page is read as if zeros followed, as Prometheus does: a
// record that was cut off within its last bytes is whole if these were zeros.
func (r *segmentReader) page() (page []byte) {
	if r.off >= r.f.Size {
		return nil
	}
	rest := int(pageSize - r.off%pageSize)
	page, r.err = r.ahead.at(r.off, rest)
	if r.err != nil || len(page) == rest {
		return page
	}
	if r.padded == nil {
		r.padded = make([]byte, pageSize)
	}
	clear(r.padded[copy(r.padded, page):])
	return r.padded[:rest]
}

// fragment reads the next fragment in the page. It reports whether the fragment
// completes a record.
func (r *segmentReader) fragment(page []byte) bool {
	at := r.off
	kind := page[0] & fragmentType
	if kind == 0 {
		if len(bytes.TrimLeft(page[1:], "\x00")) > 0 {
			r.damage(at, errPadding)
		}
		r.off += int64(len(page))
		return false
	}
	size := 0
	if len(page) >= fragmentHead {
		size = int(binary.BigEndian.Uint16(page[1:]))
	}
	if len(page) < fragmentHead+size || kind > lastFragment {
		if at == 0 && bytes.HasPrefix(page, oldMagic) {
			r.oldLog()
			return false
		}
		r.damage(at, errFragment)
		r.off += int64(len(page)) // the next place that is known is the next page
		return false
	}
	r.off += int64(fragmentHead + size)
	data := page[fragmentHead : fragmentHead+size]
	begins := kind == fullFragment || kind == firstFragment
	switch {
	case crc32.Checksum(data, castagnoli) != binary.BigEndian.Uint32(page[3:]):
		r.damage(at, errChecksum)
		return false
	case begins && r.inside:
		r.damage(r.start, errTorn)
	case !begins && r.skipping:
		return false
	case !begins && !r.inside:
		r.damage(at, errOrphan)
		return false
	}
	if begins {
		r.start, r.raw, r.inside, r.skipping = at, r.raw[:0], true, false
	}
	r.raw = append(r.raw, data...)
	if kind != fullFragment && kind != lastFragment {
		return false
	}
	r.inside = false
	c := compression.None
	switch {
	case page[0]&snappyRecord != 0:
		c = compression.Snappy
	case page[0]&zstdRecord != 0:
		c = compression.Zstd
	}
	rec, err := compression.Decode(c, r.raw, r.dec)
	if err != nil {
		r.damage(r.start, fmt.Errorf("decompress a record: %w", err))
		return false
	}
	r.record, r.whole = rec, min(r.off, r.f.Size)
	return len(rec) > 0 // one without content is of no kind, and Prometheus ignores it
}

// damage records that there is no whole record at an offset. A record that has begun is
// lost.
func (r *segmentReader) damage(at int64, err error) {
	if r.inside {
		at = r.start
	}
	r.inside, r.skipping = false, true
	if r.found == nil {
		r.found = &Damage{File: r.f.Name, Offset: at, Err: err, Fatal: strings.Contains(r.f.Name, "checkpoint.")}
	}
}

// oldLog passes over a segment in the old format. Also if it is the last one, it is
// no torn tail.
func (r *segmentReader) oldLog() {
	r.damage(0, ErrOldLog)
	r.found.Fatal = r.found.Fatal || len(path.Base(r.f.Name)) != len(segmentName(0))
	r.off, r.start = r.f.Size, r.f.Size
	r.report()
}

// report reports damage that has a whole record, or another segment, behind it.
func (r *segmentReader) report() {
	if r.found != nil {
		r.found.Bytes = r.start - r.found.Offset
		r.damaged(*r.found)
		r.found = nil
	}
}

// end is the size of the segment without the torn record at its end, in bytes. If
// there is damage before whole records, it is the size of the segment.
func (r *segmentReader) end() int64 {
	damaged := false
	report := r.damaged
	r.damaged = func(d Damage) { damaged = true; report(d) }
	for r.next() {
	}
	if damaged {
		return r.f.Size
	}
	return r.whole
}
