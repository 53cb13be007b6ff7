// Package programs builds the real servers that tests run, once for this user:
// from their Go modules, so that go.sum says which bytes they are made of. What
// it builds stays in the user's cache directory and is never cleaned up.
package programs

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Cache makes a directory of this name in the cache.
func Cache(name string) (string, error) {
	user, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(user, "promdump-e2e", name)
	return dir, os.MkdirAll(dir, 0o777)
}

// Prometheus gives the path of a program of the Prometheus module: "prometheus"
// or "promtool", of the version in go.mod.
func Prometheus(name string) (string, error) {
	version, err := run("list", "-m", "-f", "{{.Version}}", "github.com/prometheus/prometheus")
	if err != nil {
		return "", err
	}
	dir, err := Cache(strings.TrimSpace(version))
	if err != nil {
		return "", err
	}
	bin := filepath.Join(dir, name)
	if _, err := os.Stat(bin); err == nil {
		return bin, nil
	}
	// Under another name first: a build that is cut off must not be taken for
	// one that is done.
	tmp := fmt.Sprintf("%s.%d", bin, os.Getpid())
	if _, err := run("build", "-tags", "remove_all_sd", "-o", tmp, "github.com/prometheus/prometheus/cmd/"+name); err != nil {
		return "", err
	}
	return bin, os.Rename(tmp, bin)
}

func run(args ...string) (string, error) {
	cmd := exec.Command("go", args...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return string(out), nil
}
