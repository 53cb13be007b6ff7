package agent

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// What ioprio_set takes, see linux/ioprio.h.
const (
	ioprioWhoProcess = 1
	ioprioIdle       = 3 << 13 // class idle: the disk is used when no one else does
)

// Priority is how much of a machine a process takes for itself.
type Priority int

const (
	// Background has a share of the CPU, the smallest: nice 19, SCHED_BATCH.
	Background Priority = iota
	// Idle runs on idle CPUs only: SCHED_IDLE. On a machine that has nothing left
	// it stands nearly still. There is no way back from it.
	Idle
)

// Lower gives all threads of this process, and those to come, a priority, and the idle
// class of the disk. The error is for a log: a container may forbid it, and a dump goes
// on.
func Lower(p Priority) error {
	policy := uint32(unix.SCHED_BATCH)
	if p == Idle {
		policy = unix.SCHED_IDLE
	}
	// A thread has the priority of the one that made it, and one that is not in the
	// list yet may be made by one that is not lowered yet: until a list has no new one.
	var all error
	for lowered := map[int]bool{}; ; {
		tids, err := threadsOf("/proc/self/task")
		if err != nil {
			return errors.Join(err, lowerThread(0, policy)) // no /proc: what can be had
		}
		found := false
		for _, tid := range tids {
			if lowered[tid] {
				continue
			}
			found, lowered[tid] = true, true
			if err := lowerThread(tid, policy); err != nil {
				all = err // the same for all
			}
		}
		if !found {
			return all
		}
	}
}

func threadsOf(dir string) (tids []int, err error) {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if tid, err := strconv.Atoi(e.Name()); err == nil {
			tids = append(tids, tid)
		}
	}
	return tids, err
}

// lowerThread lowers one. One that has ended meanwhile is no error.
func lowerThread(tid int, policy uint32) (all error) {
	note := func(what string, err error) {
		if err != nil && !errors.Is(err, unix.ESRCH) {
			all = errors.Join(all, fmt.Errorf("%s: %w", what, err))
		}
	}
	note("set nice 19", unix.Setpriority(unix.PRIO_PROCESS, tid, 19))
	note("set the scheduling policy", unix.SchedSetAttr(tid, &unix.SchedAttr{Policy: policy, Nice: 19}, 0))
	_, _, e := unix.Syscall(unix.SYS_IOPRIO_SET, ioprioWhoProcess, uintptr(tid), ioprioIdle)
	if e != 0 {
		note("set the idle class of the disk", e)
	}
	return all
}
