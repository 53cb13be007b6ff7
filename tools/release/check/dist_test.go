package check

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sassoftware/go-rpmutils"
)

var programs = []string{"kubectl-promdump", "kubectl_complete-promdump", "promdump"}

// dist is a directory that is judged.
type dist struct {
	dir, version string
	commit       string
	time         time.Time
	platforms    []string // linux_amd64
}

func open(t *testing.T, dir, source string) *dist {
	t.Helper()
	d := &dist{dir: dir}
	var m struct{ Version, Commit string }
	d.json(t, "metadata.json", &m)
	d.version, d.commit = m.Version, m.Commit
	seconds, err := strconv.ParseInt(strings.TrimSpace(run(t, source, nil, "git", "show", "-s", "--format=%ct", m.Commit)), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	d.time = time.Unix(seconds, 0).UTC()
	return d
}

func (d *dist) read(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(d.dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func (d *dist) json(t *testing.T, name string, into any) {
	t.Helper()
	if err := json.Unmarshal(d.read(t, name), into); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

// TestRelease judges the directory that PROMDUMP_E2E_DIST names, with all systems, or
// makes one for this machine's system, twice.
func TestRelease(t *testing.T) {
	if dir := os.Getenv("PROMDUMP_E2E_DIST"); dir != "" {
		tools(t, "krew", "validate-krew-manifest")
		d := open(t, dir, root)
		for _, system := range []string{"linux", "darwin", "windows"} {
			d.platforms = append(d.platforms, system+"_amd64", system+"_arm64")
		}
		d.judge(t)
		return
	}
	tools(t, "goreleaser", "cyclonedx-gomod", "krew", "validate-krew-manifest")
	one, two := t.TempDir(), filepath.Join(t.TempDir(), "another place", "and deeper")
	if err := os.MkdirAll(two, 0o777); err != nil {
		t.Fatal(err)
	}
	checkout(t, one) // both at once: who edits files meanwhile makes no difference
	checkout(t, two)
	d := open(t, build(t, one), one)
	d.platforms = []string{runtime.GOOS + "_" + runtime.GOARCH}
	if d.version != version {
		t.Errorf("the release is %s, not %s", d.version, version)
	}
	d.judge(t)

	// What differs from one builder to the next: the place, the time zone, the umask,
	// the times of files.
	old := time.Unix(1e9, 0)
	err := filepath.WalkDir(two, func(path string, _ fs.DirEntry, err error) error { return errors.Join(err, os.Chtimes(path, old, old)) })
	if err != nil {
		t.Fatal(err)
	}
	mask := syscall.Umask(0o077)
	defer syscall.Umask(mask)
	again := files(t, build(t, two, "TZ=Asia/Kathmandu", "HOSTNAME=elsewhere"))
	first := files(t, d.dir)
	if len(first) < 10 {
		t.Errorf("just %d files were compared: %v", len(first), slices.Sorted(maps.Keys(first)))
	}
	for _, name := range slices.Sorted(maps.Keys(first)) {
		if first[name] != again[name] {
			t.Errorf("%s is not the same when it is built elsewhere", name)
		}
	}
	if len(again) != len(first) {
		t.Errorf("%d files are built elsewhere, %d here", len(again), len(first))
	}
}

// files gives the digests of all that users get. The rest is goreleaser's own.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil || slices.Contains([]string{"metadata.json", "artifacts.json", "config.yaml"}, name) {
			return err
		}
		data, err := os.ReadFile(path)
		sum := sha256.Sum256(data)
		all[name] = hex.EncodeToString(sum[:])
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func (d *dist) judge(t *testing.T) {
	found := map[string]bool{}
	for line := range strings.Lines(string(d.read(t, "checksums.txt"))) {
		digest, name, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "  ")
		sum := sha256.Sum256(d.read(t, name))
		if digest != hex.EncodeToString(sum[:]) {
			t.Errorf("checksums.txt has another digest of %s", name)
		}
		found[name] = true
	}
	wanted := map[string]bool{d.agents(): true, d.agents() + ".sha256": true, "promdump-agent_" + d.version + "_linux_amd64.cdx.json": true}
	for _, p := range d.platforms {
		wanted[d.archive(p)] = true
		for _, program := range programs {
			wanted[program+"_"+d.version+"_"+p+".cdx.json"] = true
		}
	}
	packages := slices.Collect(maps.Keys(found))
	packages = slices.DeleteFunc(packages, func(name string) bool { return !strings.HasSuffix(name, ".deb") && !strings.HasSuffix(name, ".rpm") })
	for _, name := range packages {
		wanted[name] = true
	}
	linux := 0
	for _, p := range d.platforms {
		if strings.HasPrefix(p, "linux_") {
			linux++
		}
	}
	if len(packages) != 2*linux {
		t.Errorf("packages: %v; for each of %d architectures there is a deb and an rpm", packages, linux)
	}
	if !maps.Equal(found, wanted) {
		t.Errorf("checksums.txt has\n%q\nand not\n%q", slices.Sorted(maps.Keys(found)), slices.Sorted(maps.Keys(wanted)))
	}
	sums := d.judgeAgents(t)
	for _, p := range d.platforms {
		t.Run(p, func(t *testing.T) { d.judgeArchive(t, p, sums) })
	}
	for _, name := range packages {
		t.Run(name, func(t *testing.T) { d.judgePackage(t, name) })
	}
	t.Run("krew", d.judgeKrew)
	t.Run("image", d.judgeImage)
	t.Run("Dockerfile", d.judgeDockerfile)
}

func (d *dist) agents() string { return "promdump-v" + d.version + ".tar.gz" }

func (d *dist) wrap(platform string) string { return "promdump_" + d.version + "_" + platform }

func (d *dist) archive(platform string) string {
	if strings.HasPrefix(platform, "windows_") {
		return d.wrap(platform) + ".zip"
	}
	return d.wrap(platform) + ".tar.gz"
}

// judgeAgents looks into their archive, and gives the lines by which a client knows
// what is in it.
func (d *dist) judgeAgents(t *testing.T) (sums []string) {
	t.Helper()
	data := d.read(t, d.agents())
	sum := sha256.Sum256(data)
	if got, want := string(d.read(t, d.agents()+".sha256")), hex.EncodeToString(sum[:])+"  "+d.agents()+"\n"; got != want {
		t.Errorf("beside the agents' archive stands %q, not %q", got, want)
	}
	var names []string
	for _, e := range untar(t, data) {
		names = append(names, strings.TrimPrefix(e.name, "promdump-agent-linux-"))
		sum := sha256.Sum256(e.data)
		sums = append(sums, hex.EncodeToString(sum[:])+"  "+e.name+"\n")
	}
	if want := []string{"386", "amd64", "arm", "arm64", "ppc64le", "riscv64", "s390x"}; !slices.Equal(names, want) {
		t.Errorf("agents are there for %v, not for %v", names, want)
	}
	return sums
}

type entry struct {
	name  string
	mode  fs.FileMode
	time  time.Time
	owner string
	data  []byte
}

func untar(t *testing.T, data []byte) (all []entry) {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	return untarPlain(t, z)
}

func untarPlain(t *testing.T, from io.Reader) (all []entry) {
	t.Helper()
	r := tar.NewReader(from)
	for {
		h, err := r.Next()
		if err == io.EOF {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, entry{h.Name, h.FileInfo().Mode(), h.ModTime.UTC(), h.Uname + "/" + h.Gname, body})
	}
}

func unzip(t *testing.T, data []byte) (all []entry) {
	t.Helper()
	z, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range z.File {
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, entry{f.Name, f.Mode(), f.Modified.UTC(), "root/root", body}) // a zip has no owners
	}
	return all
}

// manual has the names of the man pages: there is one for each page of docs/cli.
func manual(t *testing.T) (pages []string) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(root, "docs/cli/*.md"))
	if err != nil || len(names) < 10 {
		t.Fatalf("docs/cli has %d pages, %v", len(names), err)
	}
	for _, name := range names {
		pages = append(pages, strings.ReplaceAll(strings.TrimSuffix(filepath.Base(name), ".md"), "_", "-")+".1")
	}
	return pages
}

