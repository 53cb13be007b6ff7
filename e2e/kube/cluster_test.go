//go:build linux

package kube

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/promdump/promdump/e2e/internal/programs"
)

const require = "PROMDUMP_E2E_REQUIRE_KUBE"

// cluster is the one that all tests share.
type cluster struct {
	once       sync.Once
	err        error
	why        string // there is none
	scripts    string // ../rig
	dir        string // PROMDUMP_E2E_RIG
	config     string // kubeconfig of the admin
	prometheus string
	locked     *os.File  // not to be collected: that would unlock it
	end        io.Closer // of the watchdog's pipe
	watchdog   *exec.Cmd
}

var shared cluster

func TestMain(m *testing.M) {
	code := m.Run()
	if err := shared.down(); err != nil {
		fmt.Fprintln(os.Stderr, "take the cluster down:", err)
		code = 1
	}
	os.Exit(code)
}

// booted gives the cluster, and skips the test where there can be none.
func booted(t *testing.T) *cluster {
	t.Helper()
	shared.once.Do(func() { shared.err = shared.boot() })
	switch {
	case shared.err != nil:
		t.Fatal(shared.err)
	case shared.why != "" && os.Getenv(require) == "1":
		t.Fatalf("%s, and %s=1", shared.why, require)
	case shared.why != "":
		t.Skipf("SKIPPED, proves nothing here: %s (%s=1 makes this an error)", shared.why, require)
	}
	return &shared
}

func (c *cluster) boot() (err error) {
	if c.scripts, err = filepath.Abs("../rig"); err != nil {
		return err
	}
	if c.dir = os.Getenv("PROMDUMP_E2E_RIG"); c.dir == "" {
		if c.dir, err = programs.Cache("rig"); err != nil {
			return err
		}
	}
	if c.dir, err = filepath.Abs(c.dir); err != nil {
		return err
	}
	if err := os.Setenv("PROMDUMP_E2E_RIG", c.dir); err != nil {
		return err
	}
	c.config = os.Getenv("PROMDUMP_E2E_KUBECONFIG")
	switch {
	case c.config != "": // its containers are looked into from here
		if os.Geteuid() != 0 {
			return fmt.Errorf("PROMDUMP_E2E_KUBECONFIG is set, and without root the cluster's containers cannot be looked into")
		}
	case os.Geteuid() != 0:
		c.why = "no Kubernetes: it takes root to boot one"
		return nil
	case os.Getenv(require) != "1" && !c.built():
		c.why = "no Kubernetes: its programs are not built yet (e2e/rig/build/all.sh, some ten minutes)"
		return nil
	}
	if c.prometheus, err = programs.Prometheus("prometheus"); err != nil {
		return err
	}
	if err := c.lock(); err != nil || c.config != "" {
		return err
	}
	c.config = filepath.Join(c.dir, "state", "admin.kubeconfig")
	if err := c.sweep(); err != nil { // after runs that were killed
		return err
	}
	if os.Getenv("PROMDUMP_E2E_KEEP") != "1" {
		// What a killed run of another time left is not what a test wants to find.
		if out, err := exec.Command(filepath.Join(c.scripts, "down.sh")).CombinedOutput(); err != nil {
			return fmt.Errorf("down.sh: %w\n%s", err, out)
		}
		if err := c.watch(); err != nil {
			return fmt.Errorf("start what takes the cluster down: %w", err)
		}
	}
	begin := time.Now()
	out, err := c.script("up.sh")
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "the cluster is up after %.1f s:\n%s", time.Since(begin).Seconds(), out)
	return nil
}

func (c *cluster) built() bool {
	for _, name := range []string{"kube-apiserver", "kubelet", "kubectl"} {
		if _, err := os.Stat(filepath.Join(c.dir, "bin", name)); err != nil {
			return false
		}
	}
	return true
}

// lock keeps two runs of tests from sharing one cluster: they take it down, and
// kill parts of it. It is held until this process and the watchdog are gone.
func (c *cluster) lock() (err error) {
	if err := os.MkdirAll(c.dir, 0o777); err != nil {
		return err
	}
	if c.locked, err = os.OpenFile(filepath.Join(c.dir, "tests.lock"), os.O_CREATE|os.O_RDWR, 0o666); err != nil {
		return err
	}
	if syscall.Flock(int(c.locked.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
		return nil
	}
	fmt.Fprintln(os.Stderr, "another run of the tests has the cluster: waiting for its end")
	return syscall.Flock(int(c.locked.Fd()), syscall.LOCK_EX)
}

// watch takes the cluster down when this process is gone, however it went: then
// the pipe ends. A test that times out ends without a word to TestMain.
func (c *cluster) watch() error {
	log, err := os.Create(filepath.Join(c.dir, "down.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	c.watchdog = exec.Command("sh", "-c", `cat; exec "$0"`, filepath.Join(c.scripts, "down.sh"))
	c.watchdog.Stdout, c.watchdog.Stderr = log, log // else go test waits for it
	c.watchdog.ExtraFiles = []*os.File{c.locked}
	c.watchdog.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // Ctrl-C is not for it
	if c.end, err = c.watchdog.StdinPipe(); err != nil {
		return err
	}
	return c.watchdog.Start()
}

// sweep removes what tests made in the rig's directory. The lock is held.
func (c *cluster) sweep() (err error) {
	for _, kind := range []string{"seed-*", "plugin-*"} {
		all, e := filepath.Glob(filepath.Join(c.dir, kind))
		err = errors.Join(err, e)
		for _, dir := range all {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}
	return err
}

func (c *cluster) down() error {
	if c.locked != nil {
		if err := c.sweep(); err != nil {
			return err
		}
	}
	if c.watchdog == nil || c.watchdog.Process == nil {
		return nil
	}
	if err := c.end.Close(); err != nil {
		return err
	}
	return c.watchdog.Wait()
}

func (c *cluster) script(name string) (string, error) {
	cmd := exec.Command(filepath.Join(c.scripts, name))
	cmd.Env = append(os.Environ(), "PROMETHEUS="+c.prometheus)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s", name, err, out)
	}
	return string(out), nil
}

// up starts again what has died.
func (c *cluster) up(t *testing.T) {
	t.Helper()
	if _, err := c.script("up.sh"); err != nil {
		t.Fatal(err)
	}
}

// kill ends a part of the cluster by SIGKILL: etcd, containerd, apiserver or
// kubelet. At the end of the test it is there again.
func (c *cluster) kill(t *testing.T, part string) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(filepath.Dir(c.config), "pids", part))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.Fields(string(b))[0])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.up(t) })
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatalf("kill %s: %v", part, err)
	}
	if !poll(10*time.Second, func() bool { return !alive(pid) }) {
		t.Fatalf("%s does not die", part)
	}
}

// poll asks until the answer is yes or the time is over.
func poll(limit time.Duration, yes func() bool) bool {
	for deadline := time.Now().Add(limit); !yes(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			return false
		}
	}
	return true
}
