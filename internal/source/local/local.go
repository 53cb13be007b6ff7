// Package local is the source for a data dir on this machine: the agent, run in
// this process. It reads the data dir of a running Prometheus as well as that of
// a stopped one, and never writes to it.
package local

import (
	"context"
	"iter"
	"log/slog"

	"github.com/promdump/promdump/internal/agent"
	"github.com/promdump/promdump/internal/wire"
)

// Options of a Source.
type Options struct {
	Logger *slog.Logger

	// Sketch marks a directory that is a copy without the large files of its blocks. It
	// supports plans and inventories only.
	Sketch bool
}

// Source is a data dir on this machine.
type Source struct {
	dir string
	o   agent.Options
}

// New makes a source of the data dir. It is opened when it is read.
func New(dir string, o Options) *Source {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Source{dir: dir, o: agent.Options{Logger: o.Logger, Sketch: o.Sketch}}
}

// Read implements source.Source.
func (s *Source) Read(ctx context.Context, req wire.Request) iter.Seq2[wire.Message, error] {
	return agent.Read(ctx, s.dir, req, s.o)
}

// Inventory implements source.Source.
func (s *Source) Inventory(ctx context.Context) (*wire.Inventory, error) {
	return agent.Inventory(ctx, s.dir, s.o)
}

// String is the data dir's path.
func (s *Source) String() string { return s.dir }
