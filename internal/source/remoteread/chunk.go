package remoteread

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/prometheus/prometheus/prompb"

	"github.com/promdump/promdump/internal/wire"
)

// maxSeries bounds what a series has in one window, in bytes: all its chunks are
// held at once, since they may come from several answers.
const maxSeries = 512 << 20

// A body holds chunks: the times of its first and last sample as varints, the
// encoding, and the bytes behind their length.

// appendBody appends the chunks that have a time of the range; a server that does
// not cut to the range sends others along.
func appendBody(b []byte, cs []prompb.Chunk, r span) ([]byte, error) {
	for _, c := range cs {
		if c.MinTimeMs > c.MaxTimeMs {
			return b, &FrameError{fmt.Sprintf("a chunk ends at %d, before its start %d", c.MaxTimeMs, c.MinTimeMs)}
		}
		if c.Type <= 0 || c.Type > 255 {
			return b, &FrameError{fmt.Sprintf("a chunk of encoding %d", c.Type)}
		}
		if c.MaxTimeMs < r.min || c.MinTimeMs > r.max {
			continue
		}
		b = appendChunk(b, wire.Chunk{MinTime: c.MinTimeMs, MaxTime: c.MaxTimeMs, Encoding: uint8(c.Type), Data: c.Data})
	}
	return b, nil
}

func appendChunk(b []byte, c wire.Chunk) []byte {
	b = append(binary.AppendVarint(binary.AppendVarint(b, c.MinTime), c.MaxTime), c.Encoding)
	return append(binary.AppendUvarint(b, uint64(len(c.Data))), c.Data...)
}

// chunksOf appends the chunks of a body that appendBody made. Their bytes are the
// body's.
func chunksOf(cs []wire.Chunk, b []byte) ([]wire.Chunk, error) {
	for len(b) > 0 {
		var c wire.Chunk
		var n1, n2, n3 int
		c.MinTime, n1 = binary.Varint(b)
		if n1 > 0 {
			c.MaxTime, n2 = binary.Varint(b[n1:])
		}
		if n2 <= 0 || len(b) <= n1+n2 {
			return cs, errSpool
		}
		c.Encoding = b[n1+n2]
		b = b[n1+n2+1:]
		size, n3 := binary.Uvarint(b)
		if n3 <= 0 || size > uint64(len(b)-n3) {
			return cs, errSpool
		}
		c.Data, b = b[n3:n3+int(size)], b[n3+int(size):]
		cs = append(cs, c)
	}
	return cs, nil
}

var errSpool = &localError{fmt.Errorf("what was kept of a window is damaged")}

// window is a window that is here.
type window struct {
	spools []*spool
}

// remove is safe to call twice.
func (w *window) remove() {
	for _, s := range w.spools {
		s.remove()
	}
	w.spools = nil
}

// tell tells the window's series. What several queries or halves have of a series
// is one series again, and a chunk that several have is told once.
func (w *window) tell(say func(wire.Message) error) (series, chunks uint64, err error) {
	m, err := newMerger(w.spools)
	if err != nil {
		return 0, 0, err
	}
	refs := map[string]uint32{}
	var key, body []byte
	var msg wire.Series
	for r := m.peek(); r != nil; {
		key, body = append(key[:0], r.key...), body[:0]
		for r != nil && bytes.Equal(r.key, key) {
			if body = append(body, r.body...); len(body) > maxSeries {
				return series, chunks, &ServerError{What: fmt.Sprintf("one series has more than %d MiB in a window", maxSeries>>20), Tip: "--match may leave it out"}
			}
			if err := m.pop(); err != nil {
				return series, chunks, err
			}
			r = m.peek()
		}
		if msg.Chunks, err = chunksOf(msg.Chunks[:0], body); err != nil {
			return series, chunks, err
		}
		msg.Chunks = once(msg.Chunks)
		var symbols wire.Symbols
		msg.Labels = msg.Labels[:0]
		parts(key, func(s string) {
			ref, ok := refs[s]
			if !ok {
				ref = uint32(len(refs))
				refs[s] = ref
				symbols.Refs, symbols.Strings = append(symbols.Refs, ref), append(symbols.Strings, s)
			}
			msg.Labels = append(msg.Labels, ref)
		})
		if len(symbols.Refs) > 0 {
			if err := say(&symbols); err != nil {
				return series, chunks, err
			}
		}
		series++
		chunks += uint64(len(msg.Chunks))
		if err := say(&msg); err != nil {
			return series, chunks, err
		}
	}
	return series, chunks, nil
}

// once puts chunks in order and leaves out those that are there already.
func once(cs []wire.Chunk) []wire.Chunk {
	compare := func(a, b wire.Chunk) int {
		return cmp.Or(cmp.Compare(a.MinTime, b.MinTime), cmp.Compare(a.MaxTime, b.MaxTime))
	}
	if !slices.IsSortedFunc(cs, compare) {
		slices.SortStableFunc(cs, compare)
	}
	return slices.CompactFunc(cs, func(a, b wire.Chunk) bool {
		return compare(a, b) == 0 && a.Encoding == b.Encoding && bytes.Equal(a.Data, b.Data)
	})
}
