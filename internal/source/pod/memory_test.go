package pod

import (
	"testing"
	"time"
)

const mib = 1 << 20

// What cat prints in containers of both versions of cgroups. The first is that of
// e2e/rig, shortened.
func TestParseMemory(t *testing.T) {
	const (
		v1stat = `cache 43798528
rss 23486464
inactive_file 1
active_file 5971968
hierarchical_memory_limit 268435456
total_cache 43798528
total_dirty 0
total_writeback 0
total_inactive_file 37826560
total_active_file 5971968
`
		v1oom = "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"
		v2    = "low 0\nhigh 0\nmax 12\noom 1\noom_kill 1\noom_group_kill 0\n"
		self  = "5000.25 9000.00\n1 (prome theus) x) S 0 1 1 0 -1 4194560 5000 0 20 0 100 50 0 0 20 0 8 0 490025 1300000000 6000 18446744073709551615 0 0\n"
		old   = "5000.25 9000.00\n1 (pause) S 0 1 1 0 -1 4194560 5000 0 20 0 100 50 0 0 20 0 8 0 25 1300000000 6000 18446744073709551615 0 0\n"
	)
	for _, c := range []struct {
		name, text string
		want       Memory
		ok         bool
	}{
		{"version 1", "268435456\n72970240\n" + v1oom + v1stat + self, Memory{Limit: 268435456, Used: 72970240 - 37826560, Kills: 3, Age: 100 * time.Second}, true},
		{"version 1, no limit", "9223372036854771712\n72970240\n" + v1oom + "total_inactive_file 100\nhierarchical_memory_limit 9223372036854771712\n" + self,
			Memory{Used: 72970140, Kills: 3, Age: 100 * time.Second}, true},
		{"version 1, the pod's limit", "9223372036854771712\n72970240\n" + v1stat + old,
			Memory{Limit: 268435456, Used: 72970240 - 37826560, Age: 5000 * time.Second}, true},
		{"version 2", "268435456\n104857600\n" + v2 + "anon 80000000\nfile 20000000\nfile_dirty 4096\nfile_writeback 0\ninactive_file 10000000\nactive_file 8000000\n" + self,
			Memory{Limit: 268435456, Used: 104857600 - 10000000 + 4096, Kills: 1, Age: 100 * time.Second}, true},
		{"version 2, no limit", "max\n104857600\n" + v2 + "inactive_file 4\n", Memory{Used: 104857596, Kills: 1}, true},
		{"a tmpfs is not given back", "104857600\n62914560\n" + v2 + "anon 41943040\nfile 20971520\nshmem 20971520\ninactive_file 0\n",
			Memory{Limit: 104857600, Used: 62914560, Kills: 1}, true},
		{"all cache is dirty", "104857600\n62914560\ninactive_file 1000\nfile_dirty 4000\n", Memory{Limit: 104857600, Used: 62914560}, true},
		{"the root cgroup has no usage", "anon 80000000\ninactive_file 10000000\n" + old, Memory{Age: 5000 * time.Second}, false},
		{"the end is lost", "268435456\n", Memory{}, false},
		{"nothing", "", Memory{}, false},
		{"something else", "cat: what\nis this\n-5\nx\n", Memory{}, false},
		{"a negative limit", "-1\n5\n", Memory{Limit: -1}, false},
		{"numbers beyond their type", "99999999999999999999\n5\n", Memory{Limit: 1<<63 - 1}, false},
	} {
		got, ok := ParseMemory(c.text)
		if got != c.want || ok != c.ok {
			t.Errorf("%s: %+v %v, want %+v %v", c.name, got, ok, c.want, c.ok)
		}
	}
}

// What was measured on real containers, and what follows from it.
func TestNeeds(t *testing.T) {
	if free := (Memory{Limit: 100 * mib, Used: 120 * mib}).Free(); free != 0 {
		t.Errorf("%d bytes are free beyond the limit", free)
	}
	if TarNeed() >= AgentNeed() || AgentNeed() < fileMemory+agentMemory {
		t.Error("what needs less does not")
	}
	for free, want := range map[int64]bool{10 * mib: true, 39 * mib: true, 40 * mib: false} {
		if got := (Memory{Limit: 100 * mib, Used: 100*mib - free}).Tight(20 * mib); got != want {
			t.Errorf("%d MiB free, 20 needed: tight %v", free/mib, got)
		}
	}
	if (Memory{Used: 1 << 40}).Tight(20 * mib) {
		t.Error("without a limit it is tight")
	}
}
