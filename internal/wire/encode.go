package wire

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
)

// Binary payloads, all numbers varints, strings and bytes behind their length:
//
//	File     name, size, offset
//	Data     bytes
//	Symbols  ( ref, string )*
//	Series   flags (1: more), labels n, ref*n, deleted n, ( min, max )*n,
//	         chunks n, ( min, max, encoding, bytes )*n
//	HeadChunks  ( ref, flags (1: out of order), min, max, encoding, bytes )*
//	Records  log, ( bytes )*
//
// Times are signed.

// encode puts a binary payload into w.buf, or gives what is to be sent as JSON.
func (w *Writer) encode(m Message) (k kind, text any, err error) {
	b := w.buf[:0]
	switch m := m.(type) {
	case *Plan:
		return kindPlan, m, nil
	case *BlockStart:
		return kindBlockStart, m, nil
	case *BlockEnd:
		return kindBlockEnd, m, nil
	case *HeadStart:
		return kindHeadStart, m, nil
	case *HeadEnd:
		return kindHeadEnd, m, nil
	case *Forget:
		return kindForget, m, nil
	case *End:
		return kindEnd, m, nil
	case *File:
		k, b = kindFile, binary.AppendUvarint(binary.AppendUvarint(appendString(b, m.Name), uint64(m.Size)), uint64(m.Offset))
	case *Symbols:
		k = kindSymbols
		for i, ref := range m.Refs {
			b = appendString(binary.AppendUvarint(b, uint64(ref)), m.Strings[i])
		}
	case *Series:
		k, b = kindSeries, appendSeries(b, m)
	case *HeadChunks:
		k = kindHeadChunks
		for _, c := range m.Chunks {
			flags := byte(0)
			if c.OutOfOrder {
				flags = 1
			}
			b = appendChunk(append(binary.AppendUvarint(b, c.Ref), flags), c.Chunk)
		}
	case *Records:
		k, b = kindRecords, append(b, byte(m.Log))
		for _, r := range m.Records {
			b = append(binary.AppendUvarint(b, uint64(len(r))), r...)
		}
	default:
		return 0, nil, fmt.Errorf("no such message: %T", m)
	}
	w.buf = b
	return k, nil, nil
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendSeries(b []byte, s *Series) []byte {
	flags := byte(0)
	if s.More {
		flags = 1
	}
	b = binary.AppendUvarint(append(b, flags), uint64(len(s.Labels)))
	for _, ref := range s.Labels {
		b = binary.AppendUvarint(b, uint64(ref))
	}
	b = binary.AppendUvarint(b, uint64(len(s.Deleted)))
	for _, d := range s.Deleted {
		b = binary.AppendVarint(binary.AppendVarint(b, d.MinTime), d.MaxTime)
	}
	b = binary.AppendUvarint(b, uint64(len(s.Chunks)))
	for _, c := range s.Chunks {
		b = appendChunk(b, c)
	}
	return b
}

func appendChunk(b []byte, c Chunk) []byte {
	b = append(binary.AppendVarint(binary.AppendVarint(b, c.MinTime), c.MaxTime), c.Encoding)
	return append(binary.AppendUvarint(b, uint64(len(c.Data))), c.Data...)
}

func decode(k kind, b []byte) (Message, error) {
	text := func(m Message) (Message, error) {
		if err := json.Unmarshal(b, m); err != nil {
			return nil, &FrameError{fmt.Sprintf("%T: %v", m, err)}
		}
		return m, nil
	}
	d := payload{b: b}
	var m Message
	switch k {
	case kindPlan:
		return text(&Plan{})
	case kindBlockStart:
		return text(&BlockStart{})
	case kindBlockEnd:
		return text(&BlockEnd{})
	case kindHeadStart:
		return text(&HeadStart{})
	case kindHeadEnd:
		return text(&HeadEnd{})
	case kindForget:
		return text(&Forget{})
	case kindEnd:
		return text(&End{})
	case kindFailure:
		f := &Failure{}
		if err := json.Unmarshal(b, f); err != nil {
			return nil, &FrameError{fmt.Sprintf("%T: %v", f, err)}
		}
		return nil, f
	case kindFile:
		f := &File{Name: string(d.bytes()), Size: int64(d.uvarint()), Offset: int64(d.uvarint())}
		d.bad = d.bad || f.Offset < 0 || f.Size < f.Offset
		m = f
	case kindSymbols:
		s := &Symbols{}
		for len(d.b) > 0 && !d.bad {
			s.Refs = append(s.Refs, d.uint32())
			s.Strings = append(s.Strings, string(d.bytes()))
		}
		m = s
	case kindSeries:
		m = d.series()
	case kindHeadChunks:
		c := &HeadChunks{}
		for len(d.b) > 0 && !d.bad {
			ref, flags := d.uvarint(), d.byte()
			d.bad = d.bad || flags > 1
			c.Chunks = append(c.Chunks, HeadChunk{Ref: ref, OutOfOrder: flags == 1, Chunk: d.chunk()})
		}
		m = c
	case kindRecords:
		r := &Records{Log: Log(d.byte())}
		d.bad = d.bad || r.Log != WAL && r.Log != WBL
		for len(d.b) > 0 && !d.bad {
			r.Records = append(r.Records, d.bytes())
		}
		m = r
	default:
		return nil, &FrameError{fmt.Sprintf("a frame of the unknown kind %d", k)}
	}
	if d.bad || len(d.b) > 0 {
		return nil, &FrameError{fmt.Sprintf("%T does not fit its frame", m)}
	}
	return m, nil
}

// payload is read from its front. After the first thing that does not fit, bad
// is set and everything reads as nothing.
type payload struct {
	b   []byte
	bad bool
}

func (d *payload) series() *Series {
	flags := d.byte()
	d.bad = d.bad || flags > 1
	s := &Series{More: flags == 1}
	for n := d.count(1); n > 0 && !d.bad; n-- {
		s.Labels = append(s.Labels, d.uint32())
	}
	for n := d.count(2); n > 0 && !d.bad; n-- {
		s.Deleted = append(s.Deleted, Interval{d.varint(), d.varint()})
	}
	n := d.count(4)
	s.Chunks = make([]Chunk, 0, min(n, 64))
	for ; n > 0 && !d.bad; n-- {
		s.Chunks = append(s.Chunks, d.chunk())
	}
	return s
}

func (d *payload) chunk() Chunk {
	return Chunk{MinTime: d.varint(), MaxTime: d.varint(), Encoding: d.byte(), Data: d.bytes()}
}

// count reads how many things follow that take at least size bytes each.
func (d *payload) count(size uint64) int {
	n := d.uvarint()
	if n > uint64(len(d.b))/size {
		d.bad = true
		return 0
	}
	return int(n)
}

func (d *payload) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 || d.bad {
		d.bad = true
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *payload) uint32() uint32 {
	v := d.uvarint()
	d.bad = d.bad || v > 1<<32-1
	return uint32(v)
}

func (d *payload) varint() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 || d.bad {
		d.bad = true
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *payload) byte() byte {
	if len(d.b) == 0 || d.bad {
		d.bad = true
		return 0
	}
	v := d.b[0]
	d.b = d.b[1:]
	return v
}

// bytes are a view of the payload.
func (d *payload) bytes() []byte {
	n := d.count(1)
	if d.bad {
		return nil
	}
	v := d.b[:n:n]
	d.b = d.b[n:]
	return v
}
