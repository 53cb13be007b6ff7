package docs

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/promdump/promdump/e2e/internal/programs"
	"github.com/promdump/promdump/internal/tsdbtest"
)

const root = "../.."

// shown is the time at which the data of the pages ends.
var shown = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

var made struct {
	once     sync.Once
	err      error
	dir      string
	programs string // promdump, prometheus, promtool
}

func TestMain(m *testing.M) {
	code := m.Run()
	if made.dir != "" {
		_ = os.RemoveAll(made.dir)
	}
	os.Exit(code)
}

// local gives a session in a directory of its own: with data, that ends at the time
// which the pages show, and the programs in PATH.
func local(t *testing.T) *Session {
	t.Helper()
	made.once.Do(func() { made.err = prepare() })
	if made.err != nil {
		t.Fatal(made.err)
	}
	dir := t.TempDir()
	if err := tsdbtest.CopyDir(filepath.Join(dir, "data"), filepath.Join(made.dir, "data")); err != nil {
		t.Fatal(err)
	}
	rules, err := os.ReadFile("testdata/rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "rules.yaml"), rules, 0o600); err != nil {
		t.Fatal(err)
	}
	return &Session{
		Dir: dir,
		Env: []string{
			"PATH=" + made.programs + ":" + os.Getenv("PATH"), "XDG_CACHE_HOME=" + t.TempDir(), "TMPDIR=" + t.TempDir(), "LC_ALL=C.UTF-8",
		},
		Stands: map[string]string{},
	}
}

func prepare() (err error) {
	if made.dir, err = os.MkdirTemp("", "promdump-docs-"); err != nil {
		return err
	}
	if err := os.Mkdir(filepath.Join(made.dir, "data"), 0o777); err != nil {
		return err
	}
	if _, err := tsdbtest.Demo(context.Background(), filepath.Join(made.dir, "data"), shown); err != nil {
		return err
	}
	made.programs = filepath.Join(made.dir, "bin")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", made.programs+"/", "./cmd/promdump", "./cmd/kubectl-promdump")
	cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0") // as make build does, so that Go has it all
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build promdump: %w\n%s", err, out)
	}
	for _, name := range []string{"prometheus", "promtool"} {
		path, err := programs.Prometheus(name)
		if err != nil {
			return err
		}
		if err := os.Symlink(path, filepath.Join(made.programs, name)); err != nil {
			return err
		}
	}
	return nil
}

// server runs a Prometheus over a copy of the data, and gives its address.
func server(t *testing.T, s *Session) string {
	t.Helper()
	dir := t.TempDir()
	if err := tsdbtest.CopyDir(filepath.Join(dir, "data"), filepath.Join(s.Dir, "data")); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "none.yml")
	if err := os.WriteFile(config, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := free.Addr().String()
	if err := free.Close(); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(made.programs, "prometheus"), "--config.file="+config, "--storage.tsdb.path="+filepath.Join(dir, "data"),
		"--storage.tsdb.retention.time=10y", "--web.listen-address="+addr, "--log.level=error")
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	})
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) { // polls
		if resp, err := http.Get("http://" + addr + "/-/ready"); err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return addr
			}
		}
		if time.Now().After(deadline) {
			t.Fatal("the server does not serve")
		}
	}
}

func pages(t *testing.T) []string {
	t.Helper()
	all, err := Pages(root)
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 8 {
		t.Fatalf("just %q", all)
	}
	return all
}

