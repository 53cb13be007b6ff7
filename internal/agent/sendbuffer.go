package agent

import (
	"errors"
	"io"
	"sync"
)

// sendBuffer keeps the bytes of a stream that the client has not acknowledged, so that
// another connection can go on with the next byte. Its memory grows with what is
// unacknowledged and not with the limit.
//
// Write may be called by one goroutine; the other methods by any.
type sendBuffer struct {
	limit int64 // bytes that may be unacknowledged

	mu      sync.Mutex
	changed sync.Cond
	chunks  [][]byte // the bytes from base to end; all but the last are full
	spare   [][]byte // chunks to use again
	base    int64    // offset of the first byte in chunks
	acked   int64    // the client has all bytes before this offset
	end     int64    // offset of the next byte to write
	sender  int      // number of the sender that may go on
	sent    int64    // that sender has written all bytes before this offset
	sending int      // senders that have not returned
	err     error    // of Close
}

// sendChunk is the size of a chunk, in bytes. It is also the most that one write of a
// sender takes.
const sendChunk = 128 << 10

var errOtherSender = errors.New("another connection sends now")

func newSendBuffer(limit int64) *sendBuffer {
	b := &sendBuffer{limit: max(limit, sendChunk)}
	b.changed.L = &b.mu
	return b
}

// Write appends to the stream. It waits while too much is unacknowledged.
func (b *sendBuffer) Write(p []byte) (n int, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for n < len(p) {
		for b.err == nil && b.end-b.acked >= b.limit {
			b.changed.Wait()
		}
		if b.err != nil {
			return n, b.err
		}
		n += b.add(p[n:min(int64(len(p)), int64(n)+b.limit-(b.end-b.acked))])
		b.changed.Broadcast()
	}
	return n, nil
}

// add appends as much as fits into one chunk. The lock is held.
func (b *sendBuffer) add(p []byte) int {
	last := len(b.chunks) - 1
	if last < 0 || len(b.chunks[last]) == cap(b.chunks[last]) {
		b.chunks = append(b.chunks, b.chunk())
		last++
	}
	c := b.chunks[last]
	n := copy(c[len(c):cap(c)], p)
	b.chunks[last] = c[:len(c)+n]
	b.end += int64(n)
	return n
}

func (b *sendBuffer) chunk() []byte {
	if i := len(b.spare) - 1; i >= 0 {
		c := b.spare[i]
		b.spare = b.spare[:i]
		return c
	}
	return make([]byte, 0, sendChunk)
}

// Ack records that the client has all bytes before n.
func (b *sendBuffer) Ack(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if n <= b.acked || n > b.end {
		return
	}
	b.acked = n
	for len(b.chunks) > 0 && len(b.chunks[0]) == sendChunk && b.base+sendChunk <= n {
		// A sender may still be in the write of this chunk: this one, or one before it
		// into a dead connection.
		if b.sending <= 1 && b.base+sendChunk <= b.sent {
			b.spare = append(b.spare, b.chunks[0][:0])
		}
		b.chunks[0] = nil
		b.chunks = b.chunks[1:]
		b.base += sendChunk
	}
	b.changed.Broadcast()
}

func (b *sendBuffer) setLimit(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.limit = max(n, sendChunk)
}

// Free lets go of memory that is not needed while nothing is sent.
func (b *sendBuffer) Free() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.spare = nil
}

// From makes the caller the sender of the bytes from an offset on: the sender before it
// stops. It returns the number to give to Send and the stream's end so far. ok is false
// if those bytes are not there.
func (b *sendBuffer) From(offset int64) (sender int, end int64, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if offset < b.acked || offset > b.end {
		return 0, b.end, false
	}
	b.sender++
	b.sent = offset
	b.changed.Broadcast()
	return b.sender, b.end, true
}

// Send writes the stream from an offset on to w, until w fails, the buffer is closed or
// another sender takes over.
func (b *sendBuffer) Send(w io.Writer, sender int, offset int64) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sending++
	defer func() { b.sending-- }()
	for {
		for b.err == nil && b.sender == sender && offset == b.end {
			b.changed.Wait()
		}
		switch {
		case b.sender != sender:
			return errOtherSender
		case b.err != nil:
			return b.err
		case offset < b.base:
			return errors.New("the client acknowledges what was not sent")
		}
		i := (offset - b.base) / sendChunk
		p := b.chunks[i][offset-b.base-i*sendChunk:]
		b.mu.Unlock()
		n, err := w.Write(p)
		b.mu.Lock()
		offset += int64(n)
		if b.sender == sender {
			b.sent = offset
		}
		if err != nil {
			return err
		}
	}
}

// Close ends Write and Send with an error.
func (b *sendBuffer) Close(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err == nil {
		b.err = err
	}
	b.changed.Broadcast()
}
