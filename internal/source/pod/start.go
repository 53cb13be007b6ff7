package pod

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/promdump/promdump/internal/retry"
	"github.com/promdump/promdump/internal/wire"
)

// script finds a place for the agent, takes it in and runs it: the first
// directory that can be written, that may execute what is written there and that
// has the room. The data dir is the last of all, and often the only one that is
// left when the root is read-only. The file is gone as soon as the agent runs, or
// this ends.
//
// It says in lines on stdout: what machine it is and whether it can unpack; then,
// told in a line how many bytes come and how many the agent has, where its place
// is. What comes from then on is the agent, and what goes out is the agent's.
//
// The agent's heap is small from its first instruction on, before it has read what it
// may take.
//
// The agent takes the shell's place. A child would be left to the server if the shell were
// killed, and a server that is PID 1 does not wait for children: it would stay a zombie. So
// the trap does not remove the file of an agent that does not come to run: the client does,
// or the next agent.
//
// A shell takes a program of another machine for a script, and the > in it for a
// redirection. Where uname is not there to tell, any other program is compared.
//
// The third argument is how long the agent waits for a client that lost it, or empty.
// The second argument is tight where memory is: then directories on a disk come first,
// the data dir among them, since a file in memory is charged to the container until it
// is removed. ram succeeds for a directory whose mount is a filesystem in memory.
const script = `n=$1; passes=any; test "$2" = tight && passes='disk ram'; w=$3; shift 3; f=; full=
trap 'test -z "$f" || rm -f "$f"' 0
trap 'exit 1' 1 2 3 13 15
m=$(uname -m 2>/dev/null) || m=unknown
z=raw; command -v gzip >/dev/null 2>&1 && z=gzip
echo "machine $m $z"
read -r in size || exit 1
ram() {
  l=0 r=1 p=$(cd "$1" && pwd -P)
  while read -r _ m t _; do case $p/ in "${m%/}"/*) test "${#m}" -lt "$l" || { l=${#m}; case $t in tmpfs|ramfs) r=0 ;; *) r=1 ;; esac; } ;; esac; done </proc/mounts
  return $r
}
for pass in $passes; do
for d in "$TMPDIR" /tmp /var/tmp "$HOME" /dev/shm /run $(while read -r _ m t o _; do case $t in proc|sysfs|cgroup*|devpts|mqueue|devtmpfs) ;; *) case $o in ro|ro,*|*noexec*) ;; *) echo "$m" ;; esac ;; esac; done 2>/dev/null </proc/mounts) "$@"; do
  test -d "$d" && test -w "$d" || continue
  case $pass in
  disk) ram "$d" 2>/dev/null && continue ;;
  ram) ram "$d" 2>/dev/null || continue ;;
  esac
  f=$d/$n
  if (umask 077; set -C; echo '#!/bin/sh' >"$f") 2>/dev/null; then
    if chmod 700 "$f" && "$f" 2>/dev/null; then
      head -c "$size" /dev/zero 2>/dev/null >"$f"
      test "$(wc -c <"$f")" -eq "$size" && break 2
      full="$full $d"
    fi
  elif test -e "$f"; then
    full="$full $d"
  fi
  rm -f "$f"; f=
done
done
test -n "$f" || { echo "none$full"; exit 1; }
echo "ready $f"
case $z in
gzip) head -c "$in" | gzip -dc 1<>"$f" ;;
raw) head -c "$in" 1<>"$f" ;;
esac || exit 1
test "$(wc -c <"$f")" -eq "$size" || { echo "the agent did not arrive whole" >&2; exit 1; }
test "$m" != unknown || test "$(head -c 19 /proc/self/exe | tail -c 1)" = "$(head -c 19 "$f" | tail -c 1)" || { echo "exec format error" >&2; exit 126; }
export GOGC=25 GOMEMLIMIT=12MiB GOMAXPROCS=1
exec "$f" start $w
`

// AgentError says that the agent could not be brought to run.
type AgentError struct {
	Err   error
	Tip   string
	NoTar bool // and that tar is not there either
}

func (e *AgentError) Error() string { return fmt.Sprintf("the agent could not run: %v", e.Err) }
func (e *AgentError) Unwrap() error { return e.Err }

