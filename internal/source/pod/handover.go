package pod

import (
	"context"
	"errors"
	"os"

	"github.com/promdump/promdump/internal/wire"
)

// handover brings messages from the goroutine that listens to the one that
// consumes. A message belongs to the listener again when say returns; the files
// of a whole block are consumed while the listener goes on.
type handover struct {
	ctx   context.Context
	items chan item
}

type item struct {
	msg   wire.Message
	files []*spooled
	done  chan struct{} // closed when msg was consumed; nil for files
}

// say hands a message over and waits until it was consumed.
func (h *handover) say(m wire.Message) error {
	it := item{msg: m, done: make(chan struct{})}
	select {
	case h.items <- it:
	case <-h.ctx.Done():
		return h.ctx.Err()
	}
	<-it.done // whoever took it has done with it soon, also when all is cancelled
	return nil
}

func (h *handover) files(files []*spooled) error {
	select {
	case h.items <- item{files: files}:
		return nil
	case <-h.ctx.Done():
		return h.ctx.Err()
	}
}

// consume yields everything, until the listener closes items or yield has
// enough, which it reports.
func (h *handover) consume(yield func(wire.Message, error) bool) (left bool) {
	for it := range h.items {
		if it.msg == nil {
			for _, f := range it.files {
				ok, err := give(f, yield)
				if err != nil {
					yield(nil, err)
					return true
				}
				if !ok {
					return true
				}
			}
			continue
		}
		ok := yield(it.msg, nil)
		close(it.done)
		if !ok {
			return true
		}
	}
	return false
}

// give yields one file and removes it.
func give(f *spooled, yield func(wire.Message, error) bool) (ok bool, err error) {
	in, err := os.Open(f.path)
	if err != nil {
		return false, err
	}
	ok = yield(&wire.File{Name: f.name, Size: f.size, Body: in}, nil)
	return ok, errors.Join(in.Close(), os.Remove(f.path))
}
