package dump

import (
	"context"
	"io"
	"sync/atomic"

	"github.com/promdump/promdump/internal/archive"
	"github.com/promdump/promdump/internal/wire"
)

// advance counts n bytes of a part of the plan that has size bytes. Parts are
// measured by what is told of them, which may be more than their files have.
func (a *assembler) advance(n, size int64) {
	a.read = min(a.read+n, a.base+size)
	a.tell()
}

func (a *assembler) finishPart(size int64) {
	a.base += size
	a.read = a.base
	a.parts++
	a.tell()
}

func (a *assembler) tell() {
	if a.spec.Progress != nil && a.report.Plan != nil {
		p := Progress{Read: a.read, Total: a.report.Plan.Bytes, Written: a.count.n.Load(), Part: a.parts}
		for _, b := range a.report.Plan.Blocks {
			if b.Action == wire.Cut {
				p.Parts++
			}
		}
		a.spec.Progress(p)
	}
}

// plannedSources are the ULIDs of what a block was compacted of.
func (a *assembler) plannedSources(ulid string) []string {
	for _, b := range a.report.Plan.Blocks {
		if b.ULID == ulid {
			return b.Sources
		}
	}
	return nil
}

// planned is the size of a block in the plan, in bytes.
func (a *assembler) planned(ulid string) int64 {
	for _, b := range a.report.Plan.Blocks {
		if b.ULID == ulid {
			return b.Bytes
		}
	}
	return 0
}

// reading is the body of a file, with its bytes counted.
type reading struct {
	a *assembler
	r io.Reader
}

func (r *reading) Read(p []byte) (int, error) {
	if err := r.a.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := r.r.Read(p)
	r.a.read += int64(n)
	r.a.tell()
	return n, err
}

// cancelling is a reader that ends with its context.
type cancelling struct {
	ctx context.Context
	r   io.Reader
}

func (r *cancelling) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}

// counter counts what is written, while others look.
type counter struct {
	w io.Writer
	n atomic.Int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n.Add(int64(n))
	return n, err
}

// output is the counter, with a Rewind if what it writes to has one.
func (c *counter) output() io.Writer {
	if to, ok := c.w.(archive.Rewinder); ok {
		return &rewinding{c, to}
	}
	return c
}

type rewinding struct {
	*counter
	to archive.Rewinder
}

// Rewind implements archive.Rewinder.
func (r *rewinding) Rewind(size int64) error {
	if err := r.to.Rewind(size); err != nil {
		return err
	}
	r.n.Store(size)
	return nil
}

// Sync implements archive.Syncer.
func (r *rewinding) Sync() error {
	if s, ok := r.to.(archive.Syncer); ok {
		return s.Sync()
	}
	return nil
}
