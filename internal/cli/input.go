package cli

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/promdump/promdump/internal/term"
)

// openDump opens a dump file, or stdin for "-". The name is for a person.
func (a *app) openDump(ctx context.Context, name string) (_ io.ReadCloser, shown string, err error) {
	if name == "-" {
		if term.IsTerminal(a.In) {
			return nil, "", usagef("send a dump to stdin, or name a file", "a dump is binary and stdin is a terminal")
		}
		return newInterruptible(ctx, a.In), "stdin", nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, "", fmt.Errorf("open dump: %w", err)
	}
	fi, err := f.Stat()
	if err == nil && fi.IsDir() {
		err = usagef(fmt.Sprintf("a data dir is named by -d %s", name), "%s is a directory, not a dump file", name)
	}
	if err != nil {
		_ = f.Close()
		return nil, "", err
	}
	return f, name, nil
}

// interruptible is a reader whose Read ends with the context. Stdin's own would
// wait for ever when nobody writes.
type interruptible struct {
	ctx  context.Context
	read chan piece
	free chan []byte
	rest []byte
	buf  []byte
	err  error
}

type piece struct {
	data []byte
	err  error
}

func newInterruptible(ctx context.Context, r io.Reader) *interruptible {
	i := &interruptible{ctx: ctx, read: make(chan piece), free: make(chan []byte, 2)}
	for range 2 {
		i.free <- make([]byte, 256<<10)
	}
	// The goroutine outlives us when its Read hangs; then the process ends anyway.
	go func() {
		for {
			var buf []byte
			select {
			case buf = <-i.free:
			case <-ctx.Done():
				return
			}
			n, err := r.Read(buf)
			select {
			case i.read <- piece{buf[:n], err}:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
		}
	}()
	return i
}

func (i *interruptible) Read(p []byte) (int, error) {
	for len(i.rest) == 0 {
		if i.buf != nil {
			i.free <- i.buf[:cap(i.buf)]
			i.buf = nil
		}
		if i.err != nil {
			return 0, i.err
		}
		select {
		case next := <-i.read:
			i.buf, i.rest, i.err = next.data, next.data, next.err
		case <-i.ctx.Done():
			return 0, i.ctx.Err()
		}
	}
	n := copy(p, i.rest)
	i.rest = i.rest[n:]
	return n, nil
}

func (i *interruptible) Close() error { return nil }
