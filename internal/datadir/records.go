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

// readAhead is the number of bytes of a log that are read at once: some pages.
const readAhead = 8 * pageSize

// Records yields the uncompressed records of the WAL, oldest first. A record is valid until
// the next one.
//
// Records calls damaged for each part that it cannot read, and continues at the next
// complete record in the same or a later segment. An incomplete record at the end of the
// last segment is not damage: Prometheus is writing it, or crashed while it wrote it. An
// error ends the sequence; it is a failure to read a file, or that of ctx.
func (h *Head) Records(ctx context.Context, damaged func(Damage)) iter.Seq2[[]byte, error] {
	return records(ctx, h.WAL, h.lastWAL, h.startWAL, damaged)
}

// OutOfOrderRecords yields the records of the out-of-order log, like [Head.Records].
func (h *Head) OutOfOrderRecords(ctx context.Context, damaged func(Damage)) iter.Seq2[[]byte, error] {
	return records(ctx, h.WBL, h.lastWBL, anySegment, damaged)
}

// records yields the records of the segments. The number of the first one must be start,
// and last may end within a record.
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

// anySegment is the start of a sequence that may begin with any number.
const anySegment = -1

// sequence checks the numbers of the files of a log.
type sequence struct {
	next int // expected number of the next file
}

// take accepts the next file. It returns the damage that its name and type show: missing
// files before it, an interrupted repair, or a file that cannot be read. Segments of a
// checkpoint are not in the sequence.
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
	if from != anySegment && n > from && !(n == 1 && f.hasPrefix(oldMagic)) {
		name := fmt.Sprintf("%s%0*d", dir, len(strings.TrimSuffix(base, repairSuffix)), from)
		d := Damage{File: name, Err: ErrMissing, Fatal: true}
		if n-from > 1 {
			d.Err = fmt.Errorf("%w, like all files up to %d", ErrMissing, n-1)
		}
		found = append(found, d)
	}
	if strings.HasSuffix(base, repairSuffix) {
		found = append(found, Damage{File: f.Name, Err: ErrRepair, Fatal: f.unrepaired})
	}
	return found
}

// segmentNumber returns the number in the name of a segment, with or without repairSuffix.
func segmentNumber(base string) (int, error) {
	return strconv.Atoi(strings.TrimSuffix(base, repairSuffix))
}

// segmentName returns the name that servers expect of segment n of a log. In a checkpoint
// they accept other names with the same number.
func segmentName(n int) string { return fmt.Sprintf("%08d", n) }

// Format of a segment (tsdb/docs/format/wal.md): a sequence of pages. A page is a sequence
// of fragments; each has a header of type, length and checksum, then data. A record is one
// full fragment, or a first one, any number of middle ones and a last one. Zeros fill the
// rest of a page.
const (
	pageSize     = 32 << 10
	fragmentHead = 1 + 2 + 4
	fragmentType = 1<<3 - 1 // mask; higher bits select the compression of the record
	snappyRecord = 1 << 3
	zstdRecord   = 1 << 4

	fullFragment   = 1
	firstFragment  = 2
	middleFragment = 3
	lastFragment   = 4
)

var (
	errTorn     = errors.New("a record has no last fragment")
	errOrphan   = errors.New("a record has no first fragment")
	errPadding  = errors.New("the padding of a page is not zero")
	errFragment = errors.New("a record has an invalid header")
	errChecksum = errors.New("a record has a bad checksum")
)

// oldMagic are the first bytes of each segment of a log of Prometheus 2.0 to 2.2.
var oldMagic = []byte{0x43, 0xAF, 0x00, 0xEF}

// ErrOldLog reports a log of Prometheus 2.0 to 2.2, which recent servers cannot read.
var ErrOldLog = errors.New("the log has the format of Prometheus 2.0 to 2.2, which recent servers cannot read")

// segmentReader reads one segment. A record never spans two segments. segmentReader
// accepts what wlog.Reader accepts; after damage, where wlog.Reader ends, it continues
// with the next complete record.
type segmentReader struct {
	f       *File
	last    bool // an incomplete record at the end is not damage
	damaged func(Damage)

	ahead  readBuffer
	padded []byte // the rest of the last page, if the segment ends within it
	off    int64  // of the next fragment

	record []byte // uncompressed
	start  int64  // where the record begins
	whole  int64  // where the last complete record ends

	raw      []byte // data of the fragments of the record
	inside   bool   // the record has begun and has not ended
	skipping bool   // skip fragments until the next record begins
	dec      compression.DecodeBuffer
	found    *Damage // not reported yet: it may be the torn end of the log
	err      error   // failure to read the file
}

// newSegmentReader returns a reader of f that calls damaged for each damage. last allows an
// incomplete record at the end.
func newSegmentReader(f *File, last bool, damaged func(Damage)) *segmentReader {
	return &segmentReader{
		f: f, last: last, damaged: damaged, ahead: readBuffer{f: f}, dec: compression.NewSyncDecodeBuffer(),
	}
}

// next reads the next complete record into r.record. It returns false at the end of the
// segment and after a failure to read, which sets r.err.
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
// after a failure to read.
//
// page appends zeros to a segment that ends within a page, like Prometheus: a record is
// complete if only zeros are missing at its end.
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
		r.off += int64(len(page)) // the length is unknown, so continue with the next page
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
	return len(rec) > 0 // Prometheus ignores empty records: they have no type
}

// damage records that there is no complete record at an offset. It discards the record that
// has begun.
func (r *segmentReader) damage(at int64, err error) {
	if r.inside {
		at = r.start
	}
	r.inside, r.skipping = false, true
	if r.found == nil {
		r.found = &Damage{File: r.f.Name, Offset: at, Err: err, Fatal: strings.Contains(r.f.Name, "checkpoint.")}
	}
}

// oldLog skips a segment in the old format and reports it as damage. It reports the last
// segment too: the segment has no torn end.
func (r *segmentReader) oldLog() {
	r.damage(0, ErrOldLog)
	r.found.Fatal = r.found.Fatal || len(path.Base(r.f.Name)) != len(segmentName(0))
	r.off, r.start = r.f.Size, r.f.Size
	r.report()
}

// report reports the damage found, if any. It is called when a complete record or another
// segment follows the damage.
func (r *segmentReader) report() {
	if r.found != nil {
		r.found.Bytes = r.start - r.found.Offset
		r.damaged(*r.found)
		r.found = nil
	}
}

// end reads the segment and returns its size without the torn record at its end, in bytes.
// It returns the full size if complete records follow damage.
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
