// Command vuln tells which known vulnerabilities the programs can reach, by
// govulncheck and a database that is a Go module, so that no other network is needed
// than for the modules.
//
//	go run . [-db URL] [-release] DIR
//
// It fails for a vulnerability of a module that is called and not in allowed.txt, and
// for a line of allowed.txt that nothing needs any more. Those of Go itself are of who
// builds: they are told, and an error with -release, which looks at the programs of
// all systems and not at those of this one alone.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

func main() {
	db := flag.String("db", "", "URL of a vulnerability database, like https://vuln.go.dev (default: the module's)")
	release := flag.Bool("release", false, "look at all systems; vulnerabilities of this Go are errors")
	flag.Parse()
	if flag.NArg() != 1 {
		flag.Usage()
		os.Exit(2)
	}
	if err := run(*db, *release, flag.Arg(0)); err != nil {
		fmt.Fprintf(os.Stderr, "vuln: %v\n", err)
		os.Exit(1)
	}
}

func run(db string, release bool, dir string) (err error) {
	if db == "" {
		temp, err := os.MkdirTemp("", "vuln-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(temp)
		if err := index(temp); err != nil {
			return err
		}
		db = "file://" + temp
	}
	systems := []string{runtime.GOOS}
	if release {
		systems = []string{"linux", "darwin", "windows"} // those of .goreleaser.yaml
	}
	found := map[string]finding{}
	for _, goos := range systems {
		if err := scan(db, dir, goos, found); err != nil {
			return err
		}
	}
	allowed, err := readAllowed("allowed.txt")
	if err != nil {
		return err
	}
	var problems []error
	for _, id := range slices.Sorted(maps.Keys(found)) {
		v := found[id]
		switch _, ok := allowed[id]; {
		case v.Trace[0].Module == "stdlib" && !release:
			fmt.Printf("note: %s is in this Go, and mended in %s\n", v, v.FixedVersion)
		case v.Trace[0].Module == "stdlib":
			problems = append(problems, fmt.Errorf("%s: a release is built with Go %s or newer", v, v.FixedVersion))
		case !ok:
			problems = append(problems, fmt.Errorf("%s: take %s, or say in allowed.txt why not", v, v.FixedVersion))
		}
		delete(allowed, id)
	}
	for id := range allowed {
		problems = append(problems, fmt.Errorf("allowed.txt: nothing reaches %s any more", id))
	}
	fmt.Printf("%d known vulnerabilities are reached, %d are not allowed\n", len(found), len(problems))
	return errors.Join(problems...)
}

// index makes a database of the reports in the module.
func index(to string) error {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "golang.org/x/vulndb").Output()
	if err != nil {
		return fmt.Errorf("find the database: %w", err)
	}
	reports := filepath.Join(strings.TrimSpace(string(out)), "data", "osv")
	if text, err := exec.Command("go", "tool", "indexdb", "-vulns", reports, "-out", to).CombinedOutput(); err != nil {
		return fmt.Errorf("index the database: %w\n%s", err, text)
	}
	return nil
}

// finding is what govulncheck -format json tells: the first frame of its trace is
// where the vulnerability is.
type finding struct {
	OSV          string `json:"osv"`
	FixedVersion string `json:"fixed_version"`
	Trace        []struct {
		Module, Version, Package, Function string
	} `json:"trace"`
}

func (f finding) String() string {
	return fmt.Sprintf("https://pkg.go.dev/vuln/%s, in %s of %s %s", f.OSV, f.Trace[0].Function, f.Trace[0].Package, f.Trace[0].Version)
}

// scan adds what is called on a system, by its id.
func scan(db, dir, goos string, found map[string]finding) error {
	tool, err := exec.Command("go", "tool", "-n", "govulncheck").Output()
	if err != nil {
		return fmt.Errorf("find govulncheck: %w", err)
	}
	programs := []string{"./cmd/promdump", "./cmd/kubectl-promdump", "./cmd/kubectl_complete-promdump"}
	if goos == "linux" { // containers have no other system
		programs = append(programs, "./cmd/promdump-agent")
	}
	cmd := exec.Command(strings.TrimSpace(string(tool)), append([]string{"-db", db, "-format", "json"}, programs...)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOOS="+goos)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("govulncheck: %w", err)
	}
	scanned := false
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var message struct {
			Config  *struct{}
			Finding *finding
		}
		if err := d.Decode(&message); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return fmt.Errorf("read what govulncheck says: %w", err)
		}
		scanned = scanned || message.Config != nil
		if f := message.Finding; f != nil && len(f.Trace) > 0 && f.Trace[0].Function != "" {
			// Some are in Go and in a module as well, as golang.org/x/net is. That of Go
			// is excused, and must not stand for both.
			if there, ok := found[f.OSV]; !ok || there.Trace[0].Module == "stdlib" {
				found[f.OSV] = *f
			}
		}
	}
	if !scanned {
		return errors.New("govulncheck said nothing")
	}
	return nil
}

// readAllowed reads lines "ID DATE REASON".
func readAllowed(file string) (map[string]string, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	allowed := map[string]string{}
	s := bufio.NewScanner(f)
	for s.Scan() {
		line := strings.TrimSpace(s.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		id, reason, _ := strings.Cut(line, " ")
		date, why, _ := strings.Cut(reason, " ")
		if _, err := time.Parse(time.DateOnly, date); err != nil || why == "" {
			return nil, fmt.Errorf("%s: %s: no date and no reason", file, id)
		}
		allowed[id] = reason
	}
	return allowed, s.Err()
}
