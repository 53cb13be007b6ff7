package agent

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/promdump/promdump/internal/restore/apply"
	"github.com/promdump/promdump/internal/wire"
)

// patience is how long a receiver waits for another one: that of a stream which was cut
// may still be about to end.
const patience = clientSilence + 5*time.Second

// serveReceive takes blocks from stdin. All of them are there, whole and on the
// disk before the first gets its name; when anything fails none is left behind.
// With Call.Replace they take the place of all that is there, and so may a head.
func (p Process) serveReceive(ctx context.Context, cancel context.CancelCauseFunc, call wire.Call, in *bufio.Reader) error {
	w, err := wire.NewWriter(p.Out, call.Codec)
	if err != nil {
		return err
	}
	alive, stop := context.WithCancel(ctx)
	defer stop()
	go keepAlives(alive, w)
	done, err := p.receiveUntil(ctx, call, in, w)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return err // the stream broke; after a failure in words the client would not try again
	}
	if err != nil {
		f := failure(err)
		if f.Code == codeIncomplete { // nothing of it is left
			f.Code = codeNoAgent
		}
		err = errors.Join(err, w.Fail(f))
	}
	if _, short := errors.AsType[*MemoryError](context.Cause(ctx)); short {
		// The client ends the stream when it has the failure.
		select {
		case <-done: //nolint:errcheck // the failure is what counts
		case <-time.After(graceTime):
		}
		return err
	}
	werr := watch(in, cancel).wait(ctx)
	return errors.Join(err, werr)
}

// receiveUntil receives until all is in place, or ctx is done. What has no name then is
// removed. The error of what may still read stdin comes from done.
func (p Process) receiveUntil(ctx context.Context, call wire.Call, in io.Reader, w *wire.Writer) (done chan error, err error) {
	s, err := p.open(ctx, call)
	if err != nil {
		return nil, err
	}
	done = make(chan error, 1)
	go func() { done <- receive(ctx, s, in, w) }()
	select {
	case err = <-done:
	case <-ctx.Done():
		err = context.Cause(ctx) // a read of stdin cannot be stopped, but nothing follows it
	}
	finished, ended := s.Close()
	if finished && err != nil {
		// Nothing undoes it any more: the client gets its answer, if there is one.
		select {
		case err = <-done:
		case <-time.After(graceTime):
		}
	}
	return done, errors.Join(err, ended)
}

// open opens the session that a call is for.
func (p Process) open(ctx context.Context, call wire.Call) (*apply.Session, error) {
	if p.short != nil {
		return nil, p.short
	}
	o := apply.Options{Patience: patience}
	var dir string
	var err error
	if call.Replace == nil {
		dir, err = apply.Find(call.Dirs)
	} else {
		o.Replace = call.Replace.ID
		dir, err = apply.FindReplaced(call.Dirs, o.Replace)
	}
	if err != nil {
		return nil, err
	}
	return apply.Open(ctx, dir, o)
}

func receive(ctx context.Context, s *apply.Session, in io.Reader, w *wire.Writer) error {
	if err := w.Answer(wire.Ready{Done: s.Earlier}); err != nil || s.Earlier != nil {
		return err
	}
	var got wire.End
	var result *wire.Restored
	for m, err := range wire.NewReader(in).All() {
		if err != nil {
			return fmt.Errorf("receive blocks: %w", err)
		}
		switch m := m.(type) {
		case *wire.File:
			got.Files++
			got.Bytes += uint64(m.Size)
			if m.Offset != 0 {
				return fmt.Errorf("receive blocks: %q begins in its middle", m.Name)
			}
			err = s.File(m.Name, m.Size, m.Body)
		case *wire.End:
			if *m != got {
				return fmt.Errorf("receive blocks: here are %d files with %d bytes, not %d with %d", got.Files, got.Bytes, m.Files, m.Bytes)
			}
			// What has begun ends, also when the client goes away meanwhile.
			result, err = s.Publish(context.WithoutCancel(ctx))
		default:
			err = fmt.Errorf("receive blocks: %T is no part of one", m)
		}
		if err != nil {
			return err
		}
	}
	return w.Answer(result)
}

// discard removes what a replacement took away.
func discard(ctx context.Context, call wire.Call, w *wire.Writer) error {
	dir, err := apply.FindReplaced(call.Dirs, call.Replace.ID)
	if err != nil {
		return err
	}
	result, err := apply.Discard(ctx, dir, call.Replace.ID, patience)
	if err != nil {
		return err
	}
	return w.Answer(result)
}
