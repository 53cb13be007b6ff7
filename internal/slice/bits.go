package slice

import (
	"iter"
	"math/bits"
	"slices"
)

// bitset is a set of numbers below its size.
type bitset []uint64

// newBits returns an empty set for numbers up to size.
func newBits(size uint64) bitset { return make(bitset, size/64+1) }

func (b bitset) has(n uint64) bool { return n/64 < uint64(len(b)) && b[n/64]&(1<<(n%64)) != 0 }

// set adds n. It returns false if n is out of range.
func (b bitset) set(n uint64) bool {
	if n/64 >= uint64(len(b)) {
		return false
	}
	b[n/64] |= 1 << (n % 64)
	return true
}

func (b bitset) clear(n uint64) { b[n/64] &^= 1 << (n % 64) }

func (b bitset) and(o bitset) {
	for i := range b {
		b[i] &= o[i]
	}
}

func (b bitset) andNot(o bitset) {
	for i := range b {
		b[i] &^= o[i]
	}
}

func (b bitset) or(o bitset) {
	for i := range b {
		b[i] |= o[i]
	}
}

func (b bitset) count() (n int) {
	for _, word := range b {
		n += bits.OnesCount64(word)
	}
	return n
}

// all yields the numbers of the set in order. The loop body may clear them.
func (b bitset) all() iter.Seq[uint64] {
	return func(yield func(uint64) bool) {
		for i, word := range b {
			for ; word != 0; word &= word - 1 {
				if !yield(uint64(i*64 + bits.TrailingZeros64(word))) {
					return
				}
			}
		}
	}
}

// refSet is a set of series refs of the head. It has pages of bits because refs count up
// from one but may have large gaps.
type refSet map[uint64]*[1024]uint64

// refPage is the number of refs in a page of a refSet.
const refPage = 1024 * 64

func (s refSet) has(ref uint64) bool {
	p := s[ref/refPage]
	return p != nil && p[ref%refPage/64]&(1<<(ref%64)) != 0
}

// set adds ref. It returns true if ref was not in the set.
func (s refSet) set(ref uint64) bool {
	p := s[ref/refPage]
	if p == nil {
		p = new([1024]uint64)
		s[ref/refPage] = p
	}
	word, bit := &p[ref%refPage/64], uint64(1)<<(ref%64)
	added := *word&bit == 0
	*word |= bit
	return added
}

func (s refSet) clear(ref uint64) {
	if p := s[ref/refPage]; p != nil {
		p[ref%refPage/64] &^= 1 << (ref % 64)
	}
}

// refHashes maps refs to hashes of the labels of their series, in pages.
type refHashes map[uint64]*[hashPage]uint64

const hashPage = 1 << 12

func (h refHashes) set(ref, hash uint64) {
	p := h[ref/hashPage]
	if p == nil {
		p = new([hashPage]uint64)
		h[ref/hashPage] = p
	}
	p[ref%hashPage] = max(hash, 1) // 0 means no hash
}

// distinct returns the number of different hashes of the refs in a set. To bound memory it
// holds a sixteenth of the hashes at a time.
func (h refHashes) distinct(refs refSet) (n uint64) {
	const parts = 16
	var some []uint64
	for part := range uint64(parts) {
		some = some[:0]
		for key, page := range h {
			for i, hash := range page {
				if hash != 0 && hash%parts == part && refs.has(key*hashPage+uint64(i)) {
					some = append(some, hash)
				}
			}
		}
		slices.Sort(some)
		n += uint64(len(slices.Compact(some)))
	}
	return n
}
