package agent

import (
	"context"
	"io"
	"iter"
	"log/slog"
	"os"

	"github.com/promdump/promdump/internal/wire"
)

// ReadGently reads like Read, at the pace of the server that is at work in the data
// dir. It is for a data dir on the user's machine: in a container Serve does this where
// its output leaves.
func ReadGently(ctx context.Context, path string, req wire.Request, o Options) iter.Seq2[wire.Message, error] {
	return func(yield func(wire.Message, error) bool) {
		log := o.Logger
		if log == nil {
			log = slog.New(slog.DiscardHandler)
		}
		paced := newPacedWriter(ctx, io.Discard, true, log)
		defer paced.close()
		watched := paced.watchServer(os.DirFS("/sys/fs/cgroup"), path, "")
		for m, err := range Read(ctx, path, req, o) {
			if err == nil {
				err = paced.spend(m)
			}
			if plan, ok := m.(*wire.Plan); ok && !watched {
				plan.Notes = append(plan.Notes, gentleNote)
			}
			if !yield(m, err) || err != nil {
				return
			}
		}
	}
}

// spend waits until the data of a message may be read.
func (p *pacedWriter) spend(m wire.Message) error {
	n := 0
	switch m := m.(type) {
	case *wire.File:
		m.Body = io.TeeReader(m.Body, p)
	case *wire.Series:
		for _, c := range m.Chunks {
			n += len(c.Data)
		}
	case *wire.HeadChunks:
		for _, c := range m.Chunks {
			n += len(c.Data)
		}
	case *wire.Records:
		for _, r := range m.Records {
			n += len(r)
		}
	}
	if n == 0 {
		return nil
	}
	p.sent += int64(n)
	p.credit -= float64(n)
	return p.wait()
}
