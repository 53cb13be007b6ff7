package archive

import (
	"crypto/sha256"
	"encoding/hex"
	"sync/atomic"
)

// piece is a part of the tar stream. It is filled once and then read by several
// goroutines at the same time: one hashes, one compresses or writes. The last
// of them puts it back into its pool.
type piece struct {
	buf  []byte // of the tar stream
	kind kind   // how buf is compressed
	out  []byte // buf compressed
	done chan struct{}
	size int // of buf once it is used

	refs atomic.Int32
	home pool
}

// pool holds the pieces that nobody uses. It has room for all, so that putting
// one back never blocks.
type pool chan *piece

func newPool(n, size int) pool {
	p := make(pool, n)
	for range n {
		p <- &piece{size: size, done: make(chan struct{}, 1), home: p}
	}
	return p
}

// take waits for a piece. Its taker holds one reference.
func (p pool) take() *piece { return (<-p).fresh() }

func (p *piece) fresh() *piece {
	if p.buf == nil { // small dumps never use most of them
		p.buf = make([]byte, 0, p.size)
	}
	p.buf = p.buf[:0]
	p.refs.Store(1)
	return p
}

func (p *piece) room() int { return cap(p.buf) - len(p.buf) }

func (p *piece) release() {
	if p.refs.Add(-1) == 0 {
		p.home <- p
	}
}

// sum is an entry's digest, in hexadecimal as sha256sum prints it.
type sum struct{ name, digest string }

// hasher computes the digests of entries, one after the other, beside the
// goroutine that moves the bytes.
type hasher struct {
	jobs chan hashJob
	done chan struct{}
	sums []sum // the hasher's until done
}

type hashJob struct {
	data  []byte
	piece *piece // that holds data
	end   string // the entry that ends here, if it does

	// The digests after the first keep are forgotten, and the entry that has begun;
	// then kept is closed.
	keep int
	kept chan struct{}
}

// newHasher makes a hasher of a dump that has the entries of sums already.
func newHasher(sums []sum) *hasher {
	jobs := make(chan hashJob, 64)
	h := &hasher{jobs: jobs, done: make(chan struct{}), sums: sums}
	go func() {
		defer close(h.done)
		digest := sha256.New()
		for j := range jobs { // not h.jobs, which finish may have cleared before this runs
			if j.piece != nil {
				digest.Write(j.data)
				j.piece.release()
			}
			if j.kept != nil {
				h.sums = h.sums[:j.keep]
				digest.Reset()
				close(j.kept)
			}
			if j.end != "" {
				h.sums = append(h.sums, sum{j.end, hex.EncodeToString(digest.Sum(nil))})
				digest.Reset()
			}
		}
	}()
	return h
}

// add hashes data, which lies in p.
func (h *hasher) add(p *piece, data []byte) {
	p.refs.Add(1)
	h.jobs <- hashJob{data: data, piece: p}
}

// end says that all of an entry was added.
func (h *hasher) end(name string) { h.jobs <- hashJob{end: name} }

// rollback forgets all but the first n digests, and the entry that has begun. When it
// returns, no piece is being read.
func (h *hasher) rollback(n int) {
	kept := make(chan struct{})
	h.jobs <- hashJob{keep: n, kept: kept}
	<-kept
}

// finish waits for the digests of all entries that ended, in their order. It may
// be called again; nothing may be added after it.
func (h *hasher) finish() []sum {
	if h.jobs != nil {
		close(h.jobs)
		h.jobs = nil
	}
	<-h.done
	return h.sums
}

// appendSums appends the text of SHA256SUMS, as sha256sum -c reads it.
func appendSums(dst []byte, sums []sum) []byte {
	for _, s := range sums {
		dst = append(dst, s.digest...)
		dst = append(dst, "  "...)
		dst = append(dst, s.name...)
		dst = append(dst, '\n')
	}
	return dst
}
