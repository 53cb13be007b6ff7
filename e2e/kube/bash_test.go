//go:build linux

package kube

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// shell is a bash at a terminal, with the completions of a distribution.
type shell struct {
	t    *testing.T
	keys interface{ Write([]byte) (int, error) }

	mu  sync.Mutex
	out bytes.Buffer
}

func (s *shell) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.out.Write(p)
}

// text is what the terminal was sent since the last keys.
func (s *shell) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.out.String()
}

// types sends keys and waits for what they bring.
func (s *shell) types(keys, want string) {
	s.t.Helper()
	s.mu.Lock()
	s.out.Reset()
	s.mu.Unlock()
	if _, err := s.keys.Write([]byte(keys)); err != nil {
		s.t.Fatal(err)
	}
	if !poll(20*time.Second, func() bool { return strings.Contains(s.text(), want) }) {
		s.t.Errorf("%q does not bring %q: %q", keys, want, s.text())
	}
}

// What a person sees who presses Tab, in promdump and behind kubectl promdump.
func TestBash(t *testing.T) {
	p := startPod(t, "stack", podOptions{quiet: true})
	const library = "/usr/share/bash-completion/bash_completion"
	if _, err := os.Stat(library); err != nil {
		t.Fatalf("%v: apt-get install bash-completion", err)
	}
	dir := t.TempDir()
	for _, name := range []string{"incident.tar.gz", "incident.txt"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := &shell{t: t}
	cmd := exec.Command("script", "-qfec", "bash --norc --noprofile -i", "/dev/null")
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, s, s
	// A line that is wider than the terminal is drawn in pieces.
	cmd.Env = append(pluginCommand(t, booted(t).config).Env, "HOME="+dir, "HISTFILE=", "TERM=dumb", "PS1=> ", "COLUMNS=500")
	cmd.Env = append(cmd.Env, "PATH="+filepath.Dir(program(t, "promdump"))+":"+filepath.Dir(booted(t).kubectl())+":"+os.Getenv("PATH"))
	keys, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	s.keys = keys
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	t.Cleanup(func() {
		keys.Close()
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			_ = cmd.Process.Kill() // its pseudoterminal closes, which ends bash
		}
	})
	s.types(fmt.Sprintf("stty cols 500; . %s; . <(promdump completion bash); . <(kubectl completion bash); PS1='re''ady> '\n", library), "ready> ")
	clear := "\x15" // Ctrl-U
	s.types("promdump verify inc\t", "incident.tar.gz ")
	s.types(clear+"promdump dump --head r\t", "--head raw ")
	s.types(clear+"kubectl promdump rest\t", "promdump restore ")
	s.types(clear+"kubectl promdump --context r\t", "--context rig ")
	s.types(clear+"kubectl promdump -n "+p.namespace+" -p "+p.name[:len(p.name)-2]+"\t", p.name+" ")
	s.types(clear+"kubectl promdump -n "+p.namespace+" -p prometheus/\t", "prometheus/stack ")
	s.types(clear+"kubectl promdump meta -n "+p.namespace+" -p prometheus/stack -c p\t", "-c prometheus ")
	t.Log(s.text())
}
