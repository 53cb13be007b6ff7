package docs

import (
	"go/ast"
	"go/parser"
	"go/token"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"
)

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// foreign are flags of other programs.
var foreign = map[string]string{
	"--subresource": "kubectl auth can-i", "--as": "kubectl", "--previous": "kubectl logs",
	"--config.file": "prometheus", "--storage.tsdb.path": "prometheus", "--storage.tsdb.retention.time": "prometheus",
	"--web.enable-admin-api": "prometheus", "--web.enable-remote-write-receiver": "prometheus", "--web.route-prefix": "prometheus",
	"--snapshot": "goreleaser", "--manifest": "krew", "--archive": "krew", "--clean": "goreleaser",
	"--data-urlencode": "curl", "--update": "go test",
}

var flagWord = regexp.MustCompile("(?:^|[ `(\\[|])(--[a-z][a-z0-9.-]*[a-z0-9])")

// Each flag in the pages is one of a command.
func TestFlags(t *testing.T) {
	local(t)
	known := map[string]bool{}
	for _, program := range []string{"promdump", "kubectl-promdump"} {
		for _, command := range []string{"", "dump", "meta", "verify", "restore", "open", "query", "changed", "version", "list"} {
			if command == "list" && program == "promdump" {
				continue
			}
			args := strings.Fields(command + " --help")
			out, err := exec.Command(filepath.Join(made.programs, program), args...).Output()
			if err != nil {
				t.Fatalf("%s %s: %v", program, args, err)
			}
			for _, m := range flagWord.FindAllStringSubmatch(string(out), -1) {
				known[m[1]] = true
			}
		}
	}
	if len(known) < 50 {
		t.Fatalf("just %d flags are known", len(known))
	}
	for _, page := range pages(t) {
		for i, line := range strings.Split(read(t, page), "\n") {
			for _, m := range flagWord.FindAllStringSubmatch(line, -1) {
				if !known[m[1]] && foreign[m[1]] == "" && !strings.Contains(line, m[1]+"-…") {
					t.Errorf("%s:%d: no command has the flag %s", page, i+1, m[1])
				}
			}
		}
	}
}

var (
	variable = regexp.MustCompile(`\bPROMDUMP_[A-Z0-9_]+\b`)
	target   = regexp.MustCompile("(?m)(?:`|^)make ([a-z][a-z0-9-]*)")
	source   = regexp.MustCompile("`((?:internal|cmd|e2e|docs|tools)/[A-Za-z0-9_./-]+)`")
)

// Each variable, make target and path that the pages name is there.
func TestNames(t *testing.T) {
	makefile := read(t, filepath.Join(root, "Makefile"))
	for _, page := range pages(t) {
		text := read(t, page)
		for _, name := range variable.FindAllString(text, -1) {
			if exec.Command("grep", "-rqE", "--include=*.go", "--include=*.sh", "--include=Makefile", `\b`+name+`\b`, root).Run() != nil {
				t.Errorf("%s: nothing reads %s", page, name)
			}
		}
		for _, m := range target.FindAllStringSubmatch(text, -1) {
			if !regexp.MustCompile(`(?m)^` + m[1] + `:`).MatchString(makefile) {
				t.Errorf("%s: the Makefile has no %s", page, m[1])
			}
		}
		for _, m := range source.FindAllStringSubmatch(text, -1) {
			if _, err := os.Stat(filepath.Join(root, m[1])); err != nil {
				t.Errorf("%s: there is no %s", page, m[1])
			}
		}
	}
}

