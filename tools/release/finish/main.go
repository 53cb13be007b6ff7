// Command finish makes of goreleaser's dist directory what goreleaser does not
// make: the krew manifest, and the image, as files for the Dockerfile and as an OCI
// layout that needs no builder and no registry. The agents' archive is put beside
// the others.
//
//	go run ./finish -source DIR -dist DIR
//
// The source is the checkout that goreleaser ran in. What is written depends on what
// was built and on the commit alone, no time or name of this machine is in it.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

func main() {
	source := flag.String("source", "../..", "the checkout that was built")
	dist := flag.String("dist", "../../dist", "goreleaser's directory")
	flag.Parse()
	if err := run(*source, *dist); err != nil {
		fmt.Fprintf(os.Stderr, "finish: %v\n", err)
		os.Exit(1)
	}
}

// release is what was built.
type release struct {
	source, dist string
	time         time.Time // of the commit

	// As goreleaser writes them into metadata.json.
	Version string `json:"version"`
	Commit  string `json:"commit"`
}

func run(source, dist string) error {
	r := release{source: source, dist: dist}
	if err := r.read("metadata.json", &r); err != nil {
		return err
	}
	if r.Version == "" || r.Commit == "" {
		return errors.New("metadata.json names no version or no commit")
	}
	out, err := exec.Command("git", "-C", source, "show", "-s", "--format=%ct", r.Commit).Output()
	if err != nil {
		return fmt.Errorf("ask for the time of commit %s: %w", r.Commit, err)
	}
	seconds, err := strconv.ParseInt(strings.TrimSpace(string(out)), 10, 64)
	if err != nil {
		return fmt.Errorf("the time of commit %s: %w", r.Commit, err)
	}
	r.time = time.Unix(seconds, 0).UTC()
	for _, step := range []func() error{r.agents, r.krew, r.image} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func (r *release) read(name string, into any) error {
	text, err := os.ReadFile(filepath.Join(r.dist, name))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, into); err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	return nil
}

// agents copies their archive and its digest: goreleaser uploads them from where
// they were made.
func (r *release) agents() error {
	for _, name := range []string{"promdump-v" + r.Version + ".tar.gz", "promdump-v" + r.Version + ".tar.gz.sha256"} {
		data, err := os.ReadFile(filepath.Join(r.source, "bin", "release", name))
		if err != nil {
			return fmt.Errorf("the agents' archive: %w", err)
		}
		if err := os.WriteFile(filepath.Join(r.dist, name), data, 0o644); err != nil {
			return err
		}
	}
	return nil
}
