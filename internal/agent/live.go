package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"time"
)

// What a container that has the agent in its image is told, where one with a shell
// gets a script. See package kube for what they are for.
const (
	ToLive = "live"
	ToHold = "hold"
	ToEnd  = "end"
)

// How long a command that holds stays, and one that ends.
const (
	Holds = 31 * time.Second
	Ends  = 5 * time.Second
)

// Live returns when nobody has held the container for as many looks at its
// processes as patience says, or at once when its last client wants that. No
// signal is sent: where the PID namespace is the server's, a mistake would end the
// server.
func Live(ctx context.Context, proc fs.FS, program string, every time.Duration, patience int) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for n := 0; n < patience; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		held, end := holders(proc, program)
		if end && held <= 1 {
			return
		}
		if held > 0 {
			n = 0
		}
	}
}

// holders counts the processes of our program by what they were told. One that
// cannot be looked at has ended, or is another user's.
func holders(proc fs.FS, program string) (held int, end bool) {
	names, _ := fs.Glob(proc, "[0-9]*/cmdline")
	for _, name := range names {
		line, err := fs.ReadFile(proc, name)
		if err != nil {
			continue
		}
		args := bytes.Split(line, []byte{0})
		if len(args) < 2 || path.Base(string(args[0])) != program {
			continue
		}
		switch string(args[1]) {
		case ToHold:
			held++
		case ToEnd:
			end = true
		}
	}
	return held, end
}

// Owners writes a line for each of the paths that is there, as ls -ldn does: the
// third word is the owner.
func Owners(to io.Writer, paths []string) error {
	for _, name := range paths {
		fi, err := os.Lstat(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		links, uid, gid, err := statOf(fi)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintln(to, fi.Mode(), links, uid, gid, name); err != nil {
			return err
		}
	}
	return nil
}
