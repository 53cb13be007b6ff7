package remoteread

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
)

// sortBytes is how much of a stream that is not in order is sorted at a time.
const sortBytes = 16 << 20

// maxRuns bounds the runs of one window: each takes a buffer when they are merged.
const maxRuns = 2048

// localError is of this machine, not of the server.
type localError struct{ err error }

func (e *localError) Error() string { return e.err.Error() }
func (e *localError) Unwrap() error { return e.err }

// spool keeps one answer in a file, as runs that are each in the order of keys. A
// run is a sequence of records: a key and a body, each behind its length. Records
// of one key may follow each other.
type spool struct {
	file *os.File
	w    *bufio.Writer
	at   int64
	runs []run

	last     []byte // key of the last record
	unsorted bool   // what comes now is held back and sorted
	held     []record
	bytes    int
}

type run struct{ from, to int64 }

type record struct{ key, body []byte }

func newSpool(dir string) (*spool, error) {
	f, err := os.CreateTemp(dir, "window-")
	if err != nil {
		return nil, &localError{fmt.Errorf("keep a window: %w", err)}
	}
	return &spool{file: f, w: bufio.NewWriterSize(f, 256<<10)}, nil
}

// remove is safe on a nil spool.
func (s *spool) remove() {
	if s != nil {
		_ = s.file.Close()
		_ = os.Remove(s.file.Name()) // its directory goes anyway
	}
}

// begin begins a sequence that has an order of its own.
func (s *spool) begin() error {
	if err := s.sorted(); err != nil {
		return err
	}
	s.unsorted = false
	return s.open()
}

func (s *spool) open() error {
	if n := len(s.runs); n > 0 && s.runs[n-1].from == s.at {
		s.last = s.last[:0]
		return nil
	}
	if len(s.runs) == maxRuns {
		return &ServerError{What: "the server's series are in no order, and there are too many of them", Tip: "take less at once: a shorter range, or --match"}
	}
	s.runs = append(s.runs, run{s.at, s.at})
	s.last = s.last[:0]
	return nil
}

// add takes a record and keeps nothing of it.
func (s *spool) add(key, body []byte) error {
	if !s.unsorted && bytes.Compare(key, s.last) >= 0 {
		s.last = append(s.last[:0], key...)
		return s.write(key, body)
	}
	// Not as it was sent, or as it is without its external labels.
	s.unsorted = true
	both := append(append(make([]byte, 0, len(key)+len(body)), key...), body...)
	s.held = append(s.held, record{both[:len(key):len(key)], both[len(key):]})
	if s.bytes += len(both) + 64; s.bytes < sortBytes {
		return nil
	}
	return s.sorted()
}

// sorted writes what was held back as a run.
func (s *spool) sorted() error {
	if len(s.held) == 0 {
		return nil
	}
	slices.SortStableFunc(s.held, func(a, b record) int { return bytes.Compare(a.key, b.key) })
	if err := s.open(); err != nil {
		return err
	}
	for _, r := range s.held {
		if err := s.write(r.key, r.body); err != nil {
			return err
		}
	}
	clear(s.held)
	s.held, s.bytes = s.held[:0], 0
	return nil
}

func (s *spool) write(key, body []byte) error {
	var head [2 * binary.MaxVarintLen64]byte
	b := binary.AppendUvarint(binary.AppendUvarint(head[:0], uint64(len(key))), uint64(len(body)))
	for _, p := range [][]byte{b, key, body} {
		if _, err := s.w.Write(p); err != nil {
			return &localError{fmt.Errorf("keep a window: %w", err)}
		}
		s.at += int64(len(p))
	}
	s.runs[len(s.runs)-1].to = s.at
	return nil
}

func (s *spool) finish() error {
	if err := s.sorted(); err != nil {
		return err
	}
	s.last, s.held = nil, nil
	if err := s.w.Flush(); err != nil {
		return &localError{fmt.Errorf("keep a window: %w", err)}
	}
	s.w = nil
	return nil
}

// merger gives the records of several spools in the order of their keys; of one
// key, in the order of the runs.
type merger struct{ heads []*runReader }

type runReader struct {
	nth int
	r   *bufio.Reader
	record
	buf []byte
}

func newMerger(spools []*spool) (*merger, error) {
	m := &merger{}
	size := 64 << 10
	n := 0
	for _, s := range spools {
		n += len(s.runs)
	}
	if n > 64 {
		size = 16 << 10
	}
	for _, s := range spools {
		for _, r := range s.runs {
			if r.from == r.to {
				continue
			}
			h := &runReader{nth: len(m.heads), r: bufio.NewReaderSize(io.NewSectionReader(s.file, r.from, r.to-r.from), size)}
			if err := h.next(); err != nil {
				return nil, err
			}
			m.heads = append(m.heads, h)
		}
	}
	slices.SortFunc(m.heads, compareHeads)
	return m, nil
}

func compareHeads(a, b *runReader) int {
	return cmp.Or(bytes.Compare(a.key, b.key), cmp.Compare(a.nth, b.nth))
}

// peek is the next record, or nil at the end. It is valid until pop.
func (m *merger) peek() *record {
	if len(m.heads) == 0 {
		return nil
	}
	return &m.heads[0].record
}

func (m *merger) pop() error {
	h := m.heads[0]
	err := h.next()
	if errors.Is(err, io.EOF) {
		m.heads = m.heads[1:]
		return nil
	}
	if err != nil {
		return err
	}
	// There are few runs, and most often the same goes on.
	to := 1
	for to < len(m.heads) && compareHeads(h, m.heads[to]) > 0 {
		m.heads[to-1] = m.heads[to]
		to++
	}
	m.heads[to-1] = h
	return nil
}

// next reads the next record; io.EOF only between two.
func (r *runReader) next() error {
	if _, err := r.r.Peek(1); err != nil {
		return err
	}
	key, err := binary.ReadUvarint(r.r)
	if err != nil {
		return noEOF(err)
	}
	body, err := binary.ReadUvarint(r.r)
	if err != nil {
		return noEOF(err)
	}
	n := int(key + body)
	r.buf = slices.Grow(r.buf[:0], n)[:n]
	if _, err := io.ReadFull(r.r, r.buf); err != nil {
		return noEOF(err)
	}
	r.key, r.body = r.buf[:key:key], r.buf[key:]
	return nil
}