// ExitCode is that of the command.
func (e *AgentError) ExitCode() int { return 12 }

// Hint returns what to do about it.
func (e *AgentError) Hint() string { return e.Tip }

// ExitError is what an Exec gives for a command that ended with a code, as far as
// that is certain.
type ExitError struct {
	Code int
	Err  error
}

func (e *ExitError) Error() string { return e.Err.Error() }
func (e *ExitError) Unwrap() error { return e.Err }

// noShellError says that the container has no sh.
type noShellError struct{ err *AgentError }

func (e *noShellError) Error() string { return e.err.Error() }

// start uploads the agent and runs it. The agent waits for so long for us when its
// streams break; 0: not at all. The conversation that it gives is the agent's: the caller
// closes it.
func (s *Source) start(ctx context.Context, tries *retry.Budget, wait time.Duration) (*conversation, error) {
	name := agentName + strings.ToLower(rand.Text()[:12])
	if s.o.Installed != "" {
		c := s.run(ctx, tries, append([]string{s.o.Installed}, startArgs(wait)...))
		if err := c.started(s.o.Installed); err != nil {
			c.close()
			return nil, err
		}
		tries.Reached()
		return c, nil
	}
	tight := false
	if s.o.Check != nil {
		var err error
		if tight, err = s.check(ctx, tries); err != nil {
			return nil, err
		}
	}
	if !s.noShell.Load() {
		c, err := s.startByShell(ctx, tries, name, tight, wait)
		if _, none := errors.AsType[*noShellError](err); !none {
			return c, err
		}
		s.noShell.Store(true)
		s.o.Logger.Debug("no shell, uploading by tar", "error", err)
	}
	return s.startByTar(ctx, tries, name, tight, wait)
}

// check calls Check. On a link that is dead it ends with the budget.
func (s *Source) check(ctx context.Context, tries *retry.Budget) (tight bool, err error) {
	most := min(2*s.o.times.stall, s.left(tries))
	ctx, cancel := context.WithTimeoutCause(ctx, most, fmt.Errorf("look at the container's memory: no answer in %v", most))
	defer cancel()
	tight, err = s.o.Check(ctx)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return tight, err
}

// startArgs are the arguments of the agent.
func startArgs(wait time.Duration) []string {
	if wait <= 0 {
		return []string{wire.Started}
	}
	return []string{wire.Started, wait.String()}
}

// agentName is how all names of uploaded agents begin. The agent removes files
// with no other name.
const agentName = ".promdump-agent-"

func (s *Source) startByShell(ctx context.Context, tries *retry.Budget, name string, tight bool, wait time.Duration) (_ *conversation, err error) {
	room := "any"
	if tight {
		room = "tight"
	}
	c := s.run(ctx, tries, append([]string{"sh", "-c", script, "promdump", name, room, strings.Join(startArgs(wait)[1:], "")}, s.o.Dirs...))
	running := false
	defer func() {
		if err == nil {
			return
		}
		if _, none := errors.AsType[*AgentError](err); !none && !running {
			err = c.explain(err)
		}
		c.close()
	}()
	first, err := readLine(c)
	if none, ok := errors.AsType[*AgentError](err); ok {
		return nil, &noShellError{none}
	}
	if err != nil {
		return nil, fmt.Errorf("start a shell in the container: %w", err)
	}
	tries.Reached()
	c.stall = s.o.times.stall
	words := strings.SplitN(first, " ", 3)
	if len(words) != 3 || words[0] != "machine" {
		return nil, fmt.Errorf("start a shell in the container: it says %q", first)
	}
	machine, packed := words[1], words[2] == "gzip"
	program, size, err := s.o.Agent(ctx, machine)
	if err != nil {
		return nil, &localError{err}
	}
	body, err := bodyOf(program, packed)
	if err != nil {
		return nil, &localError{err}
	}
	if _, err := fmt.Fprintf(c.in, "%d %d\n", len(body), size); err != nil {
		return nil, fmt.Errorf("find a place for the agent: %w", err)
	}
	line, err := readLine(c)
	if err != nil {
		return nil, fmt.Errorf("find a place for the agent: %w", err)
	}
	if full, none := strings.CutPrefix(line, "none"); none {
		return nil, s.noPlace(strings.Fields(full), size)
	}
	place, ok := strings.CutPrefix(line, "ready ")
	if !ok {
		return nil, fmt.Errorf("find a place for the agent: it says %q", line)
	}
	s.o.Logger.Debug("agent's place", "file", place, "machine", machine, "gzip", packed)
	upload := s.uploading(body)
	defer upload.end()
	if _, err := io.Copy(c.in, upload); err != nil {
		return nil, fmt.Errorf("upload the agent to %s: %w", place, err)
	}
	upload.end()
	running = true
	if err := c.started(place); err != nil {
		_, ended := errors.AsType[*ExitError](err)
		if _, none := errors.AsType[*AgentError](err); ended || none {
			s.removeByShell(ctx, place)
		}
		return nil, err
	}
	return c, nil
}

