package promdump_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const (
	module = "github.com/promdump/promdump/"
	tsdb   = "github.com/prometheus/prometheus/tsdb"
)

// list returns the words that go list prints.
func list(t *testing.T, args ...string) []string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", append([]string{"list"}, args...)...).Output()
	if err != nil {
		t.Fatalf("go list %v: %v", args, err)
	}
	return strings.Fields(string(out))
}

// imports lists the internal packages that each package may import. Every package must be in it.
var imports = map[string][]string{
	"internal/archive":              nil,
	"internal/wire":                 nil,
	"internal/term":                 nil,
	"internal/fsutil":               nil,
	"internal/suggest":              nil,
	"internal/retry":                nil,
	"internal/datadir":              nil,
	"internal/slice":                {"datadir", "wire"},
	"internal/agent":                {"datadir", "restore/apply", "slice", "wire"},
	"internal/restore/apply":        {"datadir", "wire"},
	"internal/block":                {"wire"},
	"internal/source":               {"wire"},
	"internal/source/local":         {"agent", "wire"},
	"internal/source/pod":           {"retry", "wire"},
	"internal/source/podtar":        {"agent", "fsutil", "retry", "source/local", "source/pod", "wire"},
	"internal/promapi":              nil,
	"internal/source/remoteread":    {"fsutil", "promapi", "retry", "term", "wire"},
	"internal/source/sourcetest":    {"archive", "dump", "source", "tsdbtest", "wire"},
	"internal/dump":                 {"archive", "block", "source", "term", "wire"},
	"internal/restore":              {"archive", "block", "datadir", "promapi", "restore/apply", "source", "source/local", "term", "wire"},
	"internal/tsdbtest":             {"wire"},
	"internal/tsdbtest/mktsdb":      {"tsdbtest"},
	"internal/dump/dumptest":        {"archive", "dump", "source/local", "tsdbtest", "wire"},
	"internal/view":                 {"archive", "block", "restore", "source/local"},
	"internal/query":                {"archive", "term", "view"},
	"internal/query/page":           nil,
	"internal/cli":                  {"archive", "block", "changed", "datadir", "dump", "fsutil", "query", "query/page", "restore", "source", "source/local", "source/remoteread", "suggest", "term", "view", "wire"},
	"internal/changed":              nil,
	"internal/kube":                 {"retry", "suggest"},
	"internal/agentbin":             nil,
	"internal/agentbin/pack":        {"agentbin"},
	"internal/cli/plugin":           {"agentbin", "cli", "kube", "restore", "source", "source/pod", "source/podtar", "source/remoteread", "term", "wire"},
	"internal/cli/manual":           {"cli", "cli/plugin"},
	"cmd/promdump":                  {"cli", "term"},
	"cmd/kubectl-promdump":          {"cli/plugin", "term"},
	"cmd/kubectl_complete-promdump": nil,
	"cmd/promdump-agent":            {"agent", "wire"},
	"":                              {"archive", "dump", "fsutil", "source", "source/local", "source/remoteread", "term", "view", "wire"},
}

func TestImports(t *testing.T) {
	for _, pkg := range list(t, "-f", `{{.ImportPath}}={{join .Imports ","}}`, "./...") {
		path, deps, _ := strings.Cut(pkg, "=")
		path = strings.TrimPrefix(strings.TrimPrefix(path, strings.TrimSuffix(module, "/")), "/")
		allowed, known := imports[path]
		if !known {
			t.Errorf("%s is not in house_test.go: add the packages that it may import", path)
			continue
		}
		for dep := range strings.SplitSeq(deps, ",") {
			ours, ok := strings.CutPrefix(dep, module)
			if ok && !slices.Contains(allowed, strings.TrimPrefix(ours, "internal/")) {
				t.Errorf("%s must not import %s: data flows in one direction, see doc.go", path, ours)
			}
			if dep == tsdb && !slices.Contains([]string{"internal/block", "internal/tsdbtest", "internal/view", "internal/query"}, path) {
				t.Errorf("%s imports the full TSDB: only block, view, query and tsdbtest may", path)
			}
		}
	}
}

