// Command promdump-agent runs in the container of a Prometheus for as long as
// one dump takes. It is uploaded and started by kubectl promdump, takes one call
// on stdin, answers on stdout and ends. It removes its own file first, so that
// nothing stays behind whatever happens later, and says start on stdout if that
// is its argument: by that the client knows that it runs.
//
// In promdump's own image it is there already, and is what the container runs, too:
// live, until none of its clients holds it.
//
// With a time after start it waits so long for its client to come back when its streams
// break: attach NAME, run from the same program, hands it the streams of another command.
//
// A client that was killed before it could start its agent leaves a file. The
// next agent in that directory removes it.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/promdump/promdump/internal/agent"
	"github.com/promdump/promdump/internal/wire"
)

// Only a file with this name is removed: who runs the agent by hand keeps it.
const uploaded = ".promdump-agent-"

func main() { os.Exit(run()) }

const (
	gcPercent  = 25       // collections cost little: the live heap has a few MiB
	firstLimit = 12 << 20 // bytes of the Go runtime, until a request says more
)

func run() int {
	// The script that starts an uploaded agent has both in its environment already, see
	// package source/pod; an installed agent has none.
	debug.SetGCPercent(gcPercent)
	debug.SetMemoryLimit(firstLimit)
	lowered := agent.Lower(agent.Background) // first: what starts is charged to the server as well
	if len(os.Args) == 3 && os.Args[1] == wire.ToAttach {
		return attach(os.Args[2])
	}
	self, err := os.Executable()
	if err != nil { // there is no /proc
		self = os.Args[0]
	}
	removed := strings.HasPrefix(filepath.Base(self), uploaded)
	if removed {
		if err := os.Remove(self); err != nil {
			fmt.Fprintf(os.Stderr, "promdump-agent: cannot remove itself: %v\n", err)
		}
		removeOld(filepath.Dir(self), old)
	}
	signal.Ignore(syscall.SIGPIPE) // an error of a write instead
	var meeting *agent.Meeting
	if len(os.Args) > 1 && os.Args[1] == wire.Started {
		line := wire.Started
		if meeting = meetingOf(os.Args[2:], self, removed); meeting != nil {
			line += " " + meeting.Place().String()
		}
		if _, err := fmt.Println(line); err != nil {
			return 1
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	runtime.GOMAXPROCS(1) // the others are the server's
	if len(os.Args) > 1 && os.Args[1] != wire.Started {
		return helper(ctx, os.Args[1], os.Args[2:])
	}
	err = agent.Serve(ctx, agent.Process{
		In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Meeting: meeting,
		Cgroup: os.DirFS("/sys/fs/cgroup"),
		// The runtime counts what Go has taken, and not the program's own pages.
		Limit: func(memory int64) { debug.SetMemoryLimit(max(memory-16<<20, memory/2, 6<<20)) },
		Lower: func(p agent.Priority) error {
			if p == agent.Background {
				return lowered
			}
			return agent.Lower(p)
		},
	})
	if err != nil {
		fmt.Fprintf(os.Stderr, "promdump-agent: %v\n", err)
		return agent.ExitCode(err)
	}
	return 0
}

// meetingOf returns where a client finds this agent again if its connection breaks. The
// argument after start is how long it waits; without one, or where no process could find
// it, it ends with its stdin.
func meetingOf(args []string, self string, removed bool) *agent.Meeting {
	if len(args) != 1 {
		return nil
	}
	wait, err := time.ParseDuration(args[0])
	if err != nil || wait <= 0 {
		return nil
	}
	if removed {
		self = ""
	}
	m, err := agent.NewMeeting(wait, self)
	if err != nil {
		return nil
	}
	return m
}

// attach connects the streams of this process with the agent that waits under a name.
func attach(name string) int {
	err := agent.Attach(name, os.Stdin, os.Stdout, os.Stderr)
	if err == nil {
		return 0
	}
	fmt.Fprintf(os.Stderr, "promdump-agent: %v\n", err)
	if _, none := errors.AsType[*agent.NoAgentError](err); none {
		return wire.CodeNoAgent
	}
	return 1
}

// helper is what is asked of the agent in an image.
func helper(ctx context.Context, what string, args []string) int {
	wait := func(d time.Duration) {
		select {
		case <-ctx.Done():
		case <-time.After(d):
		}
	}
	switch what {
	case agent.ToLive:
		agent.Live(ctx, os.DirFS("/proc"), "promdump-agent", time.Second, 60)
	case agent.ToHold:
		wait(agent.Holds)
	case agent.ToEnd:
		wait(agent.Ends)
	case "owners":
		if err := agent.Owners(os.Stdout, args); err != nil {
			fmt.Fprintf(os.Stderr, "promdump-agent: %v\n", err)
			return 1
		}
	default:
		fmt.Fprintf(os.Stderr, "promdump-agent: it cannot %q\n", what)
		return 2
	}
	return 0
}

// old is when a file of an agent is surely not on its way any more.
const old = 10 * time.Minute

// removeOld removes what killed clients left. A file that cannot be looked at or
// removed is not ours, or another one was faster.
func removeOld(dir string, age time.Duration) {
	names, _ := filepath.Glob(filepath.Join(dir, uploaded+"*"))
	for _, name := range names {
		var st unix.Stat_t
		// The time of the change is this machine's; the other one is of whoever made it.
		if unix.Lstat(name, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG && int(st.Uid) == os.Getuid() && time.Since(time.Unix(st.Ctim.Unix())) > age {
			_ = os.Remove(name)
		}
	}
}
