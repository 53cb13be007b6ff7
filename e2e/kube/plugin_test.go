//go:build linux

package kube

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// built is the directory with the plugin and promdump, made once.
var built = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp(shared.dir, "plugin-")
	if err != nil {
		return "", err
	}
	// make embeds the agents first; it is what a release does.
	cmd := exec.Command("make", "-s", "-C", "../..", "build", "BIN="+dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("make build: %w\n%s", err, out)
	}
	return dir, nil
})

func program(t *testing.T, name string) string {
	t.Helper()
	dir, err := built()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, name)
}

// pluginCommand is kubectl promdump as this user, as kubectl itself runs it.
func pluginCommand(t *testing.T, config string, args ...string) *exec.Cmd {
	t.Helper()
	c := booted(t)
	cmd := exec.Command(c.kubectl(), append([]string{"promdump"}, args...)...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+config, "PATH="+filepath.Dir(program(t, "promdump"))+":"+os.Getenv("PATH"), "TMPDIR="+t.TempDir())
	return cmd
}

func plugin(t *testing.T, config string, args ...string) result {
	t.Helper()
	return finish(t, pluginCommand(t, config, args...))
}

func mustPlugin(t *testing.T, args ...string) result {
	t.Helper()
	r := plugin(t, booted(t).config, args...)
	if r.code != 0 {
		t.Fatalf("kubectl promdump %s: exit %d\n%s%s", strings.Join(args, " "), r.code, r.stdout, r.stderr)
	}
	return r
}

// unharmed judges what a dump must never do: leave a file or a process, or touch
// the server.
func (p *pod) unharmed(before map[string]bool) {
	p.t.Helper()
	ours := func() (left []string) {
		for _, x := range p.processes() {
			if strings.Contains(x.args+x.name, "promdump") {
				left = append(left, x.String())
			}
		}
		return left
	}
	// At once nearly always; an agent that has not heard of its client gives up after 90 s.
	if !poll(2*time.Minute, func() bool { return len(ours()) == 0 }) {
		p.t.Errorf("processes of ours: %v", ours())
	}
	for name := range p.files("/") {
		if strings.Contains(name, "promdump") || strings.HasSuffix(name, ".tmp-for-creation") {
			p.t.Errorf("a file of ours: %s", name)
		}
	}
	for _, b := range p.blocks() {
		if before != nil && !before[b] {
			p.t.Errorf("a block that was not there: %s", b)
		}
	}
	if n := p.restarts(); n != 0 {
		p.t.Errorf("the server was restarted %d times", n)
	}
}

func set(names []string) map[string]bool {
	m := map[string]bool{}
	for _, n := range names {
		m[n] = true
	}
	return m
}

// same compares what two servers answer within a range.
func same(t *testing.T, a, b *pod, selector string, from, to time.Time) {
	t.Helper()
	want, got := a.samples(selector, from, to), b.samples(selector, from, to)
	if want != got || want == 0 {
		t.Errorf("%s: %d samples, not %d", selector, got, want)
	}
	step := to.Sub(from) / 200
	for _, promql := range []string{
		`count({__name__=~".+"}) by (__name__)`,
		`sum by (namespace) ({__name__=~"container_.*|kube_.*|node_.*"})`,
		`{__name__=~".+",namespace=~".*7"}`,
	} {
		// Queries look back five minutes: what lies before the range is no part of it.
		begin := from.Add(5 * time.Minute)
		if diff := cmp.Diff(a.queryRange(promql, begin, to, step), b.queryRange(promql, begin, to, step)); diff != "" {
			t.Errorf("%s: (-source +restored)\n%.3000s", promql, diff)
		}
	}
}