// Each block with commands is run, or says why not.
func TestMarks(t *testing.T) {
	run := map[string]int{}
	for _, page := range pages(t) {
		blocks, err := Read(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range blocks {
			if b.Lang == "" {
				t.Errorf("%s: the block has no language: console, sh, text, …", b.Place())
			}
			if !slices.Contains(Commands, b.Lang) {
				if slices.ContainsFunc(b.Text, func(l string) bool { return strings.HasPrefix(l, "$ ") }) {
					t.Errorf("%s: commands in a block of %s", b.Place(), b.Lang)
				}
				continue
			}
			where, _ := b.Where()
			reason, not := strings.CutPrefix(b.Mark, "not run: ")
			switch {
			case where == "local" || where == "cluster":
				run[where]++
			case not && len(reason) > 10:
			default:
				t.Errorf("%s: commands with the mark %q", b.Place(), b.Mark)
			}
		}
	}
	if run["local"] < 5 || run["cluster"] < 2 {
		t.Errorf("blocks that are run: %v", run)
	}
}

func TestLocal(t *testing.T) {
	for _, page := range pages(t) {
		blocks, err := Read(page)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(blocks, func(b Block) bool { w, _ := b.Where(); return w == "local" }) {
			continue
		}
		t.Run(filepath.Base(page), func(t *testing.T) {
			s := local(t)
			s.Stands["localhost:9090"] = server(t, s)
			s.Run(t, page, "local")
		})
	}
}

// What the recording shows is what the commands print.
func TestRecording(t *testing.T) {
	lines, err := Recorded(filepath.Join(root, "docs", "img", "demo.svg"))
	if err != nil {
		t.Fatal(err)
	}
	commands, err := Block{File: "demo.svg", Lang: "console", Text: lines}.Commands()
	if err != nil {
		t.Fatal(err)
	}
	if len(commands) < 4 {
		t.Fatalf("just %d commands", len(commands))
	}
	s := local(t)
	outputs, err := s.shell(commands)
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range commands {
		if got := strings.Split(s.there(outputs[i]), "\n"); !Like(c.Want, got, false) {
			t.Errorf("%s\nprints\n%s\nand not, as the recording has it (make recording),\n%s", c.Text, outputs[i], strings.Join(c.Want, "\n"))
		}
	}
}

func TestLike(t *testing.T) {
	for _, c := range []struct {
		want, got string
		vary, ok  bool
	}{
		{"a", "a", false, true},
		{"a", "b", false, false},
		{"a", "a\nb", false, false},
		{"a\nb", "a", false, false},
		{"a\n", "a\n\n", false, true},
		{"", "", false, true},
		{"", "a", false, false},
		{"…", "a\nb", false, true},
		{"…\nb", "a\nb", false, true},
		{"…\nc", "a\nb", false, false},
		{"a … c", "a b c", false, true},
		{"a … c", "a b d", false, false},
		{"…c", "a b c", false, true},
		{"1 block, 254 series in 0.7 s", "1 block, 254 series in 12 s", false, true},
		{"1 block, 254 series in 0.7 s", "1 block, 255 series in 0.7 s", false, false},
		{"1 block, 254 series in 0.7 s", "1 block, 255 series in 0.7 s", true, true},
		{"1.5 KiB", "2,5 KiB", false, false},
		{"1.5 KiB", "12.5 MiB", false, true},
		{"01F25JH97ZC6GKCT7WMEPATE97/index", "01F25JK3V09JC03K0HM2XGMBRH/index", false, true},
		{"at 2026-11-24T12:00:00Z", "at 2026-11-24T12:00:01Z", false, false},
		{"at 2026-11-24T12:00:00Z", "at 2026-11-24T12:00:01.123Z", true, true},
		{"1 block", "2 blocks", true, true},
		{"1 block", "2 blocks", false, false},
		{"a      b", "a  b", false, true},
		{"------", "---------", false, true},
	} {
		if got := Like(strings.Split(c.want, "\n"), strings.Split(c.got, "\n"), c.vary); got != c.ok {
			t.Errorf("%q, %q, vary %v: %v", c.want, c.got, c.vary, got)
		}
	}
}

// The recording is made anew by make recording: -update writes it.
func TestRecord(t *testing.T) {
	if !*update {
		t.Skip("nothing is recorded without -update; TestRecording judges what was")
	}
	picture, err := local(t).Record([]string{
		`promdump dump -d data --around "2026-11-24 10:35:00" --window 1h -t incident.tar.gz`,
		`promdump verify incident.tar.gz`,
		"promdump query incident.tar.gz -o graph \\\n    'sum by (pod) (rate(http_requests_total{namespace=\"shop\",code=\"500\"}[5m]) > 0.3)'",
		`promdump restore -d laptop -t incident.tar.gz`,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "docs", "img", "demo.svg"), []byte(picture), 0o666); err != nil {
		t.Fatal(err)
	}
}
