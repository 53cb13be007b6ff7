package agent

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"
	"testing"
	"testing/fstest"
)

const mib = int64(1) << 20

// container is a memory cgroup whose numbers change while it is read.
type container struct {
	version int

	mu                              sync.Mutex
	limit                           string
	usage, inactive, active, unsync int64
	kills                           int64
	reads                           func() // called for each read of the usage
}

func newContainer(version int, limit, usage int64) *container {
	return &container{version: version, limit: fmt.Sprint(limit), usage: usage, reads: func() {}}
}

// change changes it.
func (c *container) change(f func(c *container)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f(c)
}

func (c *container) Open(name string) (fs.File, error) {
	c.mu.Lock()
	files := fstest.MapFS{}
	put := func(name, format string, args ...any) {
		files[name] = &fstest.MapFile{Data: fmt.Appendf(nil, format, args...)}
	}
	usage := "memory.current"
	if c.version == 2 {
		put("memory.max", "%s\n", c.limit)
		put(usage, "%d\n", c.usage)
		put("memory.stat", "anon 5\ninactive_file %d\nactive_file %d\nfile_dirty %d\nfile_writeback 0\n", c.inactive, c.active, c.unsync)
		put("memory.events", "low 0\nhigh 0\nmax 3\noom %d\noom_kill %d\n", c.kills, c.kills)
	} else {
		usage = "memory/memory.usage_in_bytes"
		put("memory/memory.limit_in_bytes", "%s\n", c.limit)
		put(usage, "%d\n", c.usage)
		put("memory/memory.stat", "cache 9\nhierarchical_memory_limit %d\ntotal_inactive_file %d\ntotal_active_file %d\ntotal_dirty %d\ntotal_writeback 0\n",
			200*mib, c.inactive, c.active, c.unsync)
		put("memory/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill %d\n", c.kills)
	}
	reads := c.reads
	c.mu.Unlock()
	if name == usage {
		reads()
	}
	return files.Open(name)
}

func TestFree(t *testing.T) {
	for _, version := range []int{1, 2} {
		c := newContainer(version, 100*mib, 90*mib)
		m := memoryOf(c)
		check := func(what string, want int64) {
			t.Helper()
			if free, ok := m.free(1 << 40); !ok || free != want {
				t.Errorf("v%d, %s: %d bytes are free, not %d (%v)", version, what, free, want, ok)
			}
		}
		check("no page cache", 10*mib)
		c.inactive, c.active = 20*mib, 3*mib
		check("page cache", 33*mib)
		c.unsync = 5 * mib
		check("page cache that is not on the disk yet", 28*mib)
		c.usage = 101 * mib
		c.inactive, c.active, c.unsync = 0, 0, 0
		check("more than the limit", -mib)
		if m.kills() != 0 {
			t.Errorf("v%d: %d kills", version, m.kills())
		}
		c.kills = 2
		if m.kills() != 2 {
			t.Errorf("v%d: %d kills, not 2", version, m.kills())
		}
	}
}

func TestNoLimit(t *testing.T) {
	none := newContainer(2, 0, 900*mib)
	none.limit = "max"
	nonsense := newContainer(2, 0, 1)
	nonsense.limit = "lots"
	for what, cgroup := range map[string]fs.FS{"no limit": none, "nonsense": nonsense, "nothing can be read": fstest.MapFS{}} {
		if take, err := memoryOf(cgroup).room(64 * mib); take != 64*mib || err != nil {
			t.Errorf("%s: %d, %v", what, take, err)
		}
	}
	// A cgroup without a limit within one that has a limit.
	above := newContainer(1, 9223372036854771712, 100*mib)
	if take, err := memoryOf(above).room(1 << 40); take != 100*mib-reserveMemory || err != nil {
		t.Errorf("a limit above: %d, %v", take, err)
	}
}

func TestRoom(t *testing.T) {
	const least = leastMemory + reserveMemory
	for what, c := range map[string]struct{ usage, asked, take, free int64 }{
		"plenty":         {20 * mib, 64 * mib, 64 * mib, 0},
		"exactly":        {100*mib - 64*mib - reserveMemory, 64 * mib, 64 * mib, 0},
		"a byte too few": {100*mib - 64*mib - reserveMemory + 1, 64 * mib, 64*mib - 1, 0},
		"the least":      {100*mib - least, 64 * mib, leastMemory, 0},
		"less":           {100*mib - least + 1, 64 * mib, 0, least - 1},
		"nothing":        {101 * mib, 64 * mib, 0, 0},
	} {
		take, err := memoryOf(newContainer(2, 100*mib, c.usage)).room(c.asked)
		short, refused := errors.AsType[*MemoryError](err)
		if refused != (c.take == 0) || take != c.take || refused && (short.Free != c.free || short.Running) {
			t.Errorf("%s: %d, %v", what, take, err)
		}
	}
}

// blocking is a stdin on which nothing comes after its text until it is closed.
type blocking struct {
	text io.Reader
	end  chan struct{}
}

func (b *blocking) Read(p []byte) (int, error) {
	if n, err := b.text.Read(p); n > 0 || err != io.EOF {
		return n, err
	}
	<-b.end
	return 0, io.EOF
}
