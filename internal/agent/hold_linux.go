package agent

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/promdump/promdump/internal/datadir"
)

// hold keeps the servers at work in a data dir from opening any file, and tells
// how many there are. What they have open they keep: they can still end as they
// should. They could not go on with a data dir that is not theirs any more.
//
// Its limit is the only thing of such a process that another one of the same user
// can change: the first process of a container cannot be stopped from within.
func hold(dir string) int { return limitFiles(dir, func(l *unix.Rlimit) { l.Cur = 0 }) }

// release gives back what hold took. A Go program has raised its limit as far as
// it goes.
func release(dir string) {
	limitFiles(dir, func(l *unix.Rlimit) {
		if l.Cur == 0 {
			l.Cur = l.Max
		}
	})
}

func limitFiles(dir string, change func(*unix.Rlimit)) (n int) {
	for _, pid := range servers(dir) {
		var l unix.Rlimit
		if unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &l) != nil {
			continue
		}
		change(&l)
		if unix.Prlimit(pid, unix.RLIMIT_NOFILE, &l, nil) == nil {
			n++
		}
	}
	return n
}

// servers are the processes that write into a data dir, as far as we may see them.
func servers(dir string) (pids []int) {
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return nil
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil && pid != os.Getpid() && writes(pid, real) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// writes tells whether a process has the lock or a part of the head open to write.
// Who dumps it only reads.
func writes(pid int, dir string) bool {
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		return false // another user's, or gone
	}
	for _, fd := range fds {
		path, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", pid, fd.Name()))
		if err != nil {
			continue
		}
		name, in := strings.CutPrefix(path, strings.TrimSuffix(dir, "/")+"/")
		if first, rest, _ := strings.Cut(name, "/"); strings.HasPrefix(first, datadir.AsidePrefix) {
			name = rest // they were moved
		}
		head := strings.HasPrefix(name, "wal/") || strings.HasPrefix(name, "wbl/") || strings.HasPrefix(name, "chunks_head/")
		if in && (name == "lock" || head) && toWrite(fmt.Sprintf("/proc/%d/fdinfo/%s", pid, fd.Name())) {
			return true
		}
	}
	return false
}

func toWrite(info string) bool {
	b, err := os.ReadFile(info)
	if err != nil {
		return false
	}
	for lines := bufio.NewScanner(bytes.NewReader(b)); lines.Scan(); {
		if text, ok := strings.CutPrefix(lines.Text(), "flags:"); ok {
			flags, err := strconv.ParseInt(strings.TrimSpace(text), 8, 64)
			return err == nil && flags&unix.O_ACCMODE != unix.O_RDONLY
		}
	}
	return false
}
