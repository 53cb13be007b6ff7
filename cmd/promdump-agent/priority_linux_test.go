package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/promdump/promdump/internal/wire"
)

// TestPriority checks that all threads of a running agent have the lowest priority, and with --gentle
// the policy SCHED_IDLE.
func TestPriority(t *testing.T) {
	self := filepath.Join(t.TempDir(), "agent")
	if out, err := exec.Command("go", "build", "-o", self, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, c := range []struct {
		gentle bool
		policy int
	}{{false, unix.SCHED_BATCH}, {true, unix.SCHED_IDLE}} {
		cmd := exec.Command(self, "start")
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		r := bufio.NewReader(out)
		if line, err := r.ReadString('\n'); line != "start\n" {
			t.Fatalf("the agent prints %q, %v", line, err)
		}
		lowest(t, cmd.Process.Pid, unix.SCHED_BATCH)
		call := wire.Call{
			Version: wire.Version, Do: wire.DoInventory, Dirs: []string{t.TempDir()}, Codec: wire.Plain,
			Limits: wire.Limits{Gentle: c.gentle},
		}
		if err := wire.WriteCall(in, call); err != nil {
			t.Fatal(err)
		}
		if _, err := r.ReadByte(); err != nil { // the agent waits until its response is received
			t.Fatal(err)
		}
		lowest(t, cmd.Process.Pid, c.policy)
		in.Close()
		_, _ = io.Copy(io.Discard, r)
		_ = cmd.Wait() // fails: the directory is not a data directory
	}
}

// lowest checks the nice value, the scheduling policy and the I/O class of all threads of a process.
func lowest(t *testing.T, pid, policy int) {
	t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil || len(tasks) < 2 {
		t.Fatalf("%v, %v: expected several threads", tasks, err)
	}
	for _, task := range tasks {
		b, err := os.ReadFile(task)
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(b), ") ")
		words := strings.Fields(rest) // from field 3 of proc_pid_stat(5)
		if words[16] != "19" || words[38] != fmt.Sprint(policy) {
			t.Errorf("%s: nice %s, policy %s, want 19, %d", task, words[16], words[38], policy)
		}
		tid := filepath.Base(filepath.Dir(task))
		var id int
		if _, err := fmt.Sscan(tid, &id); err != nil {
			t.Fatal(err)
		}
		const process, idle = 1, 3 // see linux/ioprio.h
		if class, _, e := unix.Syscall(unix.SYS_IOPRIO_GET, process, uintptr(id), 0); e != 0 || class>>13 != idle {
			t.Errorf("%s: I/O class %d, %v", task, class>>13, e)
		}
	}
}