// TestAgentModules compares the modules that the agent links with modules.txt, so that a review
// shows each new one.
func TestAgentModules(t *testing.T) {
	const file, format = "cmd/promdump-agent/modules.txt", "{{with .Module}}{{if not .Main}}{{.Path}}@{{.Version}}{{end}}{{end}}"
	t.Setenv("GOOS", "linux")
	linked := list(t, "-deps", "-f", format, "./cmd/promdump-agent")
	slices.Sort(linked)
	linked = slices.Compact(linked)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if there := strings.Fields(string(text)); !slices.Equal(there, linked) {
		t.Errorf("the agent links\n%s\n%s has\n%s\nif this is intended: GOOS=linux go list -deps -f '%s' ./cmd/promdump-agent | LC_ALL=C sort -u | grep . >%s",
			strings.Join(linked, "\n"), file, strings.Join(there, "\n"), format, file)
	}
}

// TestAgentDoesNotLinkTheTSDB keeps the agent small: with the TSDB it would have three times the
// size.
func TestAgentDoesNotLinkTheTSDB(t *testing.T) {
	for _, pkg := range []string{"internal/datadir", "internal/slice", "internal/wire", "internal/agent", "cmd/promdump-agent"} {
		deps := list(t, "-deps", "./"+pkg)
		if len(deps) < 10 {
			t.Fatalf("go list returns only %d dependencies of %s", len(deps), pkg)
		}
		for _, dep := range deps {
			if dep == tsdb || strings.HasPrefix(dep, "k8s.io/") || dep == "github.com/prometheus/prometheus/config" {
				t.Errorf("%s links %s", pkg, dep)
			}
		}
	}
}

// bans maps functions that only main and tests may call to the reason.
var bans = map[string]string{
	"os.Exit":            "only main may exit: otherwise temporary files remain",
	"log.Fatal":          "only main may exit: otherwise temporary files remain",
	"context.Background": "use the context of main: otherwise Ctrl-C has no effect",
	"context.TODO":       "use the context of main: otherwise Ctrl-C has no effect",
	"slog.Default":       "use the logger of the caller",
}

// TestSource checks rules for source files: package documentation, the length of files, no init,
// and no banned functions.
func TestSource(t *testing.T) {
	docs := map[string]bool{}
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "testdata" || d.Name() == "e2e" || d.Name() == "tools" || path != "." && strings.HasPrefix(d.Name(), ".")) {
			return fs.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, path, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		docs[filepath.Dir(path)] = docs[filepath.Dir(path)] || f.Doc != nil && len(f.Doc.Text()) > 80
		if n := fset.File(f.Pos()).LineCount(); n > 500 {
			t.Errorf("%s has %d lines, more than 500: split it", path, n)
		}
		// Packages for tests are used in tests only.
		inMain := f.Name.Name == "main" || strings.HasPrefix(path, "internal/tsdbtest/") || strings.HasPrefix(path, "internal/source/sourcetest/")
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				if n.Recv == nil && n.Name.Name == "init" {
					t.Errorf("%s: init functions are not allowed", fset.Position(n.Pos()))
				}
			case *ast.SelectorExpr:
				x, ok := n.X.(*ast.Ident)
				if why, banned := bans[exprName(x, n)]; ok && banned && !inMain {
					t.Errorf("%s: %s: %s", fset.Position(n.Pos()), exprName(x, n), why)
				}
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for dir, documented := range docs {
		if !documented {
			t.Errorf("%s has no package documentation of more than 80 bytes", dir)
		}
	}
	if len(docs) < 12 {
		t.Errorf("found only %d packages", len(docs))
	}
}

// exprName returns the name of a selector expression with a package, such as os.Exit.
func exprName(x *ast.Ident, sel *ast.SelectorExpr) string {
	if x == nil {
		return ""
	}
	return x.Name + "." + sel.Sel.Name
}
