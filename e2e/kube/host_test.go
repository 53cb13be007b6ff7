//go:build linux

package kube

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// process is one in a container, as this machine sees it.
type process struct {
	pid       int    // on this machine
	inside    int    // in the container
	name      string // at most 15 bytes
	args      string // empty for a zombie
	zombie    bool
	rss, peak int64 // bytes
}

func (p process) String() string {
	return fmt.Sprintf("%d %s (%s) zombie=%v %.1f MiB", p.inside, p.name, p.args, p.zombie, float64(p.rss)/(1<<20))
}

// host gives the pid of the container's first process on this machine. It knows
// a container that was started anew.
func (p *pod) host() int {
	p.t.Helper()
	pid, err := p.lookup()
	if err != nil {
		p.t.Fatalf("%v: %s", err, p.describe())
	}
	return pid
}

// lookup is host for goroutines that are not the test's.
func (p *pod) lookup() (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pid != 0 && alive(p.pid) && ofContainer(p.pid, p.id) {
		return p.pid, nil
	}
	s, err := p.status()
	if err != nil {
		return 0, err
	}
	_, id, ok := strings.Cut(s.ContainerID, "://")
	if !ok {
		return 0, fmt.Errorf("the container does not run")
	}
	all, err := pids()
	if err != nil {
		return 0, err
	}
	for _, pid := range all {
		if ofContainer(pid, id) && readProcess(pid).inside == 1 {
			p.id, p.pid = id, pid
			return pid, nil
		}
	}
	return 0, fmt.Errorf("container %s has no process on this machine", id)
}

func ofContainer(pid int, id string) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	return err == nil && strings.Contains(string(b), id)
}

func pids() (all []int, err error) {
	entries, err := os.ReadDir("/proc")
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			all = append(all, pid)
		}
	}
	return all, err
}

// alive is false for a zombie.
func alive(pid int) bool {
	p := readProcess(pid)
	return p.pid != 0 && !p.zombie
}

func readProcess(pid int) process {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return process{}
	}
	p := process{pid: pid}
	for line := range strings.Lines(string(b)) {
		key, value, _ := strings.Cut(line, ":")
		words := strings.Fields(value)
		if len(words) == 0 {
			continue
		}
		number := func(s string) int64 {
			n, _ := strconv.ParseInt(s, 10, 64) // the kernel's own numbers
			return n
		}
		switch key {
		case "Name":
			p.name = words[0]
		case "State":
			p.zombie = words[0] == "Z" || words[0] == "X"
		case "NSpid":
			p.inside = int(number(words[len(words)-1]))
		case "VmRSS":
			p.rss = number(words[0]) << 10
		case "VmHWM":
			p.peak = number(words[0]) << 10
		}
	}
	args, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)) // gone meanwhile: none
	p.args = strings.TrimSpace(strings.ReplaceAll(string(args), "\x00", " "))
	return p
}

// processes are all in the container, also those that were exec'ed and the dead
// that nobody buried, in the order of their pids.
func (p *pod) processes() (all []process) {
	p.t.Helper()
	// By the PID namespace, not by the cgroup: a debug container has its own cgroup.
	space, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", p.host()))
	if err != nil {
		p.t.Fatal(err)
	}
	numbers, err := pids()
	if err != nil {
		p.t.Fatal(err)
	}
	for _, pid := range numbers {
		if link, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", pid)); err == nil && link == space {
			if one := readProcess(pid); one.pid != 0 {
				all = append(all, one)
			}
		}
	}
	slices.SortFunc(all, func(a, b process) int { return a.inside - b.inside })
	return all
}

// path is where this machine finds a path of the container's.
func (p *pod) path(path string) string {
	p.t.Helper()
	return filepath.Join(fmt.Sprintf("/proc/%d/root", p.host()), path)
}

// files are all files below a directory of the container, volumes and /dev/shm
// included, but for /proc and /sys: by their path there.
func (p *pod) files(below string) map[string]fs.FileInfo {
	p.t.Helper()
	top := fmt.Sprintf("/proc/%d/root", p.host())
	all := map[string]fs.FileInfo{}
	err := filepath.WalkDir(top+below+"/", func(path string, e fs.DirEntry, err error) error { // with its slash: the top is a link
		if errors.Is(err, fs.ErrNotExist) {
			return nil // the server deletes files
		}
		if err != nil {
			return err
		}
		inside := filepath.Clean(strings.TrimPrefix(path, top))
		if inside == "/proc" || inside == "/sys" {
			return fs.SkipDir
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		all[inside] = info
		return err
	})
	if err != nil {
		p.t.Fatalf("look into the container: %v", err)
	}
	return all
}

// noexec keeps programs on a mounted volume of the container from being run,
// from now on.
func (p *pod) noexec(path string) {
	p.t.Helper()
	err := within(p.host(), "mnt", func() error {
		return unix.Mount("", path, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_NOEXEC, "")
	})
	if err != nil {
		p.t.Fatalf("mount %s noexec: %v", path, err)
	}
}

// dial is from within the container: its network cannot be reached from outside.
// Unlike a port-forward it needs no apiserver.
func (p *pod) dial(ctx context.Context, network, addr string) (conn net.Conn, err error) {
	pid, err := p.lookup()
	if err != nil {
		return nil, err
	}
	err = within(pid, "net", func() (err error) {
		conn, err = (&net.Dialer{}).DialContext(ctx, network, addr)
		return err
	})
	return conn, err
}

// within runs f in a namespace of a process: mnt or net.
func within(pid int, space string, f func() error) error {
	done := make(chan error)
	go func() {
		// Never unlocked: the thread ends with the goroutine, and no other one
		// finds itself in the namespace.
		runtime.LockOSThread()
		done <- func() error {
			ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/%s", pid, space))
			if err != nil {
				return err
			}
			defer ns.Close()
			if space == "mnt" { // refused to a thread that shares its root with others
				if err := unix.Unshare(unix.CLONE_FS); err != nil {
					return err
				}
			}
			if err := unix.Setns(int(ns.Fd()), 0); err != nil {
				return err
			}
			return f()
		}()
	}()
	return <-done
}
