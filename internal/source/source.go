// Package source says what every source of data has in common. A data dir on
// this machine, a pod, a running server: each tells the same story (the
// messages of package wire) to one consumer, which does not know where the data
// comes from.
package source

import (
	"context"
	"iter"

	"github.com/promdump/promdump/internal/wire"
)

// Source is a place that data comes from. sourcetest holds the tests that each
// kind must pass.
type Source interface {
	// Read tells what the request asks for. The sequence ends after wire.End, or
	// after one error; a message is valid until the next one is asked for. Leaving
	// the loop early releases everything that the source holds.
	Read(ctx context.Context, req wire.Request) iter.Seq2[wire.Message, error]

	// Inventory tells what there is, without reading samples of blocks.
	Inventory(ctx context.Context) (*wire.Inventory, error)

	// String names the source for a person, without secrets.
	String() string
}
