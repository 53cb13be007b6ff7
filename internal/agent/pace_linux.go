package agent

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/promdump/promdump/internal/restore/apply"
)

const (
	// watchedThreads bounds the files that a watch keeps open.
	watchedThreads = 256

	threadsAgain   = time.Second            // threads are listed again
	throttledAgain = 100 * time.Millisecond // the period of a CPU limit
)

// serverWatch reads how long the threads of the server run and wait for a CPU:
// /proc/PID/task/TID/schedstat, which everybody may read.
type serverWatch struct {
	proc    string // usually /proc
	pids    []int
	cgroup  fs.FS
	stat    string // file in cgroup; empty: none
	threads map[string]*thread

	listed, statRead time.Time
	throttled        int64
}

type thread struct {
	file        *os.File
	ran, waited int64 // nanoseconds, all of its life
}

// watchServer watches the processes that write into a data dir, or what has a name where
// these cannot be seen; "": nothing then. It is nil if there is none.
func watchServer(proc string, cgroup fs.FS, dir, name string) *serverWatch {
	w := &serverWatch{proc: proc, pids: apply.Servers(dir), cgroup: cgroup, threads: map[string]*thread{}}
	if len(w.pids) == 0 && name != "" {
		w.pids = named(proc, name)
	}
	for _, name := range []string{"cpu.stat", "cpu/cpu.stat", "cpu,cpuacct/cpu.stat"} {
		if n, ok := statNumber(cgroup, name, "nr_throttled"); ok {
			w.stat, w.throttled = name, n
			break
		}
	}
	w.list()
	if len(w.threads) == 0 {
		return nil
	}
	return w
}

// String is for a log.
func (w *serverWatch) String() string {
	return fmt.Sprintf("processes %v, %d threads, CPU limit by %q", w.pids, len(w.threads), w.stat)
}

// named are the processes of a name that are not ours.
func named(proc, name string) (pids []int) {
	all, _ := filepath.Glob(filepath.Join(proc, "[0-9]*", "comm")) // the pattern is right
	for _, path := range all {
		text, err := os.ReadFile(path)
		if err != nil || string(bytes.TrimSpace(text)) != name {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path))); err == nil && pid != os.Getpid() {
			pids = append(pids, pid)
		}
	}
	return pids
}

// list finds threads that are new. Those that have ended are found when they are read.
func (w *serverWatch) list() {
	w.listed = time.Now()
	for _, pid := range w.pids {
		tasks := filepath.Join(w.proc, strconv.Itoa(pid), "task")
		entries, err := os.ReadDir(tasks)
		if err != nil {
			continue // it has ended
		}
		for _, e := range entries {
			path := filepath.Join(tasks, e.Name(), "schedstat")
			if w.threads[path] != nil || len(w.threads) >= watchedThreads {
				continue
			}
			f, err := os.Open(path)
			if err != nil {
				continue
			}
			t := &thread{file: f}
			if t.read() {
				w.threads[path] = t
			} else {
				f.Close()
			}
		}
	}
}

// read updates the counters.
func (t *thread) read() bool {
	var buf [96]byte
	n, err := unix.Pread(int(t.file.Fd()), buf[:], 0)
	if err != nil {
		return false
	}
	ran, rest, _ := bytes.Cut(buf[:n], []byte(" "))
	waited, _, ok := bytes.Cut(rest, []byte(" "))
	r, err1 := strconv.ParseInt(string(ran), 10, 64)
	d, err2 := strconv.ParseInt(string(waited), 10, 64)
	if !ok || err1 != nil || err2 != nil {
		return false
	}
	t.ran, t.waited = r, d
	return true
}

// look implements signal.
func (w *serverWatch) look() (l load, ok bool) {
	now := time.Now()
	if now.Sub(w.listed) > threadsAgain {
		w.list()
	}
	for path, t := range w.threads {
		ran, waited := t.ran, t.waited
		if !t.read() {
			t.file.Close()
			delete(w.threads, path)
			continue
		}
		l.ran += time.Duration(t.ran - ran)
		l.waited += time.Duration(t.waited - waited)
	}
	if w.stat != "" && now.Sub(w.statRead) > throttledAgain {
		w.statRead = now
		n, _ := statNumber(w.cgroup, w.stat, "nr_throttled")
		l.throttled = n > w.throttled
		w.throttled = n
	}
	return l, len(w.threads) > 0
}

// close implements signal.
func (w *serverWatch) close() {
	for _, t := range w.threads {
		t.file.Close()
	}
	w.threads = nil
}

// statNumber is a number of a file with a key and a number in each line.
func statNumber(cgroup fs.FS, name, key string) (int64, bool) {
	b, err := fs.ReadFile(cgroup, name)
	if err != nil {
		return 0, false
	}
	for line := range bytes.Lines(b) {
		if k, v, ok := bytes.Cut(bytes.TrimSpace(line), []byte(" ")); ok && string(k) == key {
			n, err := strconv.ParseInt(string(v), 10, 64)
			return n, err == nil
		}
	}
	return 0, false
}