// documents are what an archive has beside its programs.
func documents(t *testing.T) []string {
	t.Helper()
	all := []string{"LICENSE", "THIRD_PARTY_NOTICES", "README.md", "CHANGELOG.md"}
	for _, page := range manual(t) {
		all = append(all, "man/"+page)
	}
	for _, shell := range []string{"bash", "fish", "ps1", "zsh"} {
		all = append(all, "completions/promdump."+shell)
	}
	for _, pattern := range []string{"docs/*.md", "docs/cli/*.md", "docs/img/*"} {
		names, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			all = append(all, strings.TrimPrefix(filepath.ToSlash(name), root+"/"))
		}
	}
	return all
}

func (d *dist) judgeArchive(t *testing.T, platform string, sums []string) {
	read := untar
	exe := ""
	if strings.HasPrefix(platform, "windows_") {
		read, exe = unzip, ".exe"
	}
	var names []string
	for _, e := range read(t, d.read(t, d.archive(platform))) {
		name, below := strings.CutPrefix(e.name, d.wrap(platform)+"/")
		if !below {
			t.Errorf("%s is not in the archive's one directory", e.name)
		}
		names = append(names, name)
		want := fs.FileMode(0o644)
		program := strings.TrimSuffix(name, exe)
		isProgram := slices.Contains(programs, program)
		if isProgram {
			want = 0o755
		}
		if e.mode != want || e.owner != "root/root" || !e.time.Equal(d.time) {
			t.Errorf("%s has mode %v, owner %s, time %v; want %v, root/root, %v", name, e.mode, e.owner, e.time, want, d.time)
		}
		if len(e.data) == 0 {
			t.Errorf("%s is empty", name)
		}
		if isProgram {
			d.judgeProgram(t, platform, program, e.data, sums)
		}
	}
	want := documents(t)
	for _, program := range programs {
		want = append(want, program+exe)
	}
	slices.Sort(names)
	slices.Sort(want)
	if !slices.Equal(names, want) {
		t.Errorf("the archive has\n%q\nand not\n%q", names, want)
	}
}

