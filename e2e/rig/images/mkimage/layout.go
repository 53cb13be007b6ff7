package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"strings"
)

// descriptor names a blob, as the OCI image specification has it.
type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

const (
	layerType    = "application/vnd.oci.image.layer.v1.tar"
	configType   = "application/vnd.oci.image.config.v1+json"
	manifestType = "application/vnd.oci.image.manifest.v1+json"
	indexType    = "application/vnd.oci.image.index.v1+json"
)

// layout is an OCI image layout in a tar.
type layout struct {
	tar       *tar.Writer
	manifests []descriptor
	stored    map[string]bool
}

func newLayout(w io.Writer) *layout {
	return &layout{tar: tar.NewWriter(w), stored: map[string]bool{}}
}

// image adds an image of these layers, the lowest first.
func (l *layout) image(ref string, layers map[string]*layer, names, options []string) error {
	_, tag, tagged := strings.Cut(ref, ":")
	if !tagged {
		return fmt.Errorf("no tag")
	}
	var blobs []descriptor
	var digests []string
	for _, name := range names {
		part := layers[name]
		if part == nil {
			return fmt.Errorf("no layer %q", name)
		}
		if part.blob == nil {
			if err := part.tar.Close(); err != nil {
				return err
			}
			d, err := l.blob(layerType, part.buf.Bytes())
			if err != nil {
				return err
			}
			part.blob, part.buf = &d, bytes.Buffer{}
		}
		blobs, digests = append(blobs, *part.blob), append(digests, part.blob.Digest)
	}
	config := map[string]any{"Env": []string{"PATH=/bin:/usr/bin:/sbin:/usr/sbin"}}
	for _, option := range options {
		key, value, _ := strings.Cut(option, "=")
		switch key {
		case "user":
			config["User"] = value
		case "dir":
			config["WorkingDir"] = value
		case "entry":
			config["Entrypoint"] = strings.Split(value, ",")
		case "cmd":
			config["Cmd"] = strings.Split(value, ",")
		default:
			return fmt.Errorf("unknown option %q", option)
		}
	}
	conf, err := l.json(configType, map[string]any{
		"architecture": runtime.GOARCH, "os": "linux", "created": "2026-01-01T00:00:00Z",
		"config": config, "rootfs": map[string]any{"type": "layers", "diff_ids": digests},
	})
	if err != nil {
		return err
	}
	manifest, err := l.json(manifestType, map[string]any{"schemaVersion": 2, "mediaType": manifestType, "config": conf, "layers": blobs})
	if err != nil {
		return err
	}
	manifest.Annotations = map[string]string{"io.containerd.image.name": ref, "org.opencontainers.image.ref.name": tag}
	l.manifests = append(l.manifests, manifest)
	return nil
}

func (l *layout) close() error {
	index, err := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": indexType, "manifests": l.manifests})
	if err != nil {
		return err
	}
	if err := l.put("index.json", index); err != nil {
		return err
	}
	if err := l.put("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)); err != nil {
		return err
	}
	return l.tar.Close()
}

func (l *layout) json(mediaType string, v any) (descriptor, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return descriptor{}, err
	}
	return l.blob(mediaType, b)
}

func (l *layout) blob(mediaType string, b []byte) (descriptor, error) {
	sum := fmt.Sprintf("%x", sha256.Sum256(b))
	d := descriptor{MediaType: mediaType, Digest: "sha256:" + sum, Size: int64(len(b))}
	if l.stored[sum] {
		return d, nil
	}
	l.stored[sum] = true
	return d, l.put("blobs/sha256/"+sum, b)
}

func (l *layout) put(name string, b []byte) error {
	if err := l.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(b))}); err != nil {
		return err
	}
	_, err := l.tar.Write(b)
	return err
}
