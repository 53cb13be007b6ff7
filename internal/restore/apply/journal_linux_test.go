package apply

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/promdump/promdump/internal/datadir"
)

const (
	id     = "01K00000000000000000000000"
	inBoth = "01K0000000000000000000000A"
	inOld  = "01K0000000000000000000000B"
	inNew  = "01K0000000000000000000000C"
)

// tree has the contents of all files below a directory.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		name, _ := filepath.Rel(dir, path)
		all[name] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func plant(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func noStep(string) error { return nil }

// scene is a data dir, and what lies ready to replace it.
func scene(t *testing.T) (s *replacement, before, after map[string]string) {
	t.Helper()
	s = &replacement{dir: t.TempDir(), id: id, step: noStep, check: func() error { return nil }}
	foreign := map[string]string{"lock": "", "snapshots/a/b": "kept", "mine.txt": "kept", "lost+found/x": "kept"}
	own := map[string]string{
		inBoth + "/meta.json": "old both", inOld + "/meta.json": "old", inOld + ".tmp-for-creation/index": "half", "chunk_snapshot.000001.0000000000/00000000": "old snapshot",
		"wal/00000007": "old wal", "wal/checkpoint.00000006/00000000": "old checkpoint", "wbl/00000000": "old wbl", "chunks_head/000001": "old chunks", "queries.active": "secret",
	}
	comes := map[string]string{inBoth + "/meta.json": "new both", inNew + "/meta.json": "new", "wal/00000000": "new wal", "chunks_head/000009": "new chunks"}
	plant(t, s.dir, foreign)
	plant(t, s.dir, own)
	plant(t, s.ready(), comes)
	before, after = maps.Clone(foreign), maps.Clone(foreign)
	maps.Copy(before, own)
	maps.Copy(after, comes)
	return s, before, after
}

// without what lies ready.
func (r *replacement) seen(t *testing.T) map[string]string {
	t.Helper()
	if err := os.RemoveAll(r.root()); err != nil {
		t.Fatal(err)
	}
	return tree(t, r.dir)
}

func TestReplace(t *testing.T) {
	s, _, after := scene(t)
	got, err := s.swap()
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Added) != 2 || len(got.Replaced) != 8 {
		t.Errorf("%+v", got)
	}
	if again, err := s.before(); err != nil || fmt.Sprint(again) != fmt.Sprint(got) {
		t.Errorf("once more: %+v, %v", again, err)
	}
	if all, err := asides(s.dir); err != nil || len(all) != 1 || !all[0].Done || all[0].Dir != got.Aside {
		t.Errorf("asides: %+v, %v", all, err)
	}
	if aside := tree(t, s.aside()); aside["wal/00000007"] != "old wal" || len(aside) != 10 {
		t.Errorf("aside: %v", aside)
	}
	for range 2 {
		if _, err := s.discard(); err != nil {
			t.Error(err)
		}
		if now := s.seen(t); !maps.Equal(now, after) {
			t.Errorf("after it: %v, want %v", now, after)
		}
	}
}

// Whatever fails, what was there comes back; and the old contents are never
// discarded while they are the only ones.
func TestReplaceFails(t *testing.T) {
	for n := 0; ; n++ {
		s, before, _ := scene(t)
		failed := false
		s.step = func(string) error {
			if n--; n == -1 {
				failed = true
				return errors.New("injected")
			}
			return nil
		}
		at := n
		_, err := s.swap()
		if !failed {
			if n = at; n < 12 {
				t.Fatalf("just %d steps", n)
			}
			return
		}
		if n = at; err == nil {
			t.Fatalf("step %d fails and is not told", n)
		}
		if now := s.seen(t); !maps.Equal(now, before) {
			t.Errorf("step %d (%v): %v, want %v", n, err, now, before)
		}
	}
}

