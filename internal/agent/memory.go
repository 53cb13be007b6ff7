package agent

import (
	"bytes"
	"fmt"
	"io/fs"
	"strconv"
)

// MemoryError reports that the container has too little memory for the agent. The
// process that takes the last of it makes the kernel kill one, and that may be
// Prometheus.
type MemoryError struct {
	Free, Need, Limit int64 // bytes
	Running           bool  // the agent had begun, and stopped
	Killed            bool  // the kernel killed a process of the container
}

func (e *MemoryError) Error() string {
	if e.Killed {
		return "the kernel killed a process of the container for want of memory: the agent stopped itself"
	}
	if e.Running {
		return fmt.Sprintf("the container has %d MiB of its %d MiB of memory left: the agent stopped itself, so that Prometheus is not killed",
			e.Free>>20, e.Limit>>20)
	}
	return fmt.Sprintf("the container has %d MiB of its %d MiB of memory left, and the agent needs %d MiB: not started, so that Prometheus is not killed",
		e.Free>>20, e.Limit>>20, (e.Need+1<<20-1)>>20)
}

// Hint returns what to do about it.
func (e *MemoryError) Hint() string {
	return "--via debug and --via remote-read take no memory of the container for an agent; or raise the container's memory limit"
}

const (
	// defaultMemory is what the agent may take if the request does not say, bytes.
	defaultMemory = 64 << 20

	// leastMemory is what the agent needs beside what it has when a request comes,
	// bytes. See docs/security.md for the measurements.
	leastMemory = 8 << 20

	// tightMemory is below what the agent takes without restraint, bytes. With less than
	// that it does not compress.
	tightMemory = 14 << 20

	// reserveMemory stays free for the server, bytes: the agent neither starts nor goes
	// on where less is left.
	reserveMemory = 4 << 20
)

// memoryFiles names the files of a memory cgroup, and the keys of those with several
// numbers.
type memoryFiles struct {
	limit, usage, stat, events string

	// limits has the lowest limit of this cgroup and those above it. Version 2 hides
	// them from a container.
	limits   string
	cache    []string // page cache: it counts as used, and is given back when it is needed
	unsynced []string // the part of it that must be written first
}

var memoryVersions = []memoryFiles{
	{
		limit: "memory.max", usage: "memory.current", stat: "memory.stat", events: "memory.events",
		cache: []string{"inactive_file", "active_file"}, unsynced: []string{"file_dirty", "file_writeback"},
	},
	{
		limit: "memory/memory.limit_in_bytes", usage: "memory/memory.usage_in_bytes", stat: "memory/memory.stat", events: "memory/memory.oom_control",
		limits: "hierarchical_memory_limit",
		cache:  []string{"total_inactive_file", "total_active_file"}, unsynced: []string{"total_dirty", "total_writeback"},
	},
}

// memory reads what is left of a container's memory.
type memory struct {
	cgroup fs.FS
	files  memoryFiles
	limit  int64
}

// memoryOf returns nil if the cgroup has no limit, or none that can be read.
func memoryOf(cgroup fs.FS) *memory {
	for _, files := range memoryVersions {
		limit, ok1 := readNumber(cgroup, files.limit)
		_, ok2 := readNumber(cgroup, files.usage)
		if !ok1 || !ok2 {
			continue // "max" is no number either
		}
		if above, ok := readStat(cgroup, files.stat)[files.limits]; ok {
			limit = min(limit, above)
		}
		return &memory{cgroup, files, limit}
	}
	return nil
}

// free returns how many bytes can be taken before the kernel kills a process. It may be
// negative for a moment: the kernel itself counts in batches. If at least enough bytes
// are free without the page cache, it does not ask how large that is.
func (m *memory) free(enough int64) (int64, bool) {
	usage, ok := readNumber(m.cgroup, m.files.usage)
	if !ok {
		return 0, false
	}
	free := m.limit - usage
	if free >= enough {
		return free, true
	}
	stat := readStat(m.cgroup, m.files.stat)
	var cache, unsynced int64
	for _, key := range m.files.cache {
		cache += stat[key]
	}
	for _, key := range m.files.unsynced {
		unsynced += stat[key]
	}
	return free + max(cache-unsynced, 0), true
}

// kills returns how many processes of the container the kernel has killed for want of
// memory.
func (m *memory) kills() int64 { return readStat(m.cgroup, m.files.events)["oom_kill"] }

// room returns how many bytes the agent may take: as many as asked, or fewer where the
// container has fewer.
func (m *memory) room(asked int64) (int64, error) {
	if m == nil {
		return asked, nil
	}
	free, ok := m.free(asked + reserveMemory)
	if !ok {
		return asked, nil
	}
	if free < leastMemory+reserveMemory {
		return 0, &MemoryError{Free: max(free, 0), Need: leastMemory + reserveMemory, Limit: m.limit}
	}
	return min(asked, free-reserveMemory), nil
}

func readNumber(cgroup fs.FS, name string) (int64, bool) {
	b, err := fs.ReadFile(cgroup, name)
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseInt(string(bytes.TrimSpace(b)), 10, 64)
	return n, err == nil
}

// readStat reads a file with a name and a number in each line. A file that cannot be
// read has none.
func readStat(cgroup fs.FS, name string) map[string]int64 {
	b, err := fs.ReadFile(cgroup, name)
	if err != nil {
		return nil
	}
	all := map[string]int64{}
	for line := range bytes.Lines(b) {
		key, value, _ := bytes.Cut(bytes.TrimSpace(line), []byte(" "))
		if n, err := strconv.ParseInt(string(value), 10, 64); err == nil {
			all[string(key)] = n
		}
	}
	return all
}
