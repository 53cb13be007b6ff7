package slice

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
)

// selected returns the series that the matchers of s select, by id. If the postings that
// they need are damaged, it reads all series, and calls lost for those that it cannot read.
func (x *indexFile) selected(s *Selection, lost func(id uint64, err error)) (bitset, error) {
	out := newBits(x.ids())
	for _, list := range s.lists {
		one, err := x.matching(list)
		if err != nil {
			one, err = x.scanned(list, lost)
		}
		if err != nil {
			return nil, err
		}
		out.or(one)
	}
	return out, nil
}

// matching returns the series that match all matchers of the list, or all series for an
// empty list. A matcher that matches the empty string also matches series without its
// label, so matching subtracts the series that it does not match.
func (x *indexFile) matching(list []*labels.Matcher) (bitset, error) {
	var out bitset
	for _, m := range list {
		if m.Matches("") {
			continue
		}
		one := newBits(x.ids())
		if err := x.union(m.Name, m.Matches, one); err != nil {
			return nil, err
		}
		if out == nil {
			out = one
		} else {
			out.and(one)
		}
	}
	if out == nil {
		// The postings list of the empty label name has all series.
		out = newBits(x.ids())
		if err := x.union("", func(string) bool { return true }, out); err != nil {
			return nil, err
		}
	}
	for _, m := range list {
		if !m.Matches("") {
			continue
		}
		not := newBits(x.ids())
		if err := x.union(m.Name, func(v string) bool { return !m.Matches(v) }, not); err != nil {
			return nil, err
		}
		out.andNot(not)
	}
	return out, nil
}

// scanned returns the series that every matcher matches, without the postings.
func (x *indexFile) scanned(list []*labels.Matcher, lost func(id uint64, err error)) (bitset, error) {
	names, values := make([][]uint32, len(list)), make([]bitset, len(list))
	for i := range list {
		values[i] = newBits(x.toc.Series / 2) // a symbol takes two bytes of the index at least
	}
	err := x.symbols(func(ref uint32, symbol []byte) bool {
		for i, m := range list {
			if string(symbol) == m.Name {
				names[i] = append(names[i], ref)
			}
			if m.Matches(string(symbol)) {
				values[i].set(uint64(ref))
			}
		}
		return true
	})
	if err != nil {
		return nil, err
	}
	out := newBits(x.ids())
	err = x.all(func(e *entry) error {
		for i, m := range list {
			matches := m.Matches("")
			for j := 0; j+1 < len(e.labels); j += 2 {
				if slices.Contains(names[i], e.labels[j]) {
					matches = values[i].has(uint64(e.labels[j+1]))
				}
			}
			if !matches {
				return nil
			}
		}
		out.set(e.id)
		return nil
	}, lost)
	return out, err
}

// union adds the series whose label name has a value for which match returns true.
func (x *indexFile) union(name string, match func(value string) bool, into bitset) error {
	lists := window{f: x.f}
	return x.table(x.toc.PostingsTable, "postings offset table", func(s *summed) error {
		if keys, err := s.uvarint(); err != nil || keys != 2 {
			return errors.Join(err, fmt.Errorf("an entry has %d keys, not 2", keys))
		}
		b, err := s.bytes()
		if err != nil {
			return err
		}
		same := string(b) == name
		if b, err = s.bytes(); err != nil {
			return err
		}
		wanted := same && match(string(b))
		off, err := s.uvarint()
		if err != nil || !wanted {
			return err
		}
		return x.postings(&lists, int64(off), into)
	})
}

// postings adds the series of the postings list at off, and checks its checksum.
func (x *indexFile) postings(w *window, off int64, into bitset) error {
	head, err := w.at(off, 8)
	if err != nil || len(head) < 8 {
		return errors.Join(err, fmt.Errorf("no postings list at byte %d", off))
	}
	left := int64(binary.BigEndian.Uint32(head[4:]))
	sum := crc32.Checksum(head[4:8], castagnoli)
	for off += 8; left > 0; {
		b, err := w.at(off, int(min(left, 16<<10))*4)
		if err != nil {
			return err
		}
		b = b[:len(b)/4*4]
		if len(b) == 0 {
			return fmt.Errorf("postings list ends at byte %d", off)
		}
		sum = crc32.Update(sum, castagnoli, b)
		off, left = off+int64(len(b)), left-int64(len(b)/4)
		for ; len(b) > 0; b = b[4:] {
			if !into.set(uint64(binary.BigEndian.Uint32(b))) {
				return fmt.Errorf("postings list refers to series %d outside the index", binary.BigEndian.Uint32(b))
			}
		}
	}
	want, err := w.at(off, crc32.Size)
	if err != nil || len(want) < crc32.Size || binary.BigEndian.Uint32(want) != sum {
		return errors.Join(err, fmt.Errorf("postings list that ends at byte %d: bad checksum", off))
	}
	return nil
}
