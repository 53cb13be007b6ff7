// Command kubectl-promdump is promdump as a plugin of kubectl: the same commands,
// done to a Prometheus in a pod.
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

func run() int {
	// A reader that goes away is an error of a write, after which we clean up; by
	// default it would kill us with temporary files left behind.
	signal.Ignore(syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// The first signal asks us to clean up and end, the second one does it at once.
	context.AfterFunc(ctx, stop)
	return plugin.Main(ctx, os.Args[1:], term.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr})
}
