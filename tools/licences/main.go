// Command licences writes THIRD_PARTY_NOTICES: what the programs are made of that is
// not ours, on any system, with the licences under which we may pass it on. A licence
// that is not in the list below is an error, and with -check a file that is not fresh is one.
//
//	go run . [-check] ROOT
//
// What is linked is asked of go list, what is in the page of the lock file of its
// packages, which must be installed.
package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/google/licensecheck"
)

// allowed are licences of works that may be part of a program under Apache-2.0 and
// ask for no more than that their text goes along.
var allowed = []string{"Apache-2.0", "BlueOak-1.0.0", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "ISC", "MIT", "OFL-1.1", "Unlicense", "Zlib"}

// excepted are works under a licence that asks for more, and why that is met.
var excepted = map[string]string{
	// Its files stay under it wherever they go. We change none, and name their source.
	"github.com/hashicorp/go-version": "MPL-2.0",
}

func main() {
	check := flag.Bool("check", false, "write nothing, compare")
	flag.Parse()
	if flag.NArg() != 1 {
		flag.Usage()
		os.Exit(2)
	}
	if err := run(flag.Arg(0), *check); err != nil {
		fmt.Fprintf(os.Stderr, "licences: %v\n", err)
		os.Exit(1)
	}
}

// work is a module or a package that is in the programs.
type work struct {
	name, version, dir string
	below              map[string]bool // directories in dir that have something of it that is used
	texts              []text
}

type text struct {
	file    string
	licence string // empty: a notice
	body    string
}

func run(root string, check bool) error {
	works, err := modules(root)
	if err != nil {
		return err
	}
	page, err := packages(filepath.Join(root, "internal", "query", "page", "web"))
	if err != nil {
		return err
	}
	works = append(works, page...)
	var problems []error
	for i := range works {
		problems = append(problems, works[i].read())
	}
	if err := errors.Join(problems...); err != nil {
		return err
	}
	fmt.Printf("%d works, all under %s\n", len(works), strings.Join(licences(works), ", "))
	file := filepath.Join(root, "THIRD_PARTY_NOTICES")
	if !check {
		return os.WriteFile(file, notices(works), 0o666)
	}
	there, err := os.ReadFile(file)
	if err == nil && !bytes.Equal(there, notices(works)) {
		err = errors.New("THIRD_PARTY_NOTICES is not what the programs are made of: make licences writes it")
	}
	return err
}

// modules are those that the programs link, on the systems of a release.
func modules(root string) ([]work, error) {
	all := map[string]work{}
	for _, system := range []string{"linux", "darwin", "windows"} {
		for _, arch := range []string{"amd64", "arm64"} {
			cmd := exec.Command("go", "list", "-deps", "-f", "{{with .Module}}{{if not .Main}}{{.Path}}\t{{.Version}}\t{{.Dir}}\t{{$.Dir}}{{end}}{{end}}", "./cmd/...")
			cmd.Dir, cmd.Stderr = root, os.Stderr
			cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+system, "GOARCH="+arch)
			out, err := cmd.Output()
			if err != nil {
				return nil, fmt.Errorf("go list for %s: %w", system, err)
			}
			for line := range strings.Lines(string(out)) {
				if f := strings.Split(strings.TrimSpace(line), "\t"); len(f) == 4 {
					w, ok := all[f[0]]
					if !ok {
						w = work{name: f[0], version: f[1], dir: f[2], below: map[string]bool{}}
						all[f[0]] = w
					}
					// What was taken from elsewhere has its licence in its own directory.
					for dir := f[3]; strings.HasPrefix(dir, w.dir+string(filepath.Separator)); dir = filepath.Dir(dir) {
						w.below[dir] = true
					}
				}
			}
		}
	}
	goroot, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return nil, err
	}
	// Its version is of who builds.
	all["the Go standard library"] = work{name: "the Go standard library", dir: strings.TrimSpace(string(goroot))}
	var works []work
	for _, name := range slices.Sorted(maps.Keys(all)) {
		works = append(works, all[name])
	}
	return works, nil
}

// tools of the page are in none of what they make.
var tools = regexp.MustCompile(`^(esbuild|typescript|@esbuild/.*|@typescript/.*)$`)

