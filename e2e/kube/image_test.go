//go:build linux

package kube

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
)

var ownOnce sync.Once

// ownImages gives promdump's own image, as a release has it: from scratch, with two
// programs and nothing else; and one that has its name, and another program inside.
func ownImages(t *testing.T) (own, wrong string) {
	t.Helper()
	own, wrong = "rig.local/promdump:1", "rig.local/wrong/promdump:1"
	c := booted(t)
	ownOnce.Do(func() { c.load(t, own, wrong) })
	return own, wrong
}

func (c *cluster) load(t *testing.T, own, wrong string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "image.tar")
	make := exec.Command(filepath.Join(c.dir, "bin", "mkimage"), file)
	make.Stdin = strings.NewReader(fmt.Sprintf(`
layer own
file %[1]s /usr/bin/promdump
file %[2]s /usr/bin/promdump-agent
dir /tmp 1777
image %[3]s own user=65534 entry=/usr/bin/promdump
layer wrong
file %[1]s /bin/sh
image %[4]s wrong user=65534
`, program(t, "promdump"), filepath.Join(filepath.Dir(program(t, "promdump")), "agents", "promdump-agent-linux-"+runtime.GOARCH), own, wrong))
	if out, err := make.CombinedOutput(); err != nil {
		t.Fatalf("mkimage: %v\n%s", err, out)
	}
	ctr := exec.Command(filepath.Join(c.dir, "deb", "usr", "bin", "ctr"), "-a", filepath.Join(filepath.Dir(c.config), "run", "containerd.sock"), "-n", "k8s.io", "images", "import", file)
	if out, err := ctr.CombinedOutput(); err != nil {
		t.Fatalf("ctr: %v\n%s", err, out)
	}
}
