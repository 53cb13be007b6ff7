// Command kubectl-promdump is the kubectl plugin of promdump: the same commands for a
// Prometheus in a pod.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/promdump/promdump/internal/cli/plugin"
	"github.com/promdump/promdump/internal/term"
)

func main() { os.Exit(run()) }

// run runs the command line and returns the exit code.
func run() int {
	// When the reader of stdout has gone, writes then fail and the program cleans up. By
	// default the signal kills the program, and temporary files remain.
	signal.Ignore(syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// The first signal cancels ctx, and the program cleans up. The second one kills it.
	context.AfterFunc(ctx, stop)
	return plugin.Main(ctx, os.Args[1:], term.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr})
}