// judgeProgram reads what Go wrote into a program, since most of them do not run here.
func (d *dist) judgeProgram(t *testing.T, platform, name string, data []byte, sums []string) {
	t.Helper()
	info, err := buildinfo.Read(bytes.NewReader(data))
	if err != nil {
		t.Errorf("%s: %v", name, err)
		return
	}
	if info.Main.Version != "v"+d.version {
		t.Errorf("%s says that it is %s, and the release is v%s", name, info.Main.Version, d.version)
	}
	system, arch, _ := strings.Cut(platform, "_")
	settings := map[string]string{}
	for _, s := range info.Settings {
		settings[s.Key] = s.Value
	}
	for key, want := range map[string]string{"GOOS": system, "GOARCH": arch, "CGO_ENABLED": "0", "-trimpath": "true", "vcs.modified": "false", "vcs.revision": d.commit} {
		if settings[key] != want {
			t.Errorf("%s was built with %s=%s, not %s", name, key, settings[key], want)
		}
	}
	if cwd, err := filepath.Abs(root); err != nil || bytes.Contains(data, []byte(filepath.Dir(cwd)+"/")) || bytes.Contains(data, []byte(filepath.Dir(d.dir)+"/")) {
		t.Errorf("%s has the place where it was built in it", name)
	}
	if name == "kubectl-promdump" {
		for _, sum := range sums {
			if !bytes.Contains(data, []byte(sum)) {
				t.Errorf("%s does not know the agent %q", name, sum)
			}
		}
	}

	var bom struct {
		BomFormat  string
		Components []struct{ Name, Version string }
		Metadata   struct {
			Component struct{ Name, Version string }
		}
	}
	d.json(t, name+"_"+d.version+"_"+platform+".cdx.json", &bom)
	if bom.BomFormat != "CycloneDX" || bom.Metadata.Component.Version != "v"+d.version {
		t.Errorf("the SBOM of %s is %s of %+v", name, bom.BomFormat, bom.Metadata.Component)
	}
	listed := map[string]bool{}
	for _, c := range bom.Components {
		listed[c.Name+"@"+c.Version] = true
	}
	for _, dep := range info.Deps {
		if !listed[dep.Path+"@"+dep.Version] {
			t.Errorf("the SBOM of %s does not list %s %s", name, dep.Path, dep.Version)
		}
	}
	if len(info.Deps) < 20 && name != "kubectl_complete-promdump" { // which has Go's library alone
		t.Errorf("%s has %d dependencies, that can't be all", name, len(info.Deps))
	}
}

