package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/template"
)

// The binary is taken out of the directory that an archive has, whatever its name.
var manifest = template.Must(template.New("krew").Parse(`apiVersion: krew.googlecontainertools.github.com/v1alpha2
kind: Plugin
metadata:
  name: promdump
spec:
  version: v{{ .Version }}
  homepage: https://github.com/promdump/promdump
  shortDescription: Dump the metrics around an incident
  description: |
    Takes everything around the time of an incident out of a Prometheus in a pod, as
    one verified file that any Prometheus can load, or that is opened and queried at
    once. It reads a running server's data dir without a write in it, and works with
    images that have no shell.
  caveats: |
    For completion, link kubectl_complete-promdump, which is beside the plugin in
    krew's store, into a directory of the PATH.
    What it needs in the cluster: https://github.com/promdump/promdump/blob/main/docs/access.md
  platforms:
{{- range .Platforms }}
  - selector:
      matchLabels:
        os: {{ .OS }}
        arch: {{ .Arch }}
    uri: https://github.com/promdump/promdump/releases/download/v{{ $.Version }}/{{ .File }}
    sha256: {{ .Digest }}
    files:
    - from: "*/{{ .Program }}"
      to: .
    - from: "*/{{ .Complete }}"
      to: .
    - from: "*/LICENSE"
      to: .
    - from: "*/THIRD_PARTY_NOTICES"
      to: .
    bin: {{ .Program }}
{{- end }}
`))

type platform struct{ OS, Arch, File, Digest, Program, Complete string }

// krew writes the manifest with what checksums.txt says of the archives.
func (r *release) krew() error {
	text, err := os.ReadFile(filepath.Join(r.dist, "checksums.txt"))
	if err != nil {
		return err
	}
	var platforms []platform
	for line := range strings.Lines(string(text)) {
		digest, file, ok := strings.Cut(strings.TrimSpace(line), "  ")
		if !ok {
			return fmt.Errorf("read checksums.txt: %q", line)
		}
		rest, ours := strings.CutPrefix(file, "promdump_"+r.Version+"_")
		system, arch, both := strings.Cut(rest, "_")
		arch, isTar := strings.CutSuffix(arch, ".tar.gz")
		arch, isZip := strings.CutSuffix(arch, ".zip")
		if !ours || !both || !isTar && !isZip {
			continue
		}
		p := platform{OS: system, Arch: arch, File: file, Digest: digest, Program: "kubectl-promdump", Complete: "kubectl_complete-promdump"}
		if system == "windows" {
			p.Program, p.Complete = p.Program+".exe", p.Complete+".exe"
		}
		platforms = append(platforms, p)
	}
	if len(platforms) == 0 {
		return errors.New("checksums.txt has no archive for krew")
	}
	var b bytes.Buffer
	err = manifest.Execute(&b, struct {
		Version   string
		Platforms []platform
	}{r.Version, platforms})
	if err != nil {
		return err
	}
	dir := filepath.Join(r.dist, "krew")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "promdump.yaml"), b.Bytes(), 0o644)
}
