package main

import (
	"debug/elf"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/promdump/promdump/internal/agentbin"
)

// header is that of a program: little-endian, 64 bits wide. With interp it asks
// for a loader.
func header(m elf.Machine, interp bool) []byte {
	h := make([]byte, 64+56)
	copy(h, "\x7fELF\x02\x01\x01")
	h[16], h[18], h[19], h[20], h[52], h[54], h[58] = 2, byte(m), byte(m>>8), 1, 64, 56, 64
	if interp {
		h[32], h[56], h[64] = 64, 1, byte(elf.PT_INTERP)
	}
	return h
}

func TestRefused(t *testing.T) {
	good := header(elf.EM_X86_64, false)
	big := header(elf.EM_S390, false)
	for _, c := range []struct {
		names   []string
		data    []byte
		embed   string
		problem string
	}{
		{[]string{agentbin.ProgramName("amd64")}, good, "", ""},
		{[]string{agentbin.ProgramName("arm64")}, good, "", "not for arm64"},
		{[]string{agentbin.ProgramName("s390x")}, big, "", "not for s390x"}, // the wrong way round
		{[]string{agentbin.ProgramName("amd64")}, header(elf.EM_X86_64, true), "", "not static"},
		{[]string{agentbin.ProgramName("amd64")}, []byte("#!/bin/sh\n"), "", "not an ELF program"},
		{[]string{agentbin.ProgramName("vax")}, good, "", `"vax" is not known`},
		{[]string{"promdump"}, good, "", "the name must be"},
		{[]string{agentbin.ProgramName("amd64"), "again/" + agentbin.ProgramName("amd64")}, good, "", "two programs"},
		{[]string{agentbin.ProgramName("amd64")}, good, "amd64,arm64", `no program for "arm64"`},
	} {
		dir := t.TempDir()
		out := filepath.Join(dir, "out")
		if err := os.MkdirAll(out, 0o755); err != nil {
			t.Fatal(err)
		}
		var files []string
		for _, name := range c.names {
			file := filepath.Join(dir, name)
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, c.data, 0o755); err != nil {
				t.Fatal(err)
			}
			files = append(files, file)
		}
		// What was there before is not touched by what fails.
		before := filepath.Join(out, "SHA256SUMS")
		if err := os.WriteFile(before, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		err := run(out, c.embed, "", files)
		if c.problem == "" {
			if err != nil {
				t.Errorf("%v: %v", c.names, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), c.problem) {
			t.Errorf("%v: got %v, want %s", c.names, err, c.problem)
		}
		if text, err := os.ReadFile(before); err != nil || len(text) != 0 {
			t.Errorf("%v: changed what was there: %q, %v", c.names, text, err)
		}
	}
}