// packages are those of the page.
func packages(dir string) ([]work, error) {
	b, err := os.ReadFile(filepath.Join(dir, "package-lock.json"))
	if err != nil {
		return nil, err
	}
	var lock struct {
		Packages map[string]struct{ Version string }
	}
	if err := json.Unmarshal(b, &lock); err != nil {
		return nil, fmt.Errorf("package-lock.json: %w", err)
	}
	var works []work
	for _, path := range slices.Sorted(maps.Keys(lock.Packages)) {
		_, name, _ := strings.Cut(path, "node_modules/")
		if path == "" || tools.MatchString(name) {
			continue
		}
		works = append(works, work{name: "npm " + name, version: lock.Packages[path].Version, dir: filepath.Join(dir, filepath.FromSlash(path))})
	}
	return works, nil
}

var (
	licenceFile = regexp.MustCompile(`(?i)^(licen[cs]e|copying)([-.].*)?$`)
	noticeFile  = regexp.MustCompile(`(?i)^notice(\.(txt|md))?$`)
)

func (w *work) read() error {
	known, err := w.readDir(w.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is not there: go mod download, or npm ci in the page's directory", w.dir)
	} else if err != nil {
		return err
	}
	if !known {
		return fmt.Errorf("%s %s has no licence file in %s", w.name, w.version, w.dir)
	}
	for _, dir := range slices.Sorted(maps.Keys(w.below)) {
		if _, err := w.readDir(dir); err != nil {
			return err
		}
	}
	return nil
}

// readDir reads the texts in a directory, and tells whether a licence is among them.
func (w *work) readDir(dir string) (known bool, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return false, err
	}
	for _, e := range entries {
		isLicence, isNotice := licenceFile.MatchString(e.Name()), noticeFile.MatchString(e.Name())
		if e.IsDir() || strings.HasSuffix(e.Name(), ".go") || !isLicence && !isNotice {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return false, err
		}
		t := text{file: filepath.Join(dir, e.Name()), body: strings.ReplaceAll(strings.TrimSpace(string(b)), "\r\n", "\n")}
		if isLicence {
			if t.licence, err = w.licence(t); err != nil {
				return false, err
			}
			known = true
		}
		w.texts = append(w.texts, t)
	}
	return known, nil
}

// licence tells under what a text allows the work to be used.
func (w *work) licence(t text) (string, error) {
	c := licensecheck.Scan([]byte(t.body))
	var found []string
	for _, m := range c.Match {
		if !slices.Contains(found, m.ID) && !m.IsURL {
			found = append(found, m.ID)
		}
	}
	slices.Sort(found)
	if len(found) == 0 || c.Percent < 75 {
		return "", fmt.Errorf("%s %s: %s is not known (%.0f %% of it is %s)", w.name, w.version, t.file, c.Percent, strings.Join(found, ", "))
	}
	for _, id := range found {
		if !slices.Contains(allowed, id) && excepted[w.name] != id {
			return "", fmt.Errorf("%s %s: %s is under %s, which is not allowed", w.name, w.version, t.file, id)
		}
	}
	return strings.Join(found, " and "), nil
}

func licences(works []work) []string {
	all := map[string]bool{}
	for _, w := range works {
		for _, t := range w.texts {
			for one := range strings.SplitSeq(t.licence, " and ") {
				if one != "" {
					all[one] = true
				}
			}
		}
	}
	return slices.Sorted(maps.Keys(all))
}

// notices has each text once, behind the works that it is for.
func notices(works []work) []byte {
	var b bytes.Buffer
	b.WriteString("promdump and kubectl-promdump are made of these works too. make licences writes this file.\n")
	of := map[[32]byte][]string{}
	bodies := map[[32]byte]string{}
	var order [][32]byte
	for _, w := range works {
		var names []string
		for _, t := range w.texts {
			if t.licence != "" && !slices.Contains(names, t.licence) {
				names = append(names, t.licence)
			}
			if t.body == "" {
				continue
			}
			sum := sha256.Sum256([]byte(t.body))
			if of[sum] == nil {
				order = append(order, sum)
				bodies[sum] = t.body
			}
			of[sum] = append(of[sum], strings.TrimSpace(w.name+" "+w.version))
		}
		fmt.Fprintf(&b, "\n%s: %s", strings.TrimSpace(w.name+" "+w.version), strings.Join(names, " and "))
	}
	b.WriteString("\n")
	for _, sum := range order {
		fmt.Fprintf(&b, "\n%s\n%s\n\n%s\n", strings.Repeat("=", 80), strings.Join(of[sum], "\n"), bodies[sum])
	}
	return b.Bytes()
}
