package agent

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"
)

func TestLive(t *testing.T) {
	hold, end := "/usr/bin/promdump-agent\x00hold\x00", "promdump-agent\x00end\x00"
	for _, c := range []struct {
		name  string
		procs []string
		ends  time.Duration // 0: not
	}{
		{"nobody holds it", nil, 60 * time.Second},
		{"other programs' words", []string{"promdump-agent\x00live\x00", "sleep\x00hold\x00", "x\x00promdump-agent\x00hold\x00", "promdump-agent", ""}, 60 * time.Second},
		{"held", []string{hold}, 0},
		{"its last client ends it", []string{hold, end}, time.Second},
		{"one of two clients ends it", []string{hold, hold, end}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				proc := fstest.MapFS{"self/cmdline": {Data: []byte(hold)}, "7/comm": {}}
				for i, line := range c.procs {
					proc[fmt.Sprintf("%d/cmdline", i+1)] = &fstest.MapFile{Data: []byte(line)}
				}
				ended := make(chan struct{})
				began := time.Now()
				go func() { defer close(ended); Live(t.Context(), proc, "promdump-agent", time.Second, 60) }()
				select {
				case <-ended:
					if after := time.Since(began); after != c.ends {
						t.Errorf("it ends after %v, not %v", after, c.ends)
					}
				case <-time.After(10 * time.Minute):
					if c.ends != 0 {
						t.Error("it does not end")
					}
				}
			})
		})
	}
}

func TestOwners(t *testing.T) {
	dir := t.TempDir()
	var b bytes.Buffer
	if err := Owners(&b, []string{dir + "/none", dir}); err != nil {
		t.Fatal(err)
	}
	words := strings.Fields(b.String())
	if len(words) != 5 || !strings.HasPrefix(words[0], "d") || words[2] != fmt.Sprint(os.Getuid()) {
		t.Errorf("it says %q", b.String())
	}
}
