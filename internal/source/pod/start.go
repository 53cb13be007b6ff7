package pod

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/promdump/promdump/internal/wire"
)

// script finds a place for the agent, takes it in and runs it: the first
// directory that can be written and that may execute what is written there. The
// data dir is the last of all, and often the only one that is left when the root
// is read-only. The file is gone as soon as the agent runs, or this ends.
//
// It says what it does in lines on stdout: ready with the machine and whether it
// can unpack, then start; all after that is the agent's. Between the two it takes
// a line with two numbers, of bytes that come and of bytes that the agent has.
const script = `n=$1; shift; f=
trap 'test -z "$f" || rm -f "$f"' 0
trap 'exit 1' 1 2 3 13 15
for d in "$TMPDIR" /tmp /var/tmp "$HOME" /dev/shm /run $(while read -r _ m t o _; do case $t in proc|sysfs|cgroup*|devpts|mqueue|devtmpfs) ;; *) case $o in ro|ro,*|*noexec*) ;; *) echo "$m" ;; esac ;; esac; done 2>/dev/null </proc/mounts) "$@"; do
  test -d "$d" && test -w "$d" || continue
  f=$d/$n
  (umask 077; set -C; echo '#!/bin/sh' >"$f") 2>/dev/null || { f=; continue; }
  chmod 700 "$f" && "$f" 2>/dev/null && break
  rm -f "$f"; f=
done
test -n "$f" || { echo none; exit 1; }
z=raw; command -v gzip >/dev/null 2>&1 && z=gzip
echo "ready $(uname -m 2>/dev/null || echo unknown) $z $f"
read -r in size || exit 1
case $z in
gzip) head -c "$in" | gzip -dc >"$f" ;;
raw) head -c "$in" >"$f" ;;
esac || exit 1
test "$(wc -c <"$f")" -eq "$size" || { echo "the agent did not arrive whole" >&2; exit 1; }
echo start
"$f"
`

// AgentError says that the agent could not be brought to run.
type AgentError struct {
	Err error
	Tip string
}

func (e *AgentError) Error() string { return fmt.Sprintf("the agent could not run: %v", e.Err) }
func (e *AgentError) Unwrap() error { return e.Err }

// ExitCode is that of the command.
func (e *AgentError) ExitCode() int { return 12 }

// Hint says what to do about it.
func (e *AgentError) Hint() string { return e.Tip }

// start uploads the agent and runs it. The conversation that it gives is the
// agent's: the caller closes it.
func (s *Source) start(ctx context.Context) (_ *conversation, err error) {
	name := ".promdump-agent-" + strings.ToLower(rand.Text()[:12])
	// The parents of data dirs are volumes often.
	c := s.run(ctx, append([]string{"sh", "-c", script, "promdump", name}, s.o.Dirs...))
	defer func() {
		if err != nil {
			err = c.explain(err)
			c.close()
		}
	}()
	first, err := readLine(c)
	if none, ok := errors.AsType[*AgentError](err); ok {
		return nil, none
	}
	if err != nil {
		return nil, fmt.Errorf("start a shell in the container: %w", err)
	}
	words := strings.SplitN(first, " ", 4)
	if first == "none" {
		return nil, &AgentError{
			Err: fmt.Errorf("no directory of the container can be written and may execute (looked at /tmp, /var/tmp, /dev/shm, all volumes and %s)", strings.Join(s.o.Dirs, ", ")),
			Tip: "--via tar needs no program in the container",
		}
	}
	if len(words) != 4 || words[0] != "ready" {
		return nil, fmt.Errorf("start a shell in the container: it says %q", first)
	}
	machine, packed, place := words[1], words[2] == "gzip", words[3]
	s.o.Logger.Debug("agent's place", "file", place, "machine", machine, "gzip", packed)
	program, size, err := s.o.Agent(ctx, machine)
	if err != nil {
		return nil, &localError{err}
	}
	body, err := bodyOf(program, packed)
	if err != nil {
		return nil, &localError{err}
	}
	if _, err := fmt.Fprintf(c.in, "%d %d\n", len(body), size); err != nil {
		return nil, fmt.Errorf("upload the agent: %w", err)
	}
	if _, err := io.Copy(c.in, bytes.NewReader(body)); err != nil {
		return nil, fmt.Errorf("upload the agent: %w", err)
	}
	if line, err := readLine(c); err != nil {
		return nil, fmt.Errorf("upload the agent to %s: %w", place, err)
	} else if line != "start" {
		return nil, fmt.Errorf("upload the agent to %s: it says %q", place, line)
	}
	return c, nil
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
