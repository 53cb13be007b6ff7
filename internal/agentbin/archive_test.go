package agentbin

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
)

func TestReadArchive(t *testing.T) {
	file := func(name, body string) (*tar.Header, string) {
		return &tar.Header{Name: name, Mode: 0o755, Size: int64(len(body))}, body
	}
	h, body := file(ProgramName("mips"), "program")
	other, text := file("README", "hello")
	dotted, _ := file("./"+ProgramName("mips"), "program")
	for _, c := range []struct {
		name    string
		archive []byte
		problem string
	}{
		{"alone", tarOf(t, h, body), ""},
		{"dotted", tarOf(t, other, text, dotted, body, other, text), ""},
		{"missing", tarOf(t, other, text), "not in the archive"},
		{"nothing", tarOf(t), "not in the archive"},
		{"twice", tarOf(t, h, body, other, text, h, body), "twice"},
		{"link", tarOf(t, &tar.Header{Name: ProgramName("mips"), Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"}), "no file"},
		{"directory", tarOf(t, &tar.Header{Name: ProgramName("mips") + "/", Typeflag: tar.TypeDir}), "no file"},
		{"elsewhere", tarOf(t, &tar.Header{Name: "x/" + ProgramName("mips"), Size: 7}, body), "not in the archive"},
		{"more behind it", append(tarOf(t, h, body), "more"...), "read its end"},
		{"empty", nil, "unexpected EOF"},
		{"text", []byte("hello, this is no archive"), "not gzip"},
	} {
		got, err := readArchive(bytes.NewReader(c.archive), ProgramName("mips"))
		if c.problem == "" {
			if err != nil || string(got) != body {
				t.Errorf("%s: %q, %v", c.name, got, err)
			}
		} else if err == nil || !strings.Contains(err.Error(), c.problem) || got != nil {
			t.Errorf("%s: got %q, %v, want %s", c.name, got, err, c.problem)
		}
	}
}

// Little that becomes much is given up, whatever its headers say.
func TestBomb(t *testing.T) {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write(make([]byte, 4<<20)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	zeros := bytes.Clone(b.Bytes())
	for _, c := range []struct {
		name    string
		size    int64
		problem string
	}{
		{"other", 1 << 40, "larger than it may be"},
		{ProgramName("mips"), maxProgram + 1, "too large"},
	} {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		if err := tar.NewWriter(z).WriteHeader(&tar.Header{Name: c.name, Size: c.size}); err != nil {
			t.Fatal(err)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		b.Write(bytes.Repeat(zeros, maxContent/(4<<20)+2))
		_, err := readArchive(&b, ProgramName("mips"))
		if err == nil || !strings.Contains(err.Error(), c.problem) {
			t.Errorf("%s: got %v", c.name, err)
		}
	}
	// So is a long one that is not compressed at all.
	if _, err := io.Copy(io.Discard, &limited{r: endless{}, left: maxArchive}); err == nil {
		t.Error("no end")
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

func FuzzReadArchive(f *testing.F) {
	f.Add(archiveOf(f, "mips", "program"))
	f.Add(tarOf(f, &tar.Header{Name: ProgramName("mips"), Typeflag: tar.TypeLink, Linkname: "x"}))
	f.Add(tarOf(f, &tar.Header{Name: strings.Repeat("long/", 60) + ProgramName("mips"), Size: 1, Format: tar.FormatPAX}, "x"))
	f.Add([]byte("\x1f\x8b\x08\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		// The tar itself too: few changes of compressed bytes get to it.
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		if _, err := z.Write(data); err != nil {
			t.Fatal(err)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		for _, archive := range [][]byte{data, b.Bytes()} {
			program, err := readArchive(bytes.NewReader(archive), ProgramName("mips"))
			if err == nil && program == nil || err != nil && program != nil {
				t.Errorf("%q, %v", program, err)
			}
			if errors.Is(err, io.EOF) {
				t.Errorf("an end that is none: %v", err)
			}
			right := sumOf("program")
			if got, err := verified(bytes.NewReader(archive), "mips", want{program: &right}); err == nil && string(got) != "program" {
				t.Errorf("%q was taken", got)
			}
		}
	})
}

func FuzzParseSums(f *testing.F) {
	f.Add(sums("a", 1) + sums("b", 2))
	f.Add(sums("a", 1)[:64])
	f.Add("\r\n\n")
	f.Fuzz(func(t *testing.T, text string) {
		got, err := parseSums(text)
		if err != nil {
			return
		}
		for name := range got {
			if !strings.Contains(text, name) {
				t.Errorf("%q from nowhere", name)
			}
		}
		if len(got) > len(text)/64 {
			t.Errorf("%d digests in %d bytes", len(got), len(text))
		}
	})
}

func TestParseSums(t *testing.T) {
	line := sums("x", 7)
	for text, want := range map[string]int{
		"": 0, line: 1, line[:64]: 1, strings.ToUpper(line[:64]) + " *x\r\n": 1, line + sums("y", 7): 2,
		line + line: -1, line[1:]: -1, "0" + line: -1, "00" + line: -1, "g" + line[1:]: -1, "<html>": -1, " " + line: -1,
	} {
		got, err := parseSums(text)
		if want < 0 {
			if err == nil {
				t.Errorf("%q: got %v", text, got)
			}
		} else if err != nil || len(got) != want {
			t.Errorf("%q: got %v, %v", text, got, err)
		}
	}
}
