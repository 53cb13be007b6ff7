package check

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

const (
	root    = "../../.."
	version = "1.2.3" // of the module's major version, or Go takes the tag for none
)

// tools are built by make; where one is missing there is nothing to judge.
func tools(t *testing.T, names ...string) string {
	t.Helper()
	dir, err := filepath.Abs(filepath.Join(root, ".cache"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			const env = "PROMDUMP_E2E_REQUIRE_RELEASE"
			if os.Getenv(env) == "1" {
				t.Fatalf("%v, and %s=1", err, env)
			}
			t.Skipf("SKIPPED, proves nothing here: %v; make release-check builds it (%s=1 makes this an error)", err, env)
		}
	}
	return dir
}

// run runs a command in a directory and gives its output.
func run(t *testing.T, dir string, env []string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v\n%s%s", strings.Join(args, " "), err, stdout.String(), stderr.String())
	}
	return stdout.String()
}

// checkout makes a repository of what is in the working tree, with one commit that
// has a tag: what is judged is what would be released if this was committed.
func checkout(t *testing.T, dir string) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == root {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		switch {
		case name == ".git", name == "bin", name == "dist", name == ".cache", d.Name() == "node_modules":
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		case d.IsDir():
			return os.MkdirAll(filepath.Join(dir, name), 0o777)
		case !d.Type().IsRegular():
			return nil
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(dir, name), data, info.Mode().Perm())
	})
	if err != nil {
		t.Fatal(err)
	}
	env := []string{
		"GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null",
		"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.org", "GIT_AUTHOR_DATE=2026-01-02T03:04:05Z",
		"GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.org", "GIT_COMMITTER_DATE=2026-01-02T03:04:05Z",
	}
	run(t, dir, env, "git", "init", "-q", "-b", "main")
	run(t, dir, env, "git", "add", "-A")
	run(t, dir, env, "git", "commit", "-q", "-m", "all")
	run(t, dir, env, "git", "tag", "v"+version)
	run(t, dir, env, "git", "remote", "add", "origin", "https://github.com/promdump/promdump.git")
}

// build makes the release of a checkout for this machine's system alone: the others
// take long, and make snapshot judges them.
func build(t *testing.T, dir string, env ...string) string {
	t.Helper()
	bin := tools(t, "goreleaser", "cyclonedx-gomod")
	text, err := os.ReadFile(filepath.Join(dir, ".goreleaser.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	config := string(text)
	for from, to := range map[string]string{
		"goos: [linux, darwin, windows]": fmt.Sprintf("goos: [%s]", runtime.GOOS),
		"goarch: [amd64, arm64]":         fmt.Sprintf("goarch: [%s]", runtime.GOARCH),
	} {
		if strings.Count(config, from) != 1 {
			t.Fatalf(".goreleaser.yaml does not say %q once", from)
		}
		config = strings.Replace(config, from, to, 1)
	}
	file := filepath.Join(t.TempDir(), "goreleaser.yaml")
	if err := os.WriteFile(file, []byte(config), 0o666); err != nil {
		t.Fatal(err)
	}
	env = append(env, "PATH="+bin+":"+os.Getenv("PATH"))
	run(t, dir, env, filepath.Join(bin, "goreleaser"), "release", "--skip=publish", "--parallelism=2", "--config", file)
	dist := filepath.Join(dir, "dist")
	run(t, filepath.Join(dir, "tools", "release"), env, "go", "run", "./finish", "-source", dir, "-dist", dist)
	return dist
}

func readFile(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