// The tour names functions and types: each is declared in the package that it is
// said to be in.
func TestTour(t *testing.T) {
	name := regexp.MustCompile("`([a-z]+)\\.(?:\\(?\\*?[A-Za-z]+\\)?\\.)?([A-Za-z]+)`")
	n := 0
	for _, page := range []string{"tour.md", "sources.md", "security.md"} {
		for _, m := range name.FindAllStringSubmatch(read(t, filepath.Join(root, "docs", page)), -1) {
			dirs, err := filepath.Glob(filepath.Join(root, "internal", m[1]))
			if err != nil {
				t.Fatal(err)
			}
			for _, deep := range []string{"*", "*/*"} {
				more, err := filepath.Glob(filepath.Join(root, "internal", deep, m[1]))
				if err != nil {
					t.Fatal(err)
				}
				dirs = append(dirs, more...)
			}
			if len(dirs) == 0 {
				continue // no package of ours
			}
			n++
			declared := regexp.QuoteMeta(m[2])
			pattern := `^(func (\([^)]*\) )?` + declared + `[\[(]|type ` + declared + `\b|(var|const) ` + declared + `\b|\t` + declared + `(\(|\b.* = |\s+[A-Za-z*\[]))`
			if exec.Command("grep", append([]string{"-rqP", "--include=*.go", pattern}, dirs...)...).Run() != nil {
				t.Errorf("%s: %s does not declare %s", page, m[1], m[2])
			}
		}
	}
	if n < 20 {
		t.Errorf("just %d names", n)
	}
}

// system are messages that are not ours.
var system = []string{"no space left on device", "address already in use", "connection refused", "permission denied", "too many open files", "exec format error", "at least one matcher must not match the empty string"}

// What troubleshooting.md says that promdump says, it does: each part between "…" and
// colons stands in a string of the code.
func TestMessages(t *testing.T) {
	var said strings.Builder
	verb := regexp.MustCompile(`%[+#]?[a-z]`)
	for _, dir := range []string{"cmd", "internal"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
			if err != nil {
				return err
			}
			ast.Inspect(file, func(n ast.Node) bool {
				if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
					if text, err := strconv.Unquote(lit.Value); err == nil {
						said.WriteString(verb.ReplaceAllString(text, "…") + "\n")
					}
				}
				return true
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	quoted := regexp.MustCompile("`([^`]+)`")
	n := 0
	for i, line := range strings.Split(read(t, filepath.Join(root, "docs", "troubleshooting.md")), "\n") {
		cells := strings.Split(line, "|")
		if len(cells) < 4 {
			continue
		}
		for _, m := range quoted.FindAllStringSubmatch(cells[1], -1) {
			for _, part := range regexp.MustCompile(`…|: |:$`).Split(m[1], -1) {
				part = strings.TrimSpace(part)
				if len(part) < 6 || slices.Contains(system, part) {
					continue
				}
				n++
				if !strings.Contains(said.String(), part) {
					t.Errorf("troubleshooting.md:%d: nothing says %q", i+1, part)
				}
			}
		}
	}
	if n < 30 {
		t.Errorf("just %d parts of messages", n)
	}
}

var (
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ (.*)$`)
)

// anchor is what GitHub makes of a heading.
func anchor(heading string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == ' ':
			return '-'
		case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
			return unicode.ToLower(r)
		}
		return -1
	}, heading)
}

// Links lead somewhere.
func TestLinks(t *testing.T) {
	n := 0
	for _, page := range pages(t) {
		for _, m := range link.FindAllStringSubmatch(read(t, page), -1) {
			u, err := url.Parse(m[1])
			if err != nil {
				t.Errorf("%s: %v", page, err)
				continue
			}
			if u.Scheme != "" {
				continue // the world is not asked by a test
			}
			n++
			file := page
			if u.Path != "" {
				file = filepath.Join(filepath.Dir(page), u.Path)
			}
			if _, err := os.Stat(file); err != nil {
				t.Errorf("%s: %s leads nowhere", page, m[1])
				continue
			}
			if u.Fragment == "" {
				continue
			}
			found := false
			for _, h := range heading.FindAllStringSubmatch(read(t, file), -1) {
				found = found || anchor(h[1]) == u.Fragment
			}
			if !found {
				t.Errorf("%s: %s has no heading %s", page, file, u.Fragment)
			}
		}
	}
	if n < 20 {
		t.Errorf("just %d links", n)
	}
}
