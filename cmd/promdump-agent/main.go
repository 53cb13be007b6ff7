// Command promdump-agent runs in the container of a Prometheus for as long as
// one dump takes. It is uploaded and started by kubectl promdump, takes one call
// on stdin, answers on stdout and ends. It removes its own file first, so that
// nothing stays behind whatever happens later.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/promdump/promdump/internal/agent"
)

// Only a file with this name is removed: who runs the agent by hand keeps it.
const uploaded = ".promdump-agent-"

func main() { os.Exit(run()) }

func run() int {
	if self, err := os.Executable(); err == nil && strings.HasPrefix(filepath.Base(self), uploaded) {
		if err := os.Remove(self); err != nil {
			fmt.Fprintf(os.Stderr, "promdump-agent: cannot remove itself: %v\n", err)
		}
	}
	signal.Ignore(syscall.SIGPIPE) // an error of a write instead
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	runtime.GOMAXPROCS(1) // the others are the server's
	err := agent.Serve(ctx, agent.Process{
		In: os.Stdin, Out: os.Stdout, Err: os.Stderr,
		Cgroup: os.DirFS("/sys/fs/cgroup"),
		// The runtime counts what Go has taken, and not the program's own pages.
		Limit: func(memory int64) { debug.SetMemoryLimit(max(memory-16<<20, memory/2)) },
	})
	if err != nil {
		fmt.Fprintf(os.Stderr, "promdump-agent: %v\n", err)
		return 1
	}
	return 0
}
