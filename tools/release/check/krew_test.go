package check

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// kubectl is the machine's, or the one that the rig of the Kubernetes tests built.
func kubectl(t *testing.T) string {
	t.Helper()
	if file, err := exec.LookPath("kubectl"); err == nil {
		return file
	}
	dir := os.Getenv("PROMDUMP_E2E_RIG")
	if dir == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			t.Fatal(err)
		}
		dir = filepath.Join(cache, "promdump-e2e", "rig")
	}
	file := filepath.Join(dir, "bin", "kubectl")
	if _, err := os.Stat(file); err != nil {
		t.Fatalf("no kubectl here to run the plugin by: %v (e2e/rig/build/all.sh builds one)", err)
	}
	return file
}

// judgeKrew has krew's own code judge the manifest and install each archive by it,
// and runs what was installed as a user would.
func (d *dist) judgeKrew(t *testing.T) {
	bin := tools(t, "krew", "validate-krew-manifest")
	manifest, err := filepath.Abs(filepath.Join(d.dir, "krew", "promdump.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	// The archives are not yet where the manifest says that they are.
	run(t, ".", nil, filepath.Join(bin, "validate-krew-manifest"), "-skip-install", "-manifest", manifest)
	if n := strings.Count(string(d.read(t, "krew/promdump.yaml")), "- selector:"); n != len(d.platforms) {
		t.Errorf("the manifest has %d platforms, not %d", n, len(d.platforms))
	}
	for _, p := range d.platforms {
		system, arch, _ := strings.Cut(p, "_")
		t.Run(p, func(t *testing.T) {
			archive, err := filepath.Abs(filepath.Join(d.dir, d.archive(p)))
			if err != nil {
				t.Fatal(err)
			}
			home := t.TempDir()
			env := []string{"HOME=" + home, "KREW_ROOT=" + filepath.Join(home, "krew"), "KREW_NO_UPGRADE_CHECK=1", "KREW_OS=" + system, "KREW_ARCH=" + arch}
			run(t, home, env, filepath.Join(bin, "krew"), "install", "--manifest", manifest, "--archive", archive)
			program := "kubectl-promdump"
			if system == "windows" {
				program += ".exe"
			}
			there := filepath.Join(home, "krew", "store", "promdump", "v"+d.version)
			for _, name := range []string{program, strings.Replace(program, "kubectl-", "kubectl_complete-", 1), "LICENSE", "THIRD_PARTY_NOTICES"} {
				if fi, err := os.Stat(filepath.Join(there, name)); err != nil || fi.Size() == 0 {
					t.Errorf("krew installs no %s: %v", name, err)
				}
			}
			if system == runtime.GOOS && arch == runtime.GOARCH {
				d.judgeInstalled(t, home, append(env, "PATH="+filepath.Join(home, "krew", "bin")+":/usr/bin:/bin"))
			}
		})
	}
}

// judgeInstalled has kubectl find the plugin, and the plugin look into a dump.
func (d *dist) judgeInstalled(t *testing.T, home string, env []string) {
	kubectl := kubectl(t)
	says := run(t, home, env, kubectl, "promdump", "version")
	if want := "kubectl promdump v" + d.version + "\n"; !strings.HasPrefix(says, want) {
		t.Errorf("kubectl promdump version says %q, not %q", says, want)
	}
	data, dump := filepath.Join(home, "data"), filepath.Join(home, "dump.tar.gz")
	run(t, root, nil, "go", "run", "./internal/tsdbtest/mktsdb", "demo", data, "1767300000")
	var promdump string
	for _, a := range d.artifacts(t) {
		if a.Name == "promdump" && a.OS == runtime.GOOS && a.Arch == runtime.GOARCH {
			promdump = filepath.Join(filepath.Dir(d.dir), a.Path)
		}
	}
	run(t, home, nil, promdump, "dump", "-d", data, "--min-time", "0", "-t", dump)
	run(t, home, env, kubectl, "promdump", "verify", dump)
	if says := run(t, home, env, kubectl, "promdump", "meta", dump); !strings.Contains(says, "Total number of blocks") {
		t.Errorf("kubectl promdump meta says\n%s", says)
	}
}

type artifact struct {
	Name, Path, Type string
	OS               string `json:"goos"`
	Arch             string `json:"goarch"`
}

func (d *dist) artifacts(t *testing.T) (programs []artifact) {
	t.Helper()
	var all []artifact
	d.json(t, "artifacts.json", &all)
	for _, a := range all {
		if a.Type == "Binary" {
			programs = append(programs, a)
		}
	}
	return programs
}
