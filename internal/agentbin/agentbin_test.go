package agentbin

import (
	"bytes"
	"context"
	"crypto/sha256"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// What make build put into bin is what it says it is.
func TestEmbedded(t *testing.T) {
	machines := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}
	compressed, err := fs.Glob(bin, "bin/*.gz")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fs.Stat(bin, "bin/SHA256SUMS"); errors.Is(err, fs.ErrNotExist) {
		t.Log("no agents were built (make build): that none is embedded is all that is tested")
		for arch := range machines {
			if a, ok := Embedded(arch); ok {
				t.Errorf("%s: %d bytes without a digest", arch, a.Size)
			}
		}
		return
	}
	if len(builtIn(bin)) < len(compressed) || len(compressed) == 0 {
		t.Fatalf("%d agents, %d digests", len(compressed), len(builtIn(bin)))
	}
	for _, file := range compressed {
		arch := strings.TrimSuffix(strings.TrimPrefix(file, "bin/"+ProgramName("")), ".gz")
		a, ok := Embedded(arch)
		if !ok {
			t.Errorf("%s has no digest", file)
			continue
		}
		program := programOf(t, a)
		f, err := elf.NewFile(bytes.NewReader(program))
		if err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		if want, ok := machines[arch]; ok && f.Machine != want {
			t.Errorf("%s is for %v", file, f.Machine)
		}
		if f.Type != elf.ET_EXEC {
			t.Errorf("%s is a %v", file, f.Type)
		}
		b, err := Get(t.Context(), arch, Options{Digests: Digests{arch: {}}})
		if err != nil || b.Digest != a.Digest || b.From != "embedded" {
			t.Errorf("Get %s: %v, %v", arch, b, err)
		}
		// By force it is another's, though it is embedded.
		s := serve(t, false)
		s.set(archivePath, archiveOf(t, arch, "newer"))
		o := s.options(t, Digests{arch: sumOf("newer")})
		o.Force = true
		if b, err = Get(t.Context(), arch, o); err != nil || string(programOf(t, b)) != "newer" {
			t.Errorf("Get %s by force: %v", arch, err)
		}
	}
}

// programOf reads an agent as its users do and holds it to what it says of itself.
func programOf(t *testing.T, a *Agent) []byte {
	t.Helper()
	r, err := a.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	program, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	if got := sha256.Sum256(program); got != a.Digest || int64(len(program)) != a.Size || a.OS != "linux" {
		t.Errorf("%s %s: %d bytes of %x, it says %d of %x", a.OS, a.Arch, len(program), got, a.Size, a.Digest)
	}
	return program
}

// An agent without a digest, or a digest without an agent, is none.
func TestNotEmbedded(t *testing.T) {
	good := strings.Repeat("0a", 32)
	agent := "bin/" + ProgramName("amd64") + ".gz"
	for name, fsys := range map[string]fstest.MapFS{
		"nothing":         {"bin/README": {}},
		"no digests":      {agent: {Data: []byte("12345")}},
		"another's":       {agent: {Data: []byte("12345")}, "bin/SHA256SUMS": {Data: []byte(good + "  " + ProgramName("arm64") + "\n")}},
		"no agent":        {"bin/SHA256SUMS": {Data: []byte(good + "  " + ProgramName("amd64") + "\n")}},
		"broken digests":  {agent: {Data: []byte("12345")}, "bin/SHA256SUMS": {Data: []byte(good + "0  " + ProgramName("amd64") + "\n")}},
		"an empty agent":  {agent: {}, "bin/SHA256SUMS": {Data: []byte(good + "  " + ProgramName("amd64") + "\n")}},
		"digest of other": {agent: {Data: []byte("12345")}, "bin/SHA256SUMS": {Data: []byte(good + "  amd64\n")}},
	} {
		if a, ok := embedded(fsys, "amd64"); ok {
			t.Errorf("%s: %v", name, a)
		}
	}
}

