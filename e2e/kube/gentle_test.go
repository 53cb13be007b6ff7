//go:build linux

package kube

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestAgentPriority: under the usual seccomp profile, and without any capability, all
// threads of an agent in a container have the lowest priority; a gentle dump sees its
// server, and is a dump.
func TestAgentPriority(t *testing.T) {
	p := startPod(t, "ro", podOptions{data: seed(t).dir, quiet: true})
	for _, c := range []struct {
		args   []string
		policy int
	}{{nil, unix.SCHED_BATCH}, {[]string{"--gentle"}, unix.SCHED_IDLE}} {
		file := filepath.Join(t.TempDir(), "x.tar.gz")
		cmd := pluginCommand(t, p.cluster.config, append([]string{"-n", p.namespace, "-p", p.name, "--min-time", "0", "--bandwidth", "1MB", "--debug", "-t", file}, c.args...)...)
		var stderr strings.Builder
		cmd.Stderr = &stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		seen := ""
		if !poll(30*time.Second, func() bool {
			seen = ""
			for _, x := range p.processes() {
				if strings.Contains(x.args, agentFile) && !strings.Contains(x.args, "sh -c") {
					seen = priorities(x.pid)
				}
			}
			return seen == fmt.Sprintf("nice 19, policy %d", c.policy)
		}) {
			t.Errorf("%v: the agent's threads have %q, and not policy %d", c.args, seen, c.policy)
		}
		if err := cmd.Wait(); err != nil {
			t.Fatalf("%v: %v\n%s", c.args, err, stderr.String())
		}
		if !strings.Contains(stderr.String(), "the server sets the pace") || strings.Contains(stderr.String(), "cannot be watched") {
			t.Errorf("%v: the agent does not watch the server:\n%s", c.args, stderr.String())
		}
		if _, err := os.Stat(file); err != nil {
			t.Error(err)
		}
	}
	p.unharmed(nil)
}

// agentFile is in the names of uploaded agents.
const agentFile = ".promdump-agent-"

// priorities says what all threads of a process have; "" where they differ.
func priorities(pid int) (all string) {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid)) // the pattern is right
	for _, task := range tasks {
		b, err := os.ReadFile(task)
		if err != nil {
			continue // it has ended
		}
		_, rest, _ := strings.Cut(string(b), ") ")
		words := strings.Fields(rest) // from the third of proc_pid_stat(5) on
		if len(words) < 39 {
			return ""
		}
		one := fmt.Sprintf("nice %s, policy %s", words[16], words[38])
		if all != "" && all != one {
			return ""
		}
		all = one
	}
	return all
}
