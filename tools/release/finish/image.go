package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

const (
	imageName = "ghcr.io/promdump/promdump"
	user      = "65534:65534" // who runs Prometheus' own images
)

// artifact is a line of artifacts.json.
type artifact struct {
	Name string `json:"name"`
	Path string `json:"path"` // relative to the source
	OS   string `json:"goos"`
	Arch string `json:"goarch"`
	Type string `json:"type"`
}

// image has nothing but the two programs, promdump and the agent: it is what --via
// debug and pvc can run without an upload, it looks into a dump that is in a volume, it
// dumps a data dir that is mounted. It is written thrice: as the directories of the
// Dockerfile, as an OCI layout, and as that in one file, which ctr, podman and skopeo
// read.
func (r *release) image() error {
	var all []artifact
	if err := r.read("artifacts.json", &all); err != nil {
		return err
	}
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	images := 0
	for _, a := range all {
		if a.Type != "Binary" || a.Name != "promdump" || a.OS != "linux" {
			continue
		}
		root, err := r.root(a)
		if err != nil {
			return fmt.Errorf("image for %s: %w", a.Arch, err)
		}
		img, err := r.of(root, a.Arch)
		if err != nil {
			return fmt.Errorf("image for %s: %w", a.Arch, err)
		}
		platform := &v1.Platform{OS: "linux", Architecture: a.Arch}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: platform}})
		images++
	}
	if images == 0 {
		return errors.New("artifacts.json has no promdump for linux")
	}
	dir := filepath.Join(r.dist, "image", "oci")
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	out, err := layout.Write(dir, empty.Index)
	if err != nil {
		return fmt.Errorf("write image: %w", err)
	}
	// containerd takes the first for the image's name, others the second for its tag.
	err = out.AppendIndex(index, layout.WithAnnotations(map[string]string{
		"io.containerd.image.name":          imageName + ":v" + r.Version,
		"org.opencontainers.image.ref.name": "v" + r.Version,
	}))
	if err != nil {
		return fmt.Errorf("write image: %w", err)
	}
	var b bytes.Buffer
	if err := pack(&b, dir, r.time); err != nil {
		return fmt.Errorf("pack image: %w", err)
	}
	return os.WriteFile(filepath.Join(r.dist, "promdump_"+r.Version+"_image.tar"), b.Bytes(), 0o644)
}

// root makes the directory that becomes an image's root.
func (r *release) root(a artifact) (string, error) {
	root := filepath.Join(r.dist, "image", a.Arch)
	if err := os.RemoveAll(root); err != nil {
		return "", err
	}
	bin := filepath.Join(root, "usr", "bin")
	if err := errors.Join(os.MkdirAll(bin, 0o755), os.Mkdir(filepath.Join(root, "tmp"), 0o755)); err != nil {
		return "", err
	}
	// By chmod: mkdir's mode is cut by the umask, and knows no sticky bit.
	if err := os.Chmod(filepath.Join(root, "tmp"), 0o777|fs.ModeSticky); err != nil {
		return "", err
	}
	for name, from := range map[string]string{
		"promdump":       filepath.Join(r.source, a.Path),
		"promdump-agent": filepath.Join(r.source, "bin", "agents", "promdump-agent-linux-"+a.Arch),
	} {
		data, err := os.ReadFile(from)
		if err != nil {
			return "", err
		}
		if err := os.WriteFile(filepath.Join(bin, name), data, 0o755); err != nil {
			return "", err
		}
	}
	return root, nil
}

// of gives the image of one architecture: one layer.
func (r *release) of(root, arch string) (v1.Image, error) {
	var b bytes.Buffer
	if err := pack(&b, root, r.time); err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil }, tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return nil, err
	}
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	created := v1.Time{Time: r.time}
	img, err = mutate.Append(img, mutate.Addendum{Layer: layer, History: v1.History{Created: created, CreatedBy: "promdump " + r.Version}})
	if err != nil {
		return nil, err
	}
	config, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Created = "linux", arch, created
	config.Config.Entrypoint = []string{"/usr/bin/promdump"}
	config.Config.Env = []string{"PATH=/usr/bin"}
	config.Config.User = user
	config.Config.Labels = map[string]string{
		"org.opencontainers.image.title":    "promdump",
		"org.opencontainers.image.source":   "https://github.com/promdump/promdump",
		"org.opencontainers.image.licenses": "Apache-2.0",
		"org.opencontainers.image.version":  "v" + r.Version,
		"org.opencontainers.image.revision": r.Commit,
	}
	return mutate.ConfigFile(img, config)
}

// pack writes a directory as a tar in which all is root's, of one time, and has the
// mode that it was meant to have, whatever the umask was.
func pack(to io.Writer, dir string, at time.Time) error {
	w := tar.NewWriter(to)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		h := &tar.Header{Name: filepath.ToSlash(name), ModTime: at, Format: tar.FormatUSTAR}
		switch {
		case d.IsDir() && info.Mode()&fs.ModeSticky != 0:
			h.Typeflag, h.Name, h.Mode = tar.TypeDir, h.Name+"/", 0o1777
		case d.IsDir():
			h.Typeflag, h.Name, h.Mode = tar.TypeDir, h.Name+"/", 0o755
		case info.Mode()&0o100 != 0:
			h.Typeflag, h.Mode, h.Size = tar.TypeReg, 0o755, info.Size()
		default:
			h.Typeflag, h.Mode, h.Size = tar.TypeReg, 0o644, info.Size()
		}
		if err := w.WriteHeader(h); err != nil || d.IsDir() {
			return err
		}
		in, err := os.Open(path)
		if err != nil {
			return err
		}
		defer in.Close()
		_, err = io.Copy(w, in)
		return err
	})
	if err != nil {
		return err
	}
	return w.Close()
}
