package apply

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

// freeze keeps the servers at work in a data directory from opening any file, and returns
// how many there are. They keep the files that they have open, and can end as usual; they
// could not go on with a data directory that is not theirs any more.
//
// The limit of open files is the only property of such a process that another one of the
// same user can change: the first process of a container cannot be stopped from within.
func freeze(dir string) int { return limitFiles(dir, func(l *unix.Rlimit) { l.Cur = 0 }) }

// thaw undoes freeze. A Go program has raised its limit as far as it goes.
func thaw(dir string) {
	limitFiles(dir, func(l *unix.Rlimit) {
		if l.Cur == 0 {
			l.Cur = l.Max
		}
	})
}

func limitFiles(dir string, change func(*unix.Rlimit)) (n int) {
	for _, pid := range Servers(dir) {
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

// Servers returns the processes that write into a data directory, as far as this process
// may see them.
func Servers(dir string) (pids []int) {
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

// writes reports whether a process has the lock or a part of the head open for writing. A
// dump only reads.
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
