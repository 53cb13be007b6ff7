package archive

import (
	"errors"
	"fmt"
	"io"
	"sync/atomic"
)

// Mark is a place between two entries of a dump that is being written.
type Mark struct {
	writer  *Writer
	entries int           // before it
	in      int64         // bytes of files before it
	out     *atomic.Int64 // offset in the output; known when all before it is written
}

// Rewinder is an output that can be cut back.
type Rewinder interface {
	io.Writer

	// Rewind removes what was written at size and after it. The next Write goes there.
	// Sizes count from the start of the dump.
	Rewind(size int64) error
}

// Syncer is an output that can make durable what was written.
type Syncer interface {
	// Sync returns when all that was written is durable. The Writer of an uncompressed
	// dump calls it at each mark: what an entry follows that comes after a mark is
	// then complete in the file, also after a power failure.
	Sync() error
}

// ErrNoRollback refuses to roll back what went to a stream.
var ErrNoRollback = errors.New("the output cannot be cut back")

// CanRollback reports whether the output allows Rollback.
func (d *Writer) CanRollback() bool {
	_, ok := d.w.(Rewinder)
	return ok
}

// Mark ends the current piece and returns the place that was reached, for Rollback. It
// does not wait for anything to be written. Each call makes the dump a little larger:
// call it for blocks, not for small files.
func (d *Writer) Mark() (Mark, error) {
	if d.stopped {
		return Mark{}, d.refuse(errClosed)
	}
	if err := d.firstError(); err != nil {
		return Mark{}, err
	}
	if err := d.send(smallKind); err != nil {
		return Mark{}, err
	}
	m := Mark{writer: d, entries: len(d.order), in: d.in.Load(), out: new(atomic.Int64)}
	d.ordered <- step{mark: m.out}
	return m, nil
}

// Rollback takes back all entries that were written since the mark, whole or not. It
// also takes back the error of a file whose reader failed, and of a wrong call; an
// error of the output stays. Marks of before m stay valid, later ones do not.
func (d *Writer) Rollback(m Mark) error {
	if d.stopped {
		return d.refuse(errClosed)
	}
	if m.writer != d || m.entries > len(d.order) {
		return d.refuse(errors.New("roll back the dump: the mark is not one of this dump"))
	}
	w, ok := d.w.(Rewinder)
	if !ok {
		return d.refuse(fmt.Errorf("roll back the dump: %w", ErrNoRollback))
	}
	d.hash.rollback(m.entries)
	d.cur.buf = d.cur.buf[:0] // nothing reads it any more
	d.cur.kind = smallKind
	written := make(chan struct{})
	d.ordered <- step{reach: written}
	<-written
	if d.failed.Load() {
		d.caller = nil
		return d.firstError()
	}
	if err := w.Rewind(m.out.Load()); err != nil {
		d.fail(fmt.Errorf("roll back the dump: %w", err))
		d.caller = nil
		return d.firstError()
	}
	d.out.Store(m.out.Load())
	d.in.Store(m.in)
	for _, name := range d.order[m.entries:] {
		delete(d.names, name)
	}
	d.order = d.order[:m.entries]
	d.caller = nil
	return nil
}