// started waits until the agent says that it runs. By then its file is gone.
func (c *conversation) started(place string) error {
	line, err := readLine(c)
	word, where, waits := strings.Cut(line, " ")
	if err == nil && word == wire.Started {
		if place, ok := wire.ParsePlace(where); ok {
			c.setPlace(place)
		} else if waits {
			return &wire.FrameError{Reason: fmt.Sprintf("the agent starts with %q", line)}
		}
		return nil
	}
	if err == nil {
		return fmt.Errorf("start the agent %s: it says %q", place, line)
	}
	err = c.explain(fmt.Errorf("start the agent %s: %w", place, err))
	if none, ok := errors.AsType[*AgentError](err); ok {
		return cannotRun(none.Err)
	}
	if end, ok := errors.AsType[*ExitError](err); ok && couldNotRun(end.Code) {
		return cannotRun(err)
	}
	return err
}

// couldNotRun tells the codes of a program that cannot be run from those of one
// that failed (1) or that was ended by a signal from outside.
func couldNotRun(code int) bool {
	switch code {
	case 0, 1, 128 + 1, 128 + 2, 128 + 9, 128 + 13, 128 + 15:
		return false
	}
	return true
}

func cannotRun(err error) *AgentError {
	e := &AgentError{Err: err, Tip: "the container may not run programs that come from outside (noexec, seccomp or another policy); --via tar needs none"}
	if strings.Contains(strings.ToLower(err.Error()), "exec format error") {
		e.Tip = "it was made for another kind of machine than this one, whose kind could not be found out: a user who may get nodes, or an image with uname, tells; --via tar needs no program"
	}
	return e
}

func (s *Source) noPlace(full []string, size int64) *AgentError {
	e := &AgentError{
		Err: fmt.Errorf("no directory of the container can be written and may execute (looked at /tmp, /var/tmp, /dev/shm, all volumes and %s)", strings.Join(s.o.Dirs, ", ")),
		Tip: "--via tar needs no program in the container",
	}
	slices.Sort(full) // one that is mounted was looked at twice
	if full = slices.Compact(full); len(full) > 0 {
		e.Err = fmt.Errorf("no directory of the container that can be written and may execute has %d MiB left (full: %s)", (size+1<<20-1)>>20, strings.Join(full, ", "))
		e.Tip = "make room there; " + e.Tip
	}
	return e
}

// bodyOf is what is sent of a program.
func bodyOf(program []byte, packed bool) ([]byte, error) {
	if packed {
		return program, nil
	}
	r, err := gzip.NewReader(bytes.NewReader(program))
	if err != nil {
		return nil, fmt.Errorf("unpack the agent: %w", err)
	}
	return io.ReadAll(r)
}

// readLine reads a line and not a byte more.
func readLine(r io.Reader) (string, error) {
	var line []byte
	b := make([]byte, 1)
	for len(line) < 4<<10 {
		if _, err := io.ReadFull(r, b); err != nil {
			return "", err
		}
		if b[0] == '\n' {
			return string(line), nil
		}
		line = append(line, b[0])
	}
	return "", &wire.FrameError{Reason: fmt.Sprintf("it begins with %q", line[:60])}
}
