package pod

import (
	"context"
	"io"

	"github.com/promdump/promdump/internal/wire"
)

// handover passes messages from the goroutine that receives to the one that
// consumes. A message belongs to the receiver again when say returns.
type handover struct {
	ctx   context.Context
	items chan item
}

type item struct {
	msg  wire.Message
	done chan struct{} // closed when msg was consumed
}

// say passes a message on and waits until it is consumed.
func (h *handover) say(m wire.Message) error {
	it, err := h.pass(m)
	if err == nil {
		<-it.done // the consumer is done with it soon, also when all is cancelled
	}
	return err
}

func (h *handover) pass(m wire.Message) (item, error) {
	it := item{msg: m, done: make(chan struct{})}
	select {
	case h.items <- it:
		return it, nil
	case <-h.ctx.Done():
		return it, h.ctx.Err()
	}
}

// consume yields everything, until the receiver closes items or yield has
// enough, which it reports.
func (h *handover) consume(yield func(wire.Message, error) bool) (left bool) {
	for it := range h.items {
		ok := yield(it.msg, nil)
		close(it.done)
		if !ok {
			return true
		}
	}
	return false
}

// receivedFile is a file that is received over as many streams as it takes. The consumer
// reads the bytes of the stream itself: between the two are no copy and no buffer.
type receivedFile struct {
	ctx  context.Context
	name string // relative to the data dir
	size int64  // bytes
	got  *int64 // grows with all that came
	item item

	have int64      // bytes that came. The consumer's while it has a part, else the receiver's.
	part io.Reader  // the bytes of the current stream; nil: none
	ends chan error // how a part ended

	parts chan io.Reader
	cut   chan struct{} // closed: no more parts come
}

func newReceivedFile(ctx context.Context, f *wire.File, got *int64) *receivedFile {
	return &receivedFile{
		ctx: ctx, name: f.Name, size: f.Size, got: got,
		ends: make(chan error, 1), parts: make(chan io.Reader), cut: make(chan struct{}),
	}
}

// receive lets the consumer read a part, and returns how that ended: nil is the end of
// the file.
func (f *receivedFile) receive(part io.Reader) error {
	if f.have == f.size {
		return nil
	}
	select {
	case f.parts <- part:
	case <-f.item.done:
		return &localError{errLeft}
	}
	select {
	case err := <-f.ends:
		return err
	case <-f.item.done:
	}
	select {
	case err := <-f.ends:
		return err
	default:
		return &localError{errLeft}
	}
}

// Read implements io.Reader for the consumer. Where a stream breaks, it waits for the
// next one.
func (f *receivedFile) Read(p []byte) (int, error) {
	if f.have == f.size {
		return 0, io.EOF
	}
	for {
		if f.part == nil {
			select {
			case f.part = <-f.parts:
			case <-f.cut:
				return 0, wire.ErrCut
			case <-f.ctx.Done():
				return 0, wire.ErrCut // the receiver returns the reason
			}
		}
		n, err := f.part.Read(p[:min(int64(len(p)), f.size-f.have)])
		f.have += int64(n)
		*f.got += int64(n)
		switch {
		case f.have == f.size:
			f.part = nil
			f.ends <- nil
		case err == io.EOF:
			f.part = nil
			f.ends <- &wire.FrameError{Reason: f.name + " ends early"}
		case err != nil:
			f.part = nil
			f.ends <- err
		}
		if n > 0 {
			return n, nil
		}
	}
}