// An agent that is killed at any rename, and the next one too: the one after
// these puts back what was there, and then does it.
func TestReplaceKilled(t *testing.T) {
	type kill struct{}
	run := func(s *replacement, after int, f func() error) (killed bool, err error) {
		n := 0
		s.step = func(string) error {
			if n++; n > after {
				panic(kill{})
			}
			return nil
		}
		defer func() {
			s.step = noStep
			if r := recover(); r != nil {
				if _, ours := r.(kill); !ours {
					panic(r)
				}
				killed = true
			}
		}()
		return false, f()
	}
	kills := 0
	for first := 0; ; first++ {
		for second := first % 5; ; second += 5 {
			s, before, after := scene(t)
			swapping := func() error { _, err := s.swap(); return err }
			killed, err := run(s, first, swapping)
			if err != nil {
				t.Fatal(err)
			}
			if !killed {
				if t.Logf("%d kills", kills); kills < 50 {
					t.Error("too few")
				}
				return
			}
			kills++
			undoing := func() error { _, err := s.before(); return err }
			_, begun := os.Stat(s.journal())
			if _, err := s.discard(); err == nil && begun == nil {
				t.Fatalf("killed at %d: the only contents are discarded", first)
			}
			again, err := run(s, second, undoing)
			if err != nil {
				t.Fatalf("killed at %d and %d: %v", first, second, err)
			}
			if again {
				kills++
				if _, err := s.before(); err != nil {
					t.Fatalf("killed at %d and %d: %v", first, second, err)
				}
			}
			if now := s.seen(t); !maps.Equal(now, before) {
				t.Fatalf("killed at %d and %d: %v, want %v", first, second, now, before)
			}
			plant(t, s.ready(), map[string]string{inBoth + "/meta.json": "new both", inNew + "/meta.json": "new", "wal/00000000": "new wal", "chunks_head/000009": "new chunks"})
			if _, err := s.swap(); err != nil {
				t.Fatal(err)
			}
			if _, err := s.discard(); err != nil {
				t.Fatal(err)
			}
			if now := s.seen(t); !maps.Equal(now, after) {
				t.Fatalf("killed at %d and %d, then done: %v, want %v", first, second, now, after)
			}
			if !again {
				break
			}
		}
	}
}

// What a server makes while all is moved is not left among the new.
func TestReplaceServerMakesMore(t *testing.T) {
	s, before, _ := scene(t)
	s.step = func(name string) error {
		if name == "published" {
			plant(t, s.dir, map[string]string{inOld + "/meta.json": "made meanwhile"})
		}
		return nil
	}
	_, err := s.swap()
	if err == nil || !strings.Contains(err.Error(), "a server made "+inOld+" meanwhile") {
		t.Errorf("got %v", err)
	}
	if now := s.seen(t); !maps.Equal(now, before) {
		t.Errorf("%v, want %v", now, before)
	}
}

// A server is kept from opening files, whoever just reads is not, and when the
// old comes back it may again.
func TestHold(t *testing.T) {
	s, _, _ := scene(t)
	start := func(script string) *exec.Cmd {
		cmd := exec.Command("sh", "-c", script+"; echo open; read -r x; exec 4<lock && echo opened; read -r x")
		cmd.Dir, cmd.Env = s.dir, os.Environ()
		return cmd
	}
	type side struct {
		cmd   *exec.Cmd
		write func(string)
		read  func() string
	}
	talk := func(cmd *exec.Cmd) side {
		in, err1 := cmd.StdinPipe()
		out, err2 := cmd.StdoutPipe()
		if err := errors.Join(err1, err2, cmd.Start()); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { in.Close(); cmd.Wait() })
		return side{cmd, func(l string) { fmt.Fprintln(in, l) }, func() string {
			b := make([]byte, 100)
			n, _ := out.Read(b)
			return strings.TrimSpace(string(b[:n]))
		}}
	}
	server, reader := talk(start("exec 3>>wal/00000007")), talk(start("exec 3<wal/00000007"))
	if server.read() != "open" || reader.read() != "open" {
		t.Fatal("not open")
	}
	limit := func(c side) uint64 {
		var l unix.Rlimit
		if err := unix.Prlimit(c.cmd.Process.Pid, unix.RLIMIT_NOFILE, nil, &l); err != nil {
			t.Fatal(err)
		}
		return l.Cur
	}
	injected := false
	s.step = func(name string) error {
		if name == "write publishing" && limit(server) == 0 && !injected {
			injected = true
			return errors.New("injected")
		}
		return nil
	}
	if _, err := s.swap(); err == nil || limit(server) == 0 {
		t.Errorf("%v: it may open %d files", err, limit(server))
	}
	s.step = noStep
	got, err := s.swap()
	if err != nil || got.Held != 1 || limit(reader) == 0 {
		t.Fatalf("%+v, %v; who reads may open %d", got, err, limit(reader))
	}
	server.write("go")
	reader.write("go")
	if s, r := server.read(), reader.read(); s != "" || r != "opened" {
		t.Errorf("the server says %q, who reads %q", s, r)
	}
}

func TestReplacing(t *testing.T) {
	other, dir := t.TempDir(), t.TempDir()
	plant(t, dir, map[string]string{datadir.AsidePrefix + id + "/" + journalName: "{}"})
	if got, err := FindReplaced([]string{other, dir}, id); err != nil || got != dir {
		t.Errorf("%s, %v", got, err)
	}
	if _, err := FindReplaced([]string{dir}, "../x"); err == nil {
		t.Error("any ID will do")
	}
}
