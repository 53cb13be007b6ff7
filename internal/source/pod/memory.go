package pod

import (
	"strconv"
	"strings"
	"time"
)

// What runs in the server's container is charged to the server's memory cgroup, and
// the kernel kills the server when the limit of that is reached. These are the parts,
// in bytes, as docs/security.md says how they were measured.
const (
	// execMemory is for one command like cat: the runtime's own process, which enters
	// the cgroup before it becomes the command, is the larger part.
	execMemory = 2 << 20

	// shellMemory is for the sh, head and gzip that take the agent in.
	shellMemory = 2 << 20

	// tarMemory is for a tar that reads files and writes to a pipe. The page cache of
	// what it reads can be taken back.
	tarMemory = 1 << 20

	// fileMemory is for the agent's file: dirty page cache while it is uploaded, or a
	// tmpfs, and then the pages of the program that runs.
	fileMemory = 9 << 20

	// agentMemory is the least that the agent works with, beside its file. It takes more
	// where more is left, and stops itself before too little is left.
	agentMemory = 8 << 20

	// RemoteReadNeed must be free for a server that answers remote reads.
	RemoteReadNeed = 8 << 20

	// marginMemory is for the server itself, which goes on allocating between the check
	// and the end of the dump.
	marginMemory = 4 << 20
)

// AgentNeed returns the memory that must be free for an agent and its upload, in bytes.
func AgentNeed() int64 { return execMemory + shellMemory + fileMemory + agentMemory + marginMemory }

// ExecNeed returns the memory that must be free for commands that are tried one after the
// other, in bytes.
func ExecNeed() int64 { return execMemory + marginMemory }

// TarNeed returns the memory that must be free for a tar that reads, in bytes.
func TarNeed() int64 { return execMemory + tarMemory + marginMemory }

// Memory is the state of a container's memory cgroup.
type Memory struct {
	Limit int64 // bytes; 0: none

	// Used is what the kernel cannot take back at once, in bytes: the usage without
	// the inactive page cache that is clean. Active page cache counts as used, since
	// most of it is the server's program and the blocks that it has mapped. kubectl
	// top shows the same, but for the dirty part.
	Used int64

	Kills int64         // processes that the kernel has killed there for lack of memory
	Age   time.Duration // of the container's first process; 0: not known
}

// Free returns what is left below the limit, in bytes. It is not negative.
func (m Memory) Free() int64 { return max(0, m.Limit-m.Used) }

// Tight reports whether a file in memory would matter: the free memory is less than
// twice what is needed.
func (m Memory) Tight(need int64) bool { return m.Limit > 0 && m.Free() < 2*need }

// MemoryCommand returns the command whose output [ParseMemory] reads. It is one
// program without a shell, since each process is charged to the container. Of two
// versions of cgroups one is there, so it fails in part.
func MemoryCommand() []string {
	const v2, v1 = "/sys/fs/cgroup/", "/sys/fs/cgroup/memory/"
	return []string{
		"cat",
		v2 + "memory.max", v2 + "memory.current", v2 + "memory.events", v2 + "memory.stat",
		v1 + "memory.limit_in_bytes", v1 + "memory.usage_in_bytes", v1 + "memory.oom_control", v1 + "memory.stat",
		"/proc/uptime", "/proc/1/stat",
	}
}

const (
	// unlimited is above every real limit: version 1 has a number for none, the
	// largest multiple of the page size.
	unlimited = 1 << 60

	// clockTick is what /proc counts time in on all of Linux' machines.
	clockTick = 10 * time.Millisecond
)

// ParseMemory reads the output of [MemoryCommand]. If ok is false the memory is not
// in it: without a cgroup namespace a container sees the root's, which has no usage.
// Age may be known all the same.
func ParseMemory(text string) (m Memory, ok bool) {
	var plain []string // lines that are one word: limit and usage, in this order
	stat := map[string]int64{}
	var uptime time.Duration
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		switch {
		case len(words) == 1:
			plain = append(plain, words[0])
		case len(words) == 2 && strings.Contains(words[0], "."):
			uptime = seconds(words[0])
		case len(words) == 2:
			if n, err := strconv.ParseInt(words[1], 10, 64); err == nil {
				stat[words[0]] = n
			}
		case len(words) > 20:
			m.Age = age(line, uptime)
		}
	}
	m.Kills = stat["oom_kill"]
	if len(plain) != 2 {
		return m, false
	}
	used, err := strconv.ParseInt(plain[1], 10, 64)
	if err != nil || used < 0 {
		return m, false
	}
	if plain[0] != "max" {
		if m.Limit, err = strconv.ParseInt(plain[0], 10, 64); err != nil || m.Limit < 0 {
			return m, false
		}
	}
	// Version 1 shows the lowest limit of the cgroups above, too.
	if above, ok := stat["hierarchical_memory_limit"]; ok && above > 0 && (m.Limit == 0 || above < m.Limit) {
		m.Limit = above
	}
	if m.Limit >= unlimited {
		m.Limit = 0
	}
	m.Used = max(0, used-reclaimable(stat))
	return m, true
}

// reclaimable is the page cache that the kernel gives up before it kills: inactive,
// and not still to be written. Those of a tmpfs are not among these pages.
func reclaimable(stat map[string]int64) int64 {
	for _, v := range []struct{ cache, dirty, writeback string }{
		{"total_inactive_file", "total_dirty", "total_writeback"}, // version 1; its own keys without total_ leave out cgroups below
		{"inactive_file", "file_dirty", "file_writeback"},
	} {
		if cache, ok := stat[v.cache]; ok {
			return max(0, cache-max(0, stat[v.dirty])-max(0, stat[v.writeback]))
		}
	}
	return 0
}

func seconds(text string) time.Duration {
	s, err := strconv.ParseFloat(text, 64)
	if err != nil || s < 0 || s > float64(1<<62)/float64(time.Second) {
		return 0
	}
	return time.Duration(s * float64(time.Second))
}

// age is how long a process has run, by the line of its stat. Its name, in
// parentheses, may have spaces.
func age(line string, uptime time.Duration) time.Duration {
	const started = 19 // words behind the name
	end := strings.LastIndex(line, ") ")
	if end < 0 || uptime == 0 {
		return 0
	}
	words := strings.Fields(line[end+2:])
	if len(words) <= started {
		return 0
	}
	ticks, err := strconv.ParseInt(words[started], 10, 64)
	if err != nil || ticks < 0 || ticks > int64(1<<62/clockTick) {
		return 0
	}
	return max(0, uptime-time.Duration(ticks)*clockTick)
}
