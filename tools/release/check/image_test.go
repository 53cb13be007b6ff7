package check

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
)

// judgeImage reads the layout as a registry would, and holds it to what the archive
// has.
func (d *dist) judgeImage(t *testing.T) {
	top, err := layout.ImageIndexFromPath(filepath.Join(d.dir, "image", "oci"))
	if err != nil {
		t.Fatal(err)
	}
	list, err := top.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	if len(list.Manifests) != 1 || list.Manifests[0].Annotations["io.containerd.image.name"] != "ghcr.io/promdump/promdump:v"+d.version {
		t.Fatalf("the layout names %+v", list.Manifests)
	}
	index, err := top.ImageIndex(list.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	images, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	var platforms []string
	for _, m := range images.Manifests {
		platforms = append(platforms, m.Platform.OS+"_"+m.Platform.Architecture)
		img, err := index.Image(m.Digest)
		if err != nil {
			t.Fatal(err)
		}
		d.judgeRoot(t, img, m.Platform.Architecture)
		d.judgeConfig(t, img, m.Platform.Architecture)
	}
	want := slices.DeleteFunc(slices.Clone(d.platforms), func(p string) bool { return !strings.HasPrefix(p, "linux_") })
	if slices.Sort(platforms); !slices.Equal(platforms, want) {
		t.Errorf("the image is for %v, not for %v", platforms, want)
	}

	inTar := map[string][]byte{}
	for _, e := range untarPlain(t, bytes.NewReader(d.read(t, "promdump_"+d.version+"_image.tar"))) {
		if !e.mode.IsDir() {
			inTar[e.name] = e.data
		}
	}
	same := 0
	err = filepath.WalkDir(filepath.Join(d.dir, "image", "oci"), func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		rel, err := filepath.Rel(d.dir, name)
		if sum := sha256.Sum256(d.read(t, rel)); filepath.Base(filepath.Dir(name)) == "sha256" && e.Name() != hex.EncodeToString(sum[:]) {
			t.Errorf("%s is not what its name says", rel)
		}
		if bytes.Equal(d.read(t, rel), inTar[strings.TrimPrefix(filepath.ToSlash(rel), "image/oci/")]) {
			same++
		}
		return err
	})
	if err != nil || same != len(inTar) || same < 5 {
		t.Errorf("%d of %d files of the image's tar are those of the layout: %v", same, len(inTar), err)
	}
}

// judgeConfig looks at what just the layout has: a Dockerfile knows neither the
// release nor its time.
func (d *dist) judgeConfig(t *testing.T, img v1.Image, arch string) {
	t.Helper()
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	labels := config.Config.Labels
	if !config.Created.Time.Equal(d.time) || labels["org.opencontainers.image.version"] != "v"+d.version || labels["org.opencontainers.image.revision"] != d.commit {
		t.Errorf("the config of the image for %s: %+v", arch, config)
	}
	for _, e := range rootOf(t, img) {
		if !e.time.Equal(d.time) {
			t.Errorf("%s has the time %v", e.name, e.time)
		}
	}
}

// judgeDockerfile has it built by buildah, and holds it to the same. It needs no
// network: there is no base.
func (d *dist) judgeDockerfile(t *testing.T) {
	if _, err := exec.LookPath("buildah"); err != nil {
		const env = "PROMDUMP_E2E_REQUIRE_BUILDER"
		if os.Getenv(env) == "1" {
			t.Fatalf("%v, and %s=1", err, env)
		}
		t.Skipf("SKIPPED, the Dockerfile is not proven here: %v (%s=1 makes this an error)", err, env)
	}
	store := t.TempDir()
	buildah := func(args ...string) {
		t.Helper()
		run(t, root, nil, append([]string{"buildah", "--storage-driver", "vfs", "--root", filepath.Join(store, "root"), "--runroot", filepath.Join(store, "run")}, args...)...)
	}
	for _, p := range d.platforms {
		system, arch, _ := strings.Cut(p, "_")
		if system != "linux" {
			continue
		}
		name, out := "promdump-"+arch, filepath.Join(store, arch)
		buildah("bud", "--isolation", "chroot", "--platform", system+"/"+arch, "-t", name, "-f", "Dockerfile", filepath.Join(d.dir, "image"))
		buildah("push", name, "oci:"+out)
		index, err := layout.ImageIndexFromPath(out)
		if err != nil {
			t.Fatal(err)
		}
		list, err := index.IndexManifest()
		if err != nil || len(list.Manifests) != 1 {
			t.Fatalf("%+v, %v", list, err)
		}
		img, err := index.Image(list.Manifests[0].Digest)
		if err != nil {
			t.Fatal(err)
		}
		d.judgeRoot(t, img, arch)
	}
}

// judgeRoot looks at what a container gets.
func (d *dist) judgeRoot(t *testing.T, img v1.Image, arch string) {
	t.Helper()
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	c := config.Config
	if config.OS != "linux" || config.Architecture != arch || c.User != "65534:65534" || len(c.Cmd) != 0 ||
		!slices.Equal(c.Entrypoint, []string{"/usr/bin/promdump"}) || !slices.Equal(c.Env, []string{"PATH=/usr/bin"}) {
		t.Errorf("the config of the image for %s: %+v", arch, config)
	}
	got := map[string]fs.FileMode{}
	for _, e := range rootOf(t, img) {
		got[e.name] = e.mode
		if e.name == "usr/bin/promdump" {
			for _, a := range d.artifacts(t) {
				if a.Name == path.Base(e.name) && a.OS == "linux" && a.Arch == arch && !bytes.Equal(e.data, readFile(t, filepath.Join(filepath.Dir(d.dir), a.Path))) {
					t.Errorf("the image for %s has another promdump than the archive", arch)
				}
			}
		}
	}
	want := map[string]fs.FileMode{
		"usr/": fs.ModeDir | 0o755, "usr/bin/": fs.ModeDir | 0o755, "tmp/": fs.ModeDir | fs.ModeSticky | 0o777,
		"usr/bin/promdump": 0o755, "usr/bin/promdump-agent": 0o755,
	}
	for name, mode := range want {
		if got[name] != mode {
			t.Errorf("%s has mode %v in the image for %s, not %v", name, got[name], arch, mode)
		}
	}
	if len(got) != len(want) {
		t.Errorf("the image for %s has %v", arch, got)
	}
}

// rootOf is what is in the only layer of an image.
func rootOf(t *testing.T, img v1.Image) []entry {
	t.Helper()
	layers, err := img.Layers()
	if err != nil || len(layers) != 1 {
		t.Fatalf("%d layers, %v", len(layers), err)
	}
	r, err := layers[0].Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	return untarPlain(t, r)
}
