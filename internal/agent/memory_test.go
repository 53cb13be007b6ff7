package agent

import (
	"errors"
	"fmt"
	"testing"
	"testing/fstest"
)

func cgroup(files map[string]string) fstest.MapFS {
	m := fstest.MapFS{}
	for name, text := range files {
		m[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return m
}

func v2(limit string, usage, cache int64) fstest.MapFS {
	return cgroup(map[string]string{
		"memory.max": limit + "\n", "memory.current": fmt.Sprintf("%d\n", usage),
		"memory.stat": fmt.Sprintf("anon 5\ninactive_file %d\nactive_file 7\n", cache),
	})
}

func v1(limit, usage, cache int64) fstest.MapFS {
	return cgroup(map[string]string{
		"memory/memory.limit_in_bytes": fmt.Sprintf("%d\n", limit), "memory/memory.usage_in_bytes": fmt.Sprintf("%d\n", usage),
		"memory/memory.stat": fmt.Sprintf("cache 9\ntotal_inactive_file %d\n", cache),
	})
}

func TestEnoughMemory(t *testing.T) {
	const mib = 1 << 20
	for what, c := range map[string]struct {
		cgroup fstest.MapFS
		free   int64 // -1: enough
	}{
		"no limit":              {v2("max", 900*mib, 0), -1},
		"plenty":                {v2(fmt.Sprint(256*mib), 100*mib, 0), -1},
		"exactly":               {v2(fmt.Sprint(256*mib), 192*mib, 0), -1},
		"a byte too few":        {v2(fmt.Sprint(256*mib), 192*mib+1, 0), 64*mib - 1},
		"full of cache":         {v2(fmt.Sprint(256*mib), 256*mib, 200*mib), -1},
		"more than the limit":   {v2(fmt.Sprint(256*mib), 300*mib, 0), 0},
		"old, plenty":           {v1(256*mib, 100*mib, 0), -1},
		"old, too little":       {v1(256*mib, 240*mib, 10*mib), 26 * mib},
		"old, without a limit":  {v1(9223372036854771712, 240*mib, 0), -1},
		"nothing can be read":   {fstest.MapFS{}, -1},
		"nonsense in the files": {v2("lots", 1, 1), -1},
	} {
		err := enoughMemory(c.cgroup, 64*mib)
		short, ok := errors.AsType[*MemoryError](err)
		if ok != (c.free >= 0) || ok && short.Free != c.free {
			t.Errorf("%s: %v", what, err)
		}
	}
}