func at(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05") }

// The first promdump's own walk, in its own words: from one place to another.
func TestWalk(t *testing.T) {
	data := seed(t)
	a := startPod(t, "ro", podOptions{data: data.dir, quiet: true})
	b := startPod(t, "other", podOptions{quiet: true})
	before := set(a.blocks())
	c := booted(t)
	flags := func(p *pod) []string {
		return []string{"--context", "rig", "-n", p.namespace, "-p", p.name, "-c", p.container, "-d", p.dataDir()}
	}
	meta := mustPlugin(t, append([]string{"meta"}, flags(a)...)...)
	for _, row := range []string{"Earliest time:", "Latest time:", "Total number of blocks", "Total number of samples", "Total number of series", "Total size"} {
		if !strings.Contains(meta.stdout, row) {
			t.Errorf("meta has no row %q:\n%s", row, meta.stdout)
		}
	}
	from, to := data.head.Add(-90*time.Minute), data.head.Add(30*time.Minute) // a cut block, and a part of the head
	file := filepath.Join(t.TempDir(), "dump.tar.gz")
	out, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	cmd := pluginCommand(t, c.config, append(flags(a), "--start-time", at(from), "--end-time", at(to))...)
	cmd.Stdout, cmd.Stderr = out, os.Stderr
	if err := errors.Join(cmd.Run(), out.Close()); err != nil {
		t.Fatal(err)
	}
	a.unharmed(before)
	mustPlugin(t, "verify", file)
	mustPlugin(t, append([]string{"restore", "-t", file}, flags(b)...)...)
	same(t, a, b, `{__name__=~".+"}`, from, to.Add(time.Millisecond))
	if n := b.samples(`{__name__=~".+"}`, data.from, from); n != 0 {
		t.Errorf("%d samples before the range", n)
	}
	if n := b.samples(`{__name__=~".+"}`, to.Add(time.Millisecond), data.to.Add(time.Hour)); n != 0 {
		t.Errorf("%d samples after the range", n)
	}
	again := mustPlugin(t, append([]string{"restore", "-t", file}, flags(b)...)...)
	if !strings.Contains(again.stderr, "there already") {
		t.Errorf("a second restore says %q", again.stderr)
	}
	b.unharmed(nil)
}

// Everything, a slice, one namespace: in all shapes of pods that have a shell,
// and with nothing said but where.
func TestSlices(t *testing.T) {
	data := seed(t)
	for _, kind := range []string{"bb", "ro", "mem", "tar"} { // the last has tar and nothing else
		t.Run(kind, func(t *testing.T) {
			a := startPod(t, kind, podOptions{data: data.dir, quiet: true})
			if kind == "mem" {
				a.noexec("/tmp")
			}
			before := set(a.blocks())
			for what, args := range map[string][]string{
				"all":       {"--min-time", "0"},
				"raw":       {"--min-time", "0", "--head=raw"},
				"30 min":    {"--around", at(data.head.Add(-time.Hour)), "--window", "30m"},
				"namespace": {"--min-time", "0", "--match", `{namespace=~".*7"}`},
			} {
				file := filepath.Join(t.TempDir(), "dump.tar.zst")
				r := mustPlugin(t, append([]string{"dump", "-n", a.namespace, "-p", "pod/" + a.name, "-t", file}, args...)...)
				local := filepath.Join(t.TempDir(), "local.tar.zst")
				// The same of the very files, on this machine.
				l := finish(t, exec.Command(program(t, "promdump"), append([]string{"dump", "-d", a.path(a.dataDir()), "-t", local}, args...)...))
				if l.code != 0 {
					t.Fatal(l.stderr)
				}
				if got, want := counts(r.stderr), counts(l.stderr); got != want {
					t.Errorf("%s: %q, on this machine %q", what, got, want)
				}
				mustPlugin(t, "verify", file)
				r = mustPlugin(t, append([]string{"dump", "--via", "tar", "-n", a.namespace, "-p", a.name, "--force", "-t", file}, args...)...)
				if got, want := counts(r.stderr), counts(l.stderr); got != want {
					t.Errorf("%s by tar: %q, on this machine %q", what, got, want)
				}
			}
			a.unharmed(before)
		})
	}
}

// counts is what a summary says of blocks, series and samples.
func counts(stderr string) string {
	_, s, _ := strings.Cut(stderr, "dumped ")
	if i := strings.Index(s, " samples"); i > 0 {
		return s[:i]
	}
	return stderr
}

// What is allowed decides, and what is missing is said.
func TestRights(t *testing.T) {
	c := booted(t)
	data := seed(t)
	a := startPod(t, "ro", podOptions{data: data.dir, quiet: true})
	b := startPod(t, "other", podOptions{data: data.dir, quiet: true})
	file := filepath.Join(t.TempDir(), "dump.tar.gz")
	if r := plugin(t, c.as("bob"), "-n", a.namespace, "-p", a.name, "--min-time", "0", "--force", "-t", file); r.code != 0 {
		t.Errorf("bob in %s: exit %d: %s", a.namespace, r.code, r.stderr)
	}
	for _, user := range []string{"bob", "carol"} {
		r := plugin(t, c.as(user), "-n", b.namespace, "-p", b.name, "--min-time", "0", "--force", "-t", file)
		if r.code != 11 || !strings.Contains(r.stderr, "kind: Role") || !strings.Contains(r.stderr, "not permitted") {
			t.Errorf("%s in %s: exit %d: %s", user, b.namespace, r.code, r.stderr)
		}
	}
	a.unharmed(nil)
	b.unharmed(nil)
}

// One clear error for each thing that is not there.
func TestRefusals(t *testing.T) {
	c := booted(t)
	p := startPod(t, "bb", podOptions{quiet: true})
	d := startPod(t, "dl", podOptions{quiet: true})
	for what, x := range map[string]struct {
		args []string
		code int
		text string
	}{
		"pod":        {[]string{"-n", p.namespace, "-p", p.name[:len(p.name)-1]}, 10, p.name},
		"container":  {[]string{"-n", p.namespace, "-p", p.name, "-c", "promtheus"}, 10, "prometheus"},
		"data dir":   {[]string{"-n", p.namespace, "-p", p.name, "-d", "/nowhere"}, 10, "/nowhere"},
		"context":    {[]string{"--context", "rigg"}, 10, "rig"},
		"kubeconfig": {[]string{"--kubeconfig", "/nowhere/config"}, 1, "/nowhere/config"},
		"namespace":  {[]string{"-n", "monn"}, 10, "mon"},
		"shell":      {[]string{"-n", d.namespace, "-p", d.name, "--via", "exec"}, 12, "shell"},
		"several":    {[]string{"-n", p.namespace}, 2, p.name},
	} {
		r := plugin(t, c.config, append([]string{"dump", "--since", "1h", "-t", filepath.Join(t.TempDir(), "x")}, x.args...)...)
		if r.code != x.code || !strings.Contains(r.stderr, x.text) || strings.Contains(r.stderr, "panic") {
			t.Errorf("%s: exit %d, not %d: %s", what, r.code, x.code, r.stderr)
		}
	}
	p.unharmed(nil)
	d.unharmed(nil)
}

// A client that is killed in the middle leaves nothing behind in the container when its
// agent has waited for it.
func TestKilledClient(t *testing.T) {
	data := seed(t)
	a := startPod(t, "ro", podOptions{data: data.dir, quiet: true})
	before := set(a.blocks())
	killed := 0
	for i := range 6 {
		ctx, cancel := context.WithCancel(t.Context())
		cmd := pluginCommand(t, booted(t).config, "-n", a.namespace, "-p", a.name, "--min-time", "0",
			"--bandwidth", "300kB", "--reconnect-timeout", "5s", "-t", filepath.Join(t.TempDir(), "x.tar.gz"))
		// kubectl becomes the plugin, so this is the plugin's end.
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(time.Duration(200+250*i)*time.Millisecond, func() {
			if cmd.Process.Kill() == nil {
				killed++
			}
			cancel()
		})
		_ = cmd.Wait()
		<-ctx.Done()
	}
	if t.Logf("%d clients killed", killed); killed < 4 {
		t.Error("too few to prove anything")
	}
	a.unharmed(before)
}
