//go:build linux

package kube

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// Behind kubectl promdump kubectl itself offers what there is.
func TestComplete(t *testing.T) {
	p := startPod(t, "ro", podOptions{quiet: true})
	offered := func(config string, typed ...string) []string {
		t.Helper()
		cmd := pluginCommand(t, config)
		cmd.Args = append([]string{cmd.Args[0], "__complete", "promdump"}, typed...)
		r := finish(t, cmd)
		if r.code != 0 || strings.Contains(r.stderr, "rror") {
			t.Errorf("%q: exit %d: %s", typed, r.code, r.stderr)
		}
		var words []string
		for line := range strings.Lines(r.stdout) {
			word, _, _ := strings.Cut(strings.TrimSpace(line), "\t")
			words = append(words, word)
		}
		return words
	}
	config := booted(t).config
	for _, c := range []struct {
		typed []string
		want  string
	}{
		{[]string{""}, "restore"},
		{[]string{"-n", p.namespace, "-p", ""}, p.name},
		{[]string{"meta", "-n", p.namespace, "-p", p.name, "-c", ""}, p.container},
		{[]string{"dump", "-n", ""}, p.namespace},
		{[]string{"--context", ""}, "rig"},
		{[]string{"dump", "--via", ""}, "remote-read"},
	} {
		if got := offered(config, c.typed...); !slices.Contains(got, c.want) {
			t.Errorf("%q: %q, no %s", c.typed, got, c.want)
		}
	}
	// Where nothing can be known nothing is offered, and nothing is said.
	nowhere := t.TempDir() + "/config"
	if err := os.WriteFile(nowhere, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := offered(nowhere, "dump", "-p", ""); !slices.Equal(got, []string{":4"}) {
		t.Errorf("without a cluster: %q", got)
	}
}
