package docs

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write what the commands print into the pages, but where … stands for it")

// Session runs the blocks of a page.
type Session struct {
	Dir  string   // where they run
	Env  []string // NAME=VALUE, beside what this process has
	Vary bool     // times and numbers are not the same each time

	// Stands says what stands in the pages for something that is another here, such
	// as an address.
	Stands map[string]string

	serving []*running
	changes []change
}

type running struct {
	cmd  *exec.Cmd
	out  string // file
	gone chan error
	text string
}

// change is what an -update writes.
type change struct {
	line, lines int
	got         []string
}

var address = regexp.MustCompile(`127\.0\.0\.1:\d+`)

// Run runs the blocks of the page that are for this place, and ends what they left
// running.
func (s *Session) Run(t *testing.T, page, where string) {
	t.Helper()
	blocks, err := Read(page)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range blocks {
		if w, serves := b.Where(); w == where {
			s.block(t, b, serves)
		}
	}
	s.end(t)
	if *update {
		if err := s.write(page); err != nil {
			t.Fatal(err)
		}
	}
}

func (s *Session) block(t *testing.T, b Block, serves bool) {
	t.Helper()
	commands, err := b.Commands()
	if err != nil {
		t.Error(err)
		return
	}
	last := len(commands)
	if serves {
		last--
	}
	begin := time.Now()
	outputs, err := s.shell(commands[:last])
	if err != nil {
		t.Errorf("%s: %v", b.Place(), err)
		return
	}
	for i, c := range commands[:last] {
		if b.Lang == "sh" {
			continue // what it prints is not shown
		}
		s.compare(t, b, c, outputs[i])
	}
	if serves {
		s.serve(t, b, commands[last])
	}
	t.Logf("%s: %d commands in %.1f s", b.Place(), len(commands), time.Since(begin).Seconds())
}

// shell runs the commands in one shell, and gives what each has printed.
func (s *Session) shell(commands []Command) (outputs []string, err error) {
	if len(commands) == 0 {
		return nil, nil
	}
	private, err := os.MkdirTemp("", "promdump-docs-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(private)) }()
	name := func(i int) string { return filepath.Join(private, fmt.Sprint(i)) }
	var script strings.Builder
	for i, c := range commands {
		// Braces, not a subshell: what a command changes stays.
		fmt.Fprintf(&script, "{\n%s\n} >%s 2>&1 </dev/null || { echo \"exit code $?\" >%s.failed; exit 1; }\n", s.here(c.Text), name(i), name(i))
	}
	cmd := s.command(script.String())
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	failed := cmd.Run()
	for i, c := range commands {
		out, err := os.ReadFile(name(i))
		if err != nil {
			return nil, fmt.Errorf("the shell ended before %q: %w: %s", c.Text, failed, &stderr)
		}
		if code, err := os.ReadFile(name(i) + ".failed"); err == nil {
			return nil, fmt.Errorf("%q: %s%s", c.Text, code, out)
		}
		outputs = append(outputs, string(out))
	}
	return outputs, failed
}

func (s *Session) command(script string) *exec.Cmd {
	cmd := exec.Command("sh", "-c", script)
	cmd.Dir = s.Dir
	cmd.Env = append(os.Environ(), s.Env...)
	return cmd
}

// here is the command as it is run here, there what it has printed as the page
// would say it.
func (s *Session) here(text string) string {
	for page, here := range s.Stands {
		text = strings.ReplaceAll(text, page, here)
	}
	return text
}

func (s *Session) there(text string) string {
	for page, here := range s.Stands {
		text = strings.ReplaceAll(text, here, page)
	}
	return strings.ReplaceAll(text, s.Dir+"/", "")
}

func (s *Session) compare(t *testing.T, b Block, c Command, output string) {
	t.Helper()
	got := strings.Split(s.there(output), "\n")
	if Like(c.Want, got, s.Vary) {
		return
	}
	if !slices.ContainsFunc(c.Want, func(l string) bool { return strings.Contains(l, "…") }) {
		want := trim(c.Want)
		s.changes = append(s.changes, change{c.Line, len(want), trim(got)})
		if *update {
			return
		}
	}
	t.Errorf("%s: %s\nprints\n%s\nand not\n%s", b.Place(), c.Text, strings.Join(got, "\n"), strings.Join(c.Want, "\n"))
}

// serve starts a command that runs on. What it is said to print comes in a while;
// the address in it is, from then on, the one that it has here.
func (s *Session) serve(t *testing.T, b Block, c Command) {
	t.Helper()
	out, err := os.CreateTemp(t.TempDir(), "served")
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd := s.command("exec " + s.here(c.Text))
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	one := &running{cmd: cmd, out: out.Name(), gone: make(chan error, 1), text: c.Text}
	s.serving = append(s.serving, one)
	go func() { one.gone <- cmd.Wait() }()
	var got []byte
	page := address.FindString(strings.Join(c.Want, "\n"))
	deadline := time.Now().Add(time.Minute)
	for {
		if got, err = os.ReadFile(one.out); err != nil {
			t.Fatal(err)
		}
		here := address.FindString(string(got))
		if page != "" && here != "" {
			s.Stands[page] = here
		}
		if Like(c.Want, strings.Split(s.there(string(got)), "\n"), s.Vary) || time.Now().After(deadline) || *update && here != "" {
			break
		}
		select {
		case err := <-one.gone:
			one.gone <- err
			t.Errorf("%s: %s ended (%v) and has printed\n%s", b.Place(), c.Text, err, got)
			return
		case <-time.After(20 * time.Millisecond): // polls for what the program says
		}
	}
	s.compare(t, b, c, string(got))
}

// end ends what runs, as Ctrl-C does.
func (s *Session) end(t *testing.T) {
	t.Helper()
	for _, one := range s.serving {
		if err := one.cmd.Process.Signal(syscall.SIGINT); err != nil && !errors.Is(err, os.ErrProcessDone) {
			t.Error(err)
		}
		select {
		case err := <-one.gone:
			if err != nil {
				out, _ := os.ReadFile(one.out)
				t.Errorf("%s: Ctrl-C ends it with %v\n%s", one.text, err, out)
			}
		case <-time.After(time.Minute):
			t.Errorf("%s: Ctrl-C does not end it", one.text)
			_ = one.cmd.Process.Kill()
		}
	}
	s.serving = nil
}

// write puts what was printed into the page, from its end to its beginning.
func (s *Session) write(page string) error {
	b, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	lines := strings.Split(string(b), "\n")
	slices.Reverse(s.changes)
	for _, c := range s.changes {
		for i := range c.got {
			c.got[i] = strings.TrimRight(c.got[i], " ")
		}
		lines = slices.Replace(lines, c.line-1, c.line-1+c.lines, c.got...)
	}
	s.changes = nil
	return os.WriteFile(page, []byte(strings.Join(lines, "\n")), 0o666)
}
