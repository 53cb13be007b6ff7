package agent

import (
	"bytes"
	"fmt"
	"io/fs"
	"strconv"
)

// MemoryError says that the container has too little memory for us. Who takes
// the last of it makes the kernel kill something, and that may be Prometheus.
type MemoryError struct{ Free, Need, Limit int64 } // bytes

func (e *MemoryError) Error() string {
	return fmt.Sprintf("the container has %d MiB of its %d MiB of memory left, and the agent may take %d MiB: not started, so that Prometheus is not killed",
		e.Free>>20, e.Limit>>20, e.Need>>20)
}

// Hint says what to do about it.
func (e *MemoryError) Hint() string {
	return "--memory-limit lets the agent take less (it needs 32MiB rarely more), or raise the container's limit"
}

// enoughMemory tells whether the container that cgroup belongs to can spare need
// bytes. Without a limit, or where it cannot be read, it can.
func enoughMemory(cgroup fs.FS, need int64) error {
	for _, v := range []struct{ limit, usage, stat, cache string }{
		{"memory.max", "memory.current", "memory.stat", "inactive_file"},
		{"memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"},
	} {
		limit, ok1 := readNumber(cgroup, v.limit)
		usage, ok2 := readNumber(cgroup, v.usage)
		if !ok1 || !ok2 {
			continue // "max" is no number either
		}
		// The page cache counts as used and is given back when it is needed.
		free := limit - (usage - readStat(cgroup, v.stat, v.cache))
		if free < need {
			return &MemoryError{Free: max(free, 0), Need: need, Limit: limit}
		}
		return nil
	}
	return nil
}

func readNumber(cgroup fs.FS, name string) (int64, bool) {
	b, err := fs.ReadFile(cgroup, name)
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseInt(string(bytes.TrimSpace(b)), 10, 64)
	return n, err == nil
}

func readStat(cgroup fs.FS, name, key string) int64 {
	b, err := fs.ReadFile(cgroup, name)
	if err != nil {
		return 0
	}
	for line := range bytes.Lines(b) {
		if k, v, ok := bytes.Cut(bytes.TrimSpace(line), []byte(" ")); ok && string(k) == key {
			n, err := strconv.ParseInt(string(v), 10, 64)
			if err == nil {
				return n
			}
		}
	}
	return 0
}
