// Command pack puts compiled agents where agentbin embeds them: compressed, and
// with the digests of all in SHA256SUMS. With -tar it also writes the archive that
// agentbin downloads, and its digest beside it.
//
//	go run ./internal/agentbin/pack -o DIR [-embed ARCH,ARCH] [-tar FILE] PROGRAM…
//
// What it writes depends on the programs alone. A program that would not run
// everywhere (of another architecture than its name says, or not static) is refused.
package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/klauspost/compress/gzip"

	"github.com/promdump/promdump/internal/agentbin"
)

func main() {
	dir := flag.String("o", "", "directory to embed from")
	embed := flag.String("embed", "", "architectures to embed, with commas in between (default: all)")
	archive := flag.String("tar", "", "write an archive of all programs too")
	flag.Parse()
	if *dir == "" || flag.NArg() == 0 {
		flag.Usage()
		os.Exit(2)
	}
	if err := run(*dir, *embed, *archive, flag.Args()); err != nil {
		fmt.Fprintf(os.Stderr, "pack: %v\n", err)
		os.Exit(1)
	}
}

type program struct {
	arch string
	data []byte
}

func (p program) name() string { return agentbin.ProgramName(p.arch) }

func run(dir, embed, archive string, files []string) error {
	var programs []program
	for _, file := range files {
		p, err := load(file)
		if err != nil {
			return err
		}
		programs = append(programs, p)
	}
	slices.SortFunc(programs, func(a, b program) int { return strings.Compare(a.arch, b.arch) })
	var embedded []string
	for _, p := range programs {
		embedded = append(embedded, p.arch)
	}
	if len(slices.Compact(slices.Clone(embedded))) != len(embedded) {
		return errors.New("two programs for one architecture")
	}
	if embed != "" {
		all := embedded
		embedded = strings.Split(embed, ",")
		for _, arch := range embedded {
			if !slices.Contains(all, arch) {
				return fmt.Errorf("no program for %q, which is to be embedded", arch)
			}
		}
	}
	if err := fill(dir, embedded, programs); err != nil {
		return err
	}
	if archive == "" {
		return nil
	}
	return writeArchive(archive, programs)
}

// load reads a program and makes sure that it is what its name says.
func load(file string) (program, error) {
	arch, ok := strings.CutPrefix(filepath.Base(file), agentbin.ProgramName(""))
	if !ok {
		return program{}, fmt.Errorf("%s: the name must be %s", file, agentbin.ProgramName("ARCH"))
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return program{}, err
	}
	if err := check(data, arch); err != nil {
		return program{}, fmt.Errorf("%s: %w", file, err)
	}
	return program{arch, data}, nil
}

type machine struct {
	elf.Machine
	elf.Class
	elf.Data
}

var machines = map[string]machine{
	"386":     {elf.EM_386, elf.ELFCLASS32, elf.ELFDATA2LSB},
	"amd64":   {elf.EM_X86_64, elf.ELFCLASS64, elf.ELFDATA2LSB},
	"arm":     {elf.EM_ARM, elf.ELFCLASS32, elf.ELFDATA2LSB},
	"arm64":   {elf.EM_AARCH64, elf.ELFCLASS64, elf.ELFDATA2LSB},
	"ppc64le": {elf.EM_PPC64, elf.ELFCLASS64, elf.ELFDATA2LSB},
	"riscv64": {elf.EM_RISCV, elf.ELFCLASS64, elf.ELFDATA2LSB},
	"s390x":   {elf.EM_S390, elf.ELFCLASS64, elf.ELFDATA2MSB},
}

func check(data []byte, arch string) error {
	want, ok := machines[arch]
	if !ok {
		return fmt.Errorf("architecture %q is not known here", arch)
	}
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return fmt.Errorf("not an ELF program: %w", err)
	}
	if got := (machine{f.Machine, f.Class, f.Data}); got != want {
		return fmt.Errorf("made for %v %v %v, not for %s", got.Machine, got.Class, got.Data, arch)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return errors.New("not static: a container need not have the loader that it asks for")
		}
	}
	return nil
}

// fill writes what is embedded. The digests go first and come last: without them
// nothing in the directory counts.
func fill(dir string, embedded []string, programs []program) error {
	sums := filepath.Join(dir, "SHA256SUMS")
	old, err := filepath.Glob(filepath.Join(dir, agentbin.ProgramName("*")+".gz"))
	if err != nil {
		return err
	}
	for _, name := range append([]string{sums}, old...) {
		if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	var text strings.Builder
	for _, p := range programs {
		fmt.Fprintf(&text, "%x  %s\n", sha256.Sum256(p.data), p.name())
		if !slices.Contains(embedded, p.arch) {
			continue
		}
		z, err := compress(p.data)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, p.name()+".gz"), z, 0o644); err != nil {
			return err
		}
		fmt.Printf("%-28s %8d bytes, %8d compressed\n", p.name(), len(p.data), len(z))
	}
	return os.WriteFile(sums, []byte(text.String()), 0o644)
}

// compress has no name and no time in it.
func compress(data []byte) ([]byte, error) {
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	z.ModTime = time.Unix(0, 0) // which means none; the zero time would be one in 2042
	if _, err := z.Write(data); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

func writeArchive(file string, programs []program) error {
	var b bytes.Buffer
	t := tar.NewWriter(&b)
	for _, p := range programs {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: p.name(), Mode: 0o755, Size: int64(len(p.data)), Format: tar.FormatUSTAR}
		if err := t.WriteHeader(h); err != nil {
			return err
		}
		if _, err := t.Write(p.data); err != nil {
			return err
		}
	}
	if err := t.Close(); err != nil {
		return err
	}
	z, err := compress(b.Bytes())
	if err != nil {
		return err
	}
	if err := os.WriteFile(file, z, 0o644); err != nil {
		return err
	}
	sum := fmt.Sprintf("%x  %s\n", sha256.Sum256(z), filepath.Base(file))
	return os.WriteFile(file+".sha256", []byte(sum), 0o644)
}
