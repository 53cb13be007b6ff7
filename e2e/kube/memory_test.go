//go:build linux

package kube

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// memoryGroup is the memory cgroup of a container, as this machine sees it.
type memoryGroup struct {
	dir   string
	files memoryFiles
}

type memoryFiles struct{ limit, usage, cache, peak string }

var (
	memoryV1 = memoryFiles{"memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file", "memory.max_usage_in_bytes"}
	memoryV2 = memoryFiles{"memory.max", "memory.current", "inactive_file", "memory.peak"}
)

// memory finds the memory cgroup of the container that runs now.
func (p *pod) memory() memoryGroup {
	p.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", p.host()))
	if err != nil {
		p.t.Fatal(err)
	}
	unified := ""
	for line := range strings.Lines(string(b)) {
		words := strings.SplitN(strings.TrimSpace(line), ":", 3)
		switch words[1] {
		case "memory":
			return memoryGroup{"/sys/fs/cgroup/memory" + words[2], memoryV1}
		case "":
			unified = words[2]
		}
	}
	return memoryGroup{"/sys/fs/cgroup" + unified, memoryV2}
}

func (m memoryGroup) version() int {
	if m.files == memoryV1 {
		return 1
	}
	return 2
}

// number reads a file that holds one number.
func (m memoryGroup) number(name string) (int64, error) {
	b, err := os.ReadFile(filepath.Join(m.dir, name))
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
}

// stat reads one line of a file with names and numbers.
func (m memoryGroup) stat(file, key string) (int64, error) {
	b, err := os.ReadFile(filepath.Join(m.dir, file))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if words := strings.Fields(line); len(words) == 2 && words[0] == key {
			return strconv.ParseInt(words[1], 10, 64)
		}
	}
	return 0, fmt.Errorf("%s has no %s", file, key)
}

// kills is how many processes of the cgroup the kernel killed for want of memory.
func (m memoryGroup) kills() (int64, error) {
	if m.version() == 1 {
		return m.stat("memory.oom_control", "oom_kill")
	}
	return m.stat("memory.events", "oom_kill")
}

// reclaim drops the page cache that can be dropped.
func (m memoryGroup) reclaim() error {
	if m.version() == 1 {
		return os.WriteFile(filepath.Join(m.dir, "memory.force_empty"), []byte("0"), 0)
	}
	// EAGAIN: less was there than it asks for.
	_ = os.WriteFile(filepath.Join(m.dir, "memory.reclaim"), []byte("1G"), 0)
	return nil
}

// restartPeak lets the peak begin at what is used now. Before Linux 6.12 a cgroup v2
// cannot do that.
func (m memoryGroup) restartPeak() {
	_ = os.WriteFile(filepath.Join(m.dir, m.files.peak), []byte("0"), 0)
}

// ballast is a file in memory that is charged to a container's cgroup, as a tmpfs of
// its own would be. It cannot be reclaimed.
type ballast struct {
	group memoryGroup
	file  string
}

func newBallast(t *testing.T, p *pod) *ballast {
	t.Helper()
	f, err := os.CreateTemp("/dev/shm", "promdump-e2e-ballast-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(f.Name()) })
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return &ballast{p.memory(), f.Name()}
}

// leave makes the ballast so large that the container has exactly so many bytes left:
// its limit, less what is used when all page cache that can be dropped is dropped.
func (b *ballast) leave(t *testing.T, free int64) {
	t.Helper()
	const close = 128 << 10 // the kernel itself counts in batches
	limit, err := b.group.number(b.group.files.limit)
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		if err := b.group.reclaim(); err != nil {
			t.Fatalf("reclaim: %v", err)
		}
		usage, err := b.group.number(b.group.files.usage)
		if err != nil {
			t.Fatal(err)
		}
		more := limit - free - usage
		if -close < more && more < close {
			return
		}
		if err := b.grow(more); err != nil {
			t.Fatalf("ballast: %v", err)
		}
	}
	t.Fatalf("the container's memory does not settle: it has %d bytes of use", limit)
}

// grow adds bytes to the file, or takes some away. Whoever touches a page first pays for
// it, so a process in the container's cgroup adds them.
func (b *ballast) grow(more int64) error {
	info, err := os.Stat(b.file)
	if err != nil {
		return err
	}
	size := info.Size() + more
	if size < 0 {
		return fmt.Errorf("the container uses %d bytes too many without it", -size)
	}
	if more < 0 {
		return os.Truncate(b.file, size)
	}
	const add = `echo $$ >"$0/cgroup.procs" && exec fallocate -l "$1" "$2"`
	out, err := exec.Command("sh", "-c", add, b.group.dir, strconv.FormatInt(size, 10), b.file).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}
