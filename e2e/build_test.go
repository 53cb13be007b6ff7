package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/promdump/promdump/e2e/internal/programs"
)

// binaries are built once for all tests.
type binaries struct {
	once       sync.Once
	err        error
	prometheus string
	promdump   string
	dir        string // of promdump, removed at the end
}

var built binaries

func TestMain(m *testing.M) {
	code := m.Run()
	if built.dir != "" {
		os.RemoveAll(built.dir)
	}
	os.Exit(code)
}

func binary(t *testing.T) *binaries {
	t.Helper()
	built.once.Do(func() { built.err = built.build() })
	if built.err != nil {
		t.Fatal(built.err)
	}
	return &built
}

func (b *binaries) build() (err error) {
	if b.prometheus, err = programs.Prometheus("prometheus"); err != nil {
		return err
	}
	if _, err := programs.Prometheus("promtool"); err != nil { // beside it
		return err
	}
	if b.dir, err = os.MkdirTemp("", "promdump-e2e-"); err != nil {
		return err
	}
	b.promdump = filepath.Join(b.dir, "promdump")
	cmd := exec.Command("go", "build", "-o", b.promdump, "./cmd/promdump")
	cmd.Dir = ".."
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build promdump: %w\n%s", err, out)
	}
	return nil
}

func cache(name string) (string, error) { return programs.Cache(name) }

// promdump runs the command and fails the test unless it exits 0.
func promdump(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command(binary(t).promdump, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("promdump %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// missing skips a test loudly, or fails it where env says that it must run.
func missing(t *testing.T, env, format string, args ...any) {
	t.Helper()
	why := fmt.Sprintf(format, args...)
	if os.Getenv(env) == "1" {
		t.Fatalf("%s, and %s=1", why, env)
	}
	t.Skipf("SKIPPED, proves nothing here: %s (%s=1 makes this an error)", why, env)
}
