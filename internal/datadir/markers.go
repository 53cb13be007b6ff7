package datadir

import (
	"encoding/binary"
	"hash/crc32"
	"log/slog"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/record"
)

// The out-of-order log has markers that say: what this series had so far is in
// that head chunk. When the compaction of out-of-order samples begins, it makes a
// chunk of each series without a marker, and the next sample of the series brings
// a marker of chunk 0. A server that starts on the log forgets at that marker what
// came before, as if a block had it. While the compaction is under way none has,
// and the chunk may still be in the server's memory alone: a copy of the files
// would lose those samples. Without such markers a server starts with all of them,
// with some twice at most, which it answers once.

// blankMarkers finds the records with markers of chunk 0 in a segment, so that f
// reads as if they held nothing.
func blankMarkers(f *File) error {
	dec := record.NewDecoder(labels.NewSymbolTable(), slog.New(slog.DiscardHandler))
	var markers []record.RefMmapMarker
	var blanks []blank // f's own must not be seen by the reader
	// Damage is the server's to repair.
	r := newSegmentReader(f, true, func(Damage) {})
	for r.next() {
		rec := r.record
		if dec.Type(rec) != record.MmapMarkers {
			continue
		}
		var err error
		if markers, err = dec.MmapMarkers(rec, markers[:0]); err != nil {
			continue // the server's to judge
		}
		for _, m := range markers {
			if m.MmapRef != 0 {
				continue
			}
			if blanks, err = appendBlanks(blanks, f, r.start, r.whole); err != nil {
				return err
			}
			break
		}
	}
	f.blanks = blanks
	return r.err
}

// blank is the place of a fragment that reads as one of a record without
// meaning: exemplars, which no server looks for in the out-of-order log. It has
// the size of the old one, so that nothing else moves.
type blank struct {
	off  int64 // bytes, of the fragment's head
	size int   // of its data
	kind byte
}

// appendBlanks appends the fragments of the record between two places.
func appendBlanks(blanks []blank, f *File, from, to int64) ([]blank, error) {
	var head [fragmentHead]byte
	for at := from; at < to; {
		if n, err := f.f.ReadAt(head[:1], at); n < 1 {
			return nil, err
		}
		if head[0] == 0 { // the rest of the page is empty
			at += pageSize - at%pageSize
			continue
		}
		if n, err := f.f.ReadAt(head[:], at); n < len(head) {
			return nil, err
		}
		b := blank{off: at, size: int(binary.BigEndian.Uint16(head[1:])), kind: head[0] & fragmentType}
		blanks = append(blanks, b)
		at += fragmentHead + int64(b.size)
	}
	return blanks, nil
}

// bytes are the fragment's.
func (b blank) bytes() []byte {
	p := make([]byte, fragmentHead+b.size)
	p[0] = b.kind
	binary.BigEndian.PutUint16(p[1:], uint16(b.size))
	if data := p[fragmentHead:]; len(data) > 0 {
		if b.kind == fullFragment || b.kind == firstFragment {
			data[0] = byte(record.Exemplars)
		}
		binary.BigEndian.PutUint32(p[3:], crc32.Checksum(data, castagnoli))
	}
	return p
}

// cover puts the blanks over what p has of the file from off on.
func cover(blanks []blank, p []byte, off int64) {
	for _, b := range blanks {
		end := b.off + fragmentHead + int64(b.size)
		if end <= off || b.off >= off+int64(len(p)) {
			continue
		}
		data := b.bytes()
		if b.off < off {
			copy(p, data[off-b.off:])
		} else {
			copy(p[b.off-off:], data)
		}
	}
}