// judgePackage asks dpkg what is in a deb, and reads an rpm without rpm.
func (d *dist) judgePackage(t *testing.T, name string) {
	got := map[string]fs.FileMode{}
	file := filepath.Join(d.dir, name)
	zsh := "/usr/share/zsh/vendor-completions/_promdump"
	license := "/usr/share/doc/promdump/copyright"
	if strings.HasSuffix(name, ".deb") {
		out, err := exec.CommandContext(t.Context(), "dpkg-deb", "--fsys-tarfile", file).Output()
		if err != nil {
			t.Fatal(err) // CI is Debian
		}
		for _, e := range untarPlain(t, bytes.NewReader(out)) {
			if !e.mode.IsDir() {
				got[path.Clean("/"+e.name)] = e.mode
			}
			if !e.time.Equal(d.time) {
				t.Errorf("%s has the time %v", e.name, e.time)
			}
		}
		if says := run(t, d.dir, nil, "dpkg-deb", "--field", file, "Package", "Maintainer", "Depends"); !strings.Contains(says, "Package: promdump\n") || strings.Contains(says, "Depends:") {
			t.Errorf("the package says\n%s", says)
		}
	} else {
		zsh, license = "/usr/share/zsh/site-functions/_promdump", "/usr/share/licenses/promdump/LICENSE"
		f, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		rpm, err := rpmutils.ReadRpm(f)
		if err != nil {
			t.Fatal(err)
		}
		all, err := rpm.Header.GetFiles()
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range all {
			if e.Mode()&0o170000 == 0o100000 {
				got[e.Name()] = fs.FileMode(e.Mode() & 0o7777)
			}
			if e.Mtime() != int(d.time.Unix()) {
				t.Errorf("%s has the time %d", e.Name(), e.Mtime())
			}
		}
		if host, err := rpm.Header.GetString(rpmutils.BUILDHOST); err != nil || host != "localhost" {
			t.Errorf("the package was built on %q, %v", host, err)
		}
	}
	want := map[string]fs.FileMode{
		license: 0o644, zsh: 0o644,
		"/usr/share/bash-completion/completions/promdump":    0o644,
		"/usr/share/fish/vendor_completions.d/promdump.fish": 0o644,
		"/usr/share/doc/promdump/README.md":                  0o644,
		"/usr/share/doc/promdump/THIRD_PARTY_NOTICES":        0o644,
	}
	for _, page := range manual(t) {
		want["/usr/share/man/man1/"+page+".gz"] = 0o644
	}
	for _, program := range programs {
		want["/usr/bin/"+program] = 0o755
	}
	if !maps.Equal(got, want) {
		t.Errorf("the package has\n%v\nand not\n%v", got, want)
	}
}
