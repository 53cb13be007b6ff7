// Command promdump-agent runs in the container of a Prometheus during one dump or restore.
// kubectl promdump uploads and starts it. The agent receives one call on stdin, sends the response
// on stdout and exits. It first removes its own file, so that nothing remains in the container
// however it ends. With the argument start it then prints a line, which shows the client that it
// runs.
//
// In promdump's image the agent is installed and not removed. There it is also the main process of
// the container, with the argument live, and exits when no client holds the container any more.
//
// A duration after start is the time that the agent waits for its client after its streams broke.
// The client runs the same program with attach NAME to connect new streams to the waiting agent.
//
// A client that is killed before it starts its agent leaves a file. The next agent in that directory
// removes it.
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

// uploaded is the prefix of the name of an uploaded agent. The agent removes only such files.
const uploaded = ".promdump-agent-"

func main() { os.Exit(run()) }

const (
	gcPercent  = 25       // collections are cheap: the live heap has a few MiB
	firstLimit = 12 << 20 // memory limit of the Go runtime in bytes, until a request sets another
)

// run runs the agent and returns the exit code.
func run() int {
	// The script that starts an uploaded agent sets both in its environment, see package
	// source/pod. An installed agent has no such script.
	debug.SetGCPercent(gcPercent)
	debug.SetMemoryLimit(firstLimit)
	lowered := agent.Lower(agent.Background) // first, because the start also takes CPU time from the server
	if len(os.Args) == 3 && os.Args[1] == wire.ToAttach {
		return attach(os.Args[2])
	}
	self, err := os.Executable()
	if err != nil { // no /proc
		self = os.Args[0]
	}
	removed := strings.HasPrefix(filepath.Base(self), uploaded)
	if removed {
		if err := os.Remove(self); err != nil {
			fmt.Fprintf(os.Stderr, "promdump-agent: cannot remove itself: %v\n", err)
		}
		removeOld(filepath.Dir(self), old)
	}
	signal.Ignore(syscall.SIGPIPE) // writes fail instead
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
	runtime.GOMAXPROCS(1) // leaves the other processors to the server
	if len(os.Args) > 1 && os.Args[1] != wire.Started {
		return helper(ctx, os.Args[1], os.Args[2:])
	}
	err = agent.Serve(ctx, agent.Process{
		In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Meeting: meeting,
		Cgroup: os.DirFS("/sys/fs/cgroup"),
		// The limit of the Go runtime does not include the pages of the program file.
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

// meetingOf returns the place where a client can reconnect to this agent after its connection
// broke. args are the arguments after start: the time to wait. It returns nil without a time, or if
// no place is available; the agent then exits at the end of its stdin.
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

// attach connects the streams of this process to the waiting agent with a name. It returns the exit
// code.
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

// helper runs a command of an installed agent and returns the exit code.
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
		fmt.Fprintf(os.Stderr, "promdump-agent: unknown command %q\n", what)
		return 2
	}
	return 0
}

// old is the age at which the upload of a file has certainly ended.
const old = 10 * time.Minute

// removeOld removes the files of killed clients in dir that are older than age. It ignores errors:
// another user owns the file, or another agent has removed it.
func removeOld(dir string, age time.Duration) {
	names, _ := filepath.Glob(filepath.Join(dir, uploaded+"*"))
	for _, name := range names {
		var st unix.Stat_t
		if unix.Lstat(name, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG || int(st.Uid) != os.Getuid() {
			continue
		}
		// The kernel sets ctime; a client can set mtime.
		if time.Since(time.Unix(st.Ctim.Unix())) > age {
			_ = os.Remove(name)
		}
	}
}
