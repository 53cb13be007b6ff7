package datadir

import (
	"encoding/binary"
	"hash/crc32"
	"log/slog"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/record"
)

// A marker in the out-of-order log means: the earlier samples of this series are in the
// named head chunk. A server that replays the log drops those samples at the marker.
//
// The compaction of out-of-order samples writes a chunk for each series without a marker,
// and the next sample of the series logs a marker of chunk 0. During the compaction no
// block has these samples yet, and the chunk may exist only in the server's memory. A
// server that starts on a copy of the files would drop them at the marker. Therefore a
// copy has no markers of chunk 0. Replay then yields all samples, some of them twice,
// which queries return once.

// blankMarkers replaces the records of the segment f that have markers of chunk 0 by
// records without meaning, see [blank].
func blankMarkers(f *File) error {
	dec := record.NewDecoder(labels.NewSymbolTable(), slog.New(slog.DiscardHandler))
	var markers []record.RefMmapMarker
	var blanks []blank // assigned to f at the end: the reader must read f unchanged
	// openRaw reports damage, and the server repairs it.
	r := newSegmentReader(f, true, func(Damage) {})
	for r.next() {
		rec := r.record
		if dec.Type(rec) != record.MmapMarkers {
			continue
		}
		var err error
		if markers, err = dec.MmapMarkers(rec, markers[:0]); err != nil {
			continue // copied unchanged: the server handles it
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

// blank replaces a fragment on disk by one of a record of exemplars, which servers ignore
// in the out-of-order log. It has the size of the original, so all offsets stay valid.
type blank struct {
	off  int64 // of the fragment's header, in bytes
	size int   // of the fragment's data, in bytes
	kind byte  // fragment type
}

// appendBlanks appends a blank for each fragment of f between the offsets from and to.
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

// bytes returns the header and data of the replacing fragment.
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

// applyBlanks overwrites the blanked fragments in p, which holds the bytes of the file
// from off.
func applyBlanks(blanks []blank, p []byte, off int64) {
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
