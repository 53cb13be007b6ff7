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

	// Gentle reads at the pace of the server that is at work in the data dir. Lower is
	// the other half.
	Gentle bool

	// Sketch marks a directory that is a copy without the large files of its blocks. It
	// supports plans and inventories only.
	Sketch bool
}

// Lower gives this process the lowest priority, for good. A machine may forbid it.
func Lower() error { return agent.Lower(agent.Idle) }

// Source is a data dir on this machine.
type Source struct {
	dir    string
	gentle bool
	o      agent.Options
}

// New makes a source of the data dir. It is opened when it is read.
func New(dir string, o Options) *Source {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Source{dir: dir, gentle: o.Gentle, o: agent.Options{Logger: o.Logger, Sketch: o.Sketch}}
}

// Read implements source.Source.
func (s *Source) Read(ctx context.Context, req wire.Request) iter.Seq2[wire.Message, error] {
	if s.gentle {
		return agent.ReadGently(ctx, s.dir, req, s.o)
	}
	return agent.Read(ctx, s.dir, req, s.o)
}

// Inventory implements source.Source.
func (s *Source) Inventory(ctx context.Context) (*wire.Inventory, error) {
	return agent.Inventory(ctx, s.dir, s.o)
}

// String is the data dir's path.
func (s *Source) String() string { return s.dir }
