// Command promdump dumps a Prometheus data dir on this machine, or a part of it,
// into one verified file, looks into such a file, and restores it.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/promdump/promdump/internal/cli"
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
	return cli.Main(ctx, os.Args[1:], term.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr})
}