// What pack writes is what is embedded and what is downloaded, and always the same.
func TestPack(t *testing.T) {
	// The test cache knows of what a test looks at, not of what it runs.
	if _, err := os.Stat("pack/main.go"); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	programs := map[string][]byte{
		"amd64":   elfFor(elf.EM_X86_64, "an agent"),
		"arm64":   elfFor(elf.EM_AARCH64, strings.Repeat("another ", 1000)),
		"riscv64": elfFor(elf.EM_RISCV, "not embedded"),
	}
	var files []string
	for arch, data := range programs {
		file := filepath.Join(dir, ProgramName(arch))
		if err := os.WriteFile(file, data, 0o755); err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	pack := func(name string) string {
		out := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Join(out, "bin"), 0o755); err != nil {
			t.Fatal(err)
		}
		stale := filepath.Join(out, "bin", ProgramName("ppc64le")+".gz")
		if err := os.WriteFile(stale, []byte("of an earlier build"), 0o644); err != nil {
			t.Fatal(err)
		}
		args := append([]string{"run", "./pack", "-o", filepath.Join(out, "bin"), "-embed", "amd64,arm64", "-tar", filepath.Join(out, "promdump-v1.2.3.tar.gz")}, files...)
		if text, err := exec.CommandContext(t.Context(), "go", args...).CombinedOutput(); err != nil {
			t.Fatalf("pack: %v\n%s", err, text)
		}
		return out
	}
	first := pack("1")
	slices.Reverse(files)
	second := pack("2")
	names := []string{"promdump-v1.2.3.tar.gz", "promdump-v1.2.3.tar.gz.sha256", "bin/SHA256SUMS", "bin/" + ProgramName("amd64") + ".gz", "bin/" + ProgramName("arm64") + ".gz"}
	for _, name := range names {
		a, err := os.ReadFile(filepath.Join(first, name))
		if err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(filepath.Join(second, name)); err != nil || !bytes.Equal(a, b) {
			t.Errorf("%s is not the same twice: %v", name, err)
		}
		if strings.HasSuffix(name, "gz") && !bytes.Equal(a[3:8], make([]byte, 5)) {
			t.Errorf("%s has a name or a time in it: %x", name, a[:10])
		}
	}
	if left, _ := filepath.Glob(filepath.Join(first, "bin", "*.gz")); len(left) != 2 {
		t.Errorf("embedded: %v", left)
	}

	fsys := os.DirFS(first)
	for _, arch := range []string{"amd64", "arm64"} {
		a, ok := embedded(fsys, arch)
		if !ok || !bytes.Equal(programOf(t, a), programs[arch]) {
			t.Errorf("%s is not embedded as it was", arch)
		}
	}
	digests := builtIn(fsys)
	if len(digests) != 3 || digests["riscv64"] != sha256.Sum256(programs["riscv64"]) {
		t.Errorf("digests: %x", digests)
	}

	// And its archive by its digest, as it lies there.
	s := serve(t, true)
	for _, name := range names[:2] {
		data, err := os.ReadFile(filepath.Join(first, name))
		if err != nil {
			t.Fatal(err)
		}
		s.set("/"+name, data)
	}
	for _, d := range []Digests{digests, {}} {
		a, err := Get(t.Context(), "riscv64", s.options(t, d))
		if err != nil || !bytes.Equal(programOf(t, a), programs["riscv64"]) {
			t.Errorf("download with %d digests: %v", len(d), err)
		}
	}
}

// elfFor is a program's header, little-endian and 64 bits wide, and more.
func elfFor(m elf.Machine, more string) []byte {
	h := make([]byte, 64)
	copy(h, "\x7fELF\x02\x01\x01")
	h[16], h[18], h[19], h[20], h[52], h[54], h[58] = 2, byte(m), byte(m>>8), 1, 64, 56, 64
	return append(h, more...)
}

func TestArch(t *testing.T) {
	for machine, want := range map[string]string{"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386", "s390x": "s390x", "arm64": "arm64", "": ""} {
		if got := Arch(machine); got != want {
			t.Errorf("%q: got %q, want %q", machine, got, want)
		}
	}
}

func TestRelease(t *testing.T) {
	for version, want := range map[string]string{
		"v1.2.3": "v1.2.3", "1.2.3": "v1.2.3", "v0.10.0-rc.1": "v0.10.0-rc.1",
		"": "", "(devel)": "", "(unknown)": "", "v1.2": "", "v1.2.3+dirty": "", "v1.2.3/../x": "", "v1.2.3-a/b": "",
		"v0.0.0-20261124133044-0123456789ab": "", "v1.2.4-0.20261124133044-0123456789ab": "", "v1.2.3-rc.1.0.20261124133044-0123456789ab": "",
	} {
		if got := release(version); got != want {
			t.Errorf("%q: got %q, want %q", version, got, want)
		}
	}
}

func TestLocate(t *testing.T) {
	for _, c := range []struct{ version, url, want, file string }{
		{"v1.2.3", "", "https://github.com/promdump/promdump/releases/download/v1.2.3/promdump-v1.2.3.tar.gz", "promdump-v1.2.3.tar.gz"},
		{"1.2.3", "", "https://github.com/promdump/promdump/releases/download/v1.2.3/promdump-v1.2.3.tar.gz", "promdump-v1.2.3.tar.gz"},
		{"1.2.3", "https://mirror/x", "https://mirror/x/promdump-v1.2.3.tar.gz", "promdump-v1.2.3.tar.gz"},
		{"v1.2.3", "https://mirror/x/?token=1", "https://mirror/x/promdump-v1.2.3.tar.gz?token=1", "promdump-v1.2.3.tar.gz"},
		{"v1.2.3", "http://mirror/agents.tar.gz", "http://mirror/agents.tar.gz", "promdump-v1.2.3.tar.gz"},
		{"(devel)", "http://mirror/agents.tar.gz", "http://mirror/agents.tar.gz", "promdump-agents-"},
		{"(devel)", "", "", "no release to download it from"},
		{"(devel)", "https://mirror/x", "", "which release's agents"},
		{"v1.2.3", "mirror/x", "", "must begin with https://"},
		{"v1.2.3", "ftp://mirror/x", "", "must begin with https://"},
		{"v1.2.3", "https://user:secret@mirror:x/", "", "invalid port"},
		{"v1.2.3", "ftp://user:secret@mirror/", "", "must begin with https://"},
	} {
		p, err := locate(Options{Version: c.version, URL: c.url, Dir: "dir"})
		if c.want == "" {
			mustFail(t, err, c.file)
			if err != nil && strings.Contains(err.Error(), "secret") {
				t.Errorf("tells a password: %v", err)
			}
			continue
		}
		if err != nil || p.url.String() != c.want || !strings.HasPrefix(p.file, filepath.Join("dir", c.file)) {
			t.Errorf("%s, %s: %+v, %v", c.version, c.url, p, err)
		}
	}
}

// mustFail wants an error as a person needs it: one line, a hint, the exit code.
func mustFail(t *testing.T, err error, text string) {
	t.Helper()
	e, ok := errors.AsType[*Error](err)
	if !ok {
		t.Errorf("got %v, want an Error with %q", err, text)
		return
	}
	if !strings.Contains(err.Error(), text) || strings.Contains(err.Error(), "\n") {
		t.Errorf("got %q, want %q in it", err, text)
	}
	if e.Hint() == "" || e.ExitCode() != 12 {
		t.Errorf("%v: hint %q, exit code %d", err, e.Hint(), e.ExitCode())
	}
}

func TestCanceledBefore(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s := serve(t, false)
	s.set(archivePath, archiveOf(t, "mips", "program"))
	o := s.options(t, Digests{"mips": sha256.Sum256([]byte("program"))})
	_, err := Get(ctx, "mips", o)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	mustBeEmpty(t, o.Dir)
}

// A build that is no release has nothing to download from: its own agent stays usable by
// force too, unless another is named.
func TestForceWithoutRelease(t *testing.T) {
	fsys := embeddedFS(t, "amd64", "its own")
	for _, version := range []string{"(devel)", "", "v0.0.0-20260101000000-0123456789ab", "1234567"} {
		a, err := get(t.Context(), fsys, "amd64", Options{Version: version, Force: true})
		if err != nil || string(programOf(t, a)) != "its own" || len(a.Notes) != 1 || !strings.Contains(a.Notes[0], "is no release") {
			t.Errorf("%q: %v, %v", version, a, err)
		}
		if a, err = get(t.Context(), fsys, "amd64", Options{Version: version}); err != nil || len(a.Notes) != 0 {
			t.Errorf("%q, not by force: %v, %v", version, a, err)
		}
	}
	if a, err := get(t.Context(), fsys, "arm64", Options{Version: "(devel)", Force: true}); err == nil {
		t.Errorf("an agent for another machine: %v", a)
	}
	s := serve(t, false)
	s.set(archivePath, archiveOf(t, "amd64", "another"))
	o := s.options(t, Digests{"amd64": sumOf("another")})
	o.Force = true
	if a, err := get(t.Context(), fsys, "amd64", o); err != nil || string(programOf(t, a)) != "another" {
		t.Errorf("by URL: %v, %v", a, err)
	}
}

func embeddedFS(t *testing.T, arch, program string) fstest.MapFS {
	t.Helper()
	a, err := packed(arch, []byte(program), "test")
	if err != nil {
		t.Fatal(err)
	}
	sums := fmt.Sprintf("%x  %s\n", a.Digest, ProgramName(arch))
	return fstest.MapFS{"bin/" + ProgramName(arch) + ".gz": {Data: a.Gzip}, "bin/SHA256SUMS": {Data: []byte(sums)}}
}
