package archive

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// A dump that was cut is incomplete at every byte: never whole, never called damaged.
func TestCutAtEveryByte(t *testing.T) {
	noGoroutinesLeft(t)
	for _, c := range compressions {
		dump := dumpOf(t, c, smallFiles())
		if _, files, err := readDump(bytes.NewReader(dump), Limits{}); err != nil || !sameFiles(files, smallFiles()) {
			t.Fatalf("%s: whole: %v", c, err)
		}
		for n := range dump {
			if _, _, err := readDump(bytes.NewReader(dump[:n]), Limits{}); !errors.Is(err, ErrIncomplete) || errors.Is(err, ErrDamaged) {
				t.Errorf("%s: %d of %d bytes: got %v, want incomplete", c, n, len(dump), err)
			}
		}
	}
}

// Big enough for several gzip members and zstd frames, cut at random and at all their borders.
func TestCutBigDump(t *testing.T) {
	for _, c := range compressions {
		dump := dumpOf(t, c, testFiles(2))
		for i := range 12 {
			n := len(dump) * i / 12
			if _, _, err := readDump(bytes.NewReader(dump[:n]), Limits{}); !errors.Is(err, ErrIncomplete) {
				t.Errorf("%s: %d bytes: got %v, want incomplete", c, n, err)
			}
		}
		magic := "\x1f\x8b\x08\x00\x00\x00"
		if c == Zstd {
			magic = string(zstdMagic)
		}
		for n := 1; c != None; n++ {
			next := bytes.Index(dump[n:], []byte(magic))
			if next < 0 {
				break
			}
			n += next
			if _, _, err := readDump(bytes.NewReader(dump[:n]), Limits{}); !errors.Is(err, ErrIncomplete) {
				t.Errorf("%s: border at %d: got %v, want incomplete", c, n, err)
			}
		}
	}
}

// No flipped byte may change what is read without an error.
func TestFlipEveryByte(t *testing.T) {
	noGoroutinesLeft(t)
	want := smallFiles()
	for _, c := range compressions {
		dump := dumpOf(t, c, want)
		damaged := 0
		for i := range dump {
			mask := byte(1) << (i % 8)
			dump[i] ^= mask
			m, files, err := readDump(bytes.NewReader(dump), Limits{})
			dump[i] ^= mask
			if err == nil && (!sameFiles(files, want) || !cmp.Equal(m, testManifest())) {
				t.Errorf("%s: byte %d ^ %#x: other content and no error", c, i, mask)
			}
			if errors.Is(err, ErrDamaged) {
				damaged++
			}
		}
		if damaged < len(dump)/2 {
			t.Errorf("%s: only %d of %d flips were called damage", c, damaged, len(dump))
		}
	}
}

func TestTrailingGarbage(t *testing.T) {
	for _, c := range compressions {
		dump := dumpOf(t, c, smallFiles())
		for _, tail := range []string{"\x00", "x", strings.Repeat("\x00", 512), "garbage and more of it", "\x1f\x8b\x08\x08\x00\x00\x00\x00\x00\xffname", string(dump)} {
			if _, _, err := readDump(strings.NewReader(string(dump)+tail), Limits{}); err == nil {
				t.Errorf("%s: %.20q after the end: no error", c, tail)
			}
		}
	}
}

func TestNotADump(t *testing.T) {
	other := rawTar(t, header("README", 2), []byte("hi"))
	var gz []byte
	gz, err := (&gzipEncoder{}).encode(nil, other, smallKind)
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		"text": []byte("hello, I am not a dump"), "other tar": other, "other tar.gz": gz,
		"tar with a directory": rawTar(t, &tar.Header{Name: "./", Typeflag: tar.TypeDir}),
	} {
		if _, _, err := readDump(bytes.NewReader(data), Limits{}); !errors.Is(err, ErrNotDump) || errors.Is(err, ErrDamaged) || errors.Is(err, ErrIncomplete) {
			t.Errorf("%s: got %v, want not a dump", name, err)
		}
	}
}

func TestManifestVersions(t *testing.T) {
	read := func(text string) (Manifest, error) {
		m, _, err := readDump(bytes.NewReader(withSums(t, testFile{ManifestName, []byte(text)})), Limits{})
		return m, err
	}
	m, err := read(`{"format": 1, "tool": "promdump v9", "novelty": {"a": [1]}, "selection": {"head": "raw", "x": 1}}`)
	if err != nil || m.Tool != "promdump v9" || m.Selection.Head != "raw" {
		t.Errorf("unknown fields: %+v, %v", m, err)
	}
	_, err = read(`{"format": 2, "tool": "promdump v9", "selection": "is something else now"}`)
	var format *FormatError
	if !errors.As(err, &format) || format.Format != 2 || !strings.Contains(err.Error(), "format 2") || !strings.Contains(err.Error(), "promdump v9") {
		t.Errorf("format 2: %v", err)
	}
	for _, text := range []string{``, `{`, `[]`, `{}`, `{"format": "1"}`, `{"format": 1, "plan": 3}`, `{"format": 1} x`} {
		if _, err := read(text); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: got %v, want damaged", text, err)
		}
	}
}

func header(name string, size int64) *tar.Header {
	return &tar.Header{Name: name, Size: size, Mode: 0o644, Typeflag: tar.TypeReg, ModTime: time.Unix(1, 0)}
}

// rawTar makes a tar of headers, each with the body that follows it.
func rawTar(t testing.TB, parts ...any) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, p := range parts {
		var err error
		switch p := p.(type) {
		case *tar.Header:
			err = w.WriteHeader(p)
		case []byte:
			_, err = w.Write(p)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// withSums is a tar of files with right digests, whatever else is wrong with it.
func withSums(t testing.TB, files ...testFile) []byte {
	var parts []any
	sums := ""
	for _, f := range files {
		parts = append(parts, header(f.name, int64(len(f.data))), f.data)
		sums += fmt.Sprintf("%x  %s\n", sha256.Sum256(f.data), f.name)
	}
	return rawTar(t, append(parts, header(SumsName, int64(len(sums))), []byte(sums))...)
}

var hostileManifest = testFile{ManifestName, []byte(`{"format":1,"tool":"evil"}`)}

// hostile are dumps whose digests are right and which must be refused all the same.
func hostile(t testing.TB) map[string][]byte {
	m := hostileManifest
	list := map[string][]byte{}
	for _, name := range []string{
		"/etc/passwd", "../evil", "wal/../../evil", "./wal/00000001", "wal//00000001", "wal/1", "wal/000000001", "wal", "evil",
		ulid1, ulid1 + "/evil", ulid1 + "/chunks/1", ulid1 + "/chunks/0000001", ulid1 + "/chunks/000001.tmp",
		strings.ToLower(ulid1) + "/index", "81ARZ3NDEKTSV4RRFFQ69G5FAV/index", "01ARZ3NDEKTSV4RRFFQ69G5FAU/index", ulid1 + ".tmp-for-creation/index",
		"chunks_head/1", "wbl/checkpoint.00000001/00000000", "wal/checkpoint.00000001.tmp/00000000", "WAL/00000001", "wal\\00000001",
		"lock", "queries.active", "wal/00000001\n", "sha256sums", "Promdump.json", "C:evil", "wal/0000000١",
	} {
		list["name "+name] = withSums(t, m, testFile{name, []byte("evil")})
	}
	list["long name"] = withSums(t, m, testFile{strings.Repeat("wal/", 80) + "00000001", nil})
	list["manifest twice"] = withSums(t, m, m)
	list["file twice"] = withSums(t, m, testFile{"wal/00000001", []byte("a")}, testFile{"wal/00000001", []byte("b")})

	body := func(h *tar.Header, data string) []byte {
		sums := fmt.Sprintf("%x  %s\n%x  %s\n", sha256.Sum256(m.data), m.name, sha256.Sum256([]byte(data)), h.Name)
		return rawTar(t, header(m.name, int64(len(m.data))), m.data, h, []byte(data), header(SumsName, int64(len(sums))), []byte(sums))
	}
	for kind, flag := range map[string]byte{
		"symlink": tar.TypeSymlink, "link": tar.TypeLink, "char device": tar.TypeChar, "block device": tar.TypeBlock, "fifo": tar.TypeFifo, "dir": tar.TypeDir,
	} {
		list[kind] = body(&tar.Header{Name: "wal/00000001", Linkname: "/etc/passwd", Typeflag: flag}, "")
	}
	list["PAX name"] = body(&tar.Header{Name: "wal/00000001", Size: 1, Typeflag: tar.TypeReg, PAXRecords: map[string]string{"comment": "x"}, Format: tar.FormatPAX}, "a")
	list["PAX global"] = rawTar(t, header(m.name, int64(len(m.data))), m.data, &tar.Header{Typeflag: tar.TypeXGlobalHeader, Name: "g", PAXRecords: map[string]string{"path": "evil"}})
	list["GNU times"] = body(&tar.Header{Name: "wal/00000001", Size: 1, Typeflag: tar.TypeReg, AccessTime: time.Unix(9, 0), Format: tar.FormatGNU}, "a")

	good := withSums(t, m, testFile{"wal/00000001", []byte("good")})
	patch := func(at int, s string) []byte { // in the header of wal/00000001
		b := bytes.Clone(good)
		h := b[1024:1536]
		copy(h[at:], s)
		copy(h[148:], fmt.Sprintf("%06o\x00 ", checksum((*[blockSize]byte)(h))))
		return b
	}
	list["size beyond limit"] = patch(124, "77777777777\x00")[:4096]
	list["size 2^62"] = patch(124, "\x80\x00\x00\x00\x40\x00\x00\x00\x00\x00\x00\x00")
	list["size negative"] = patch(124, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff")
	list["size beyond 2^64"] = patch(124, "\x80\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x01")
	list["size with a sign"] = patch(124, "-0000000004\x00")
	list["prefix"] = patch(345, "..")
	list["old sparse"] = patch(156, "S")
	list["hidden in the name"] = patch(50, "evil")
	list["hidden in padding"] = func() []byte { b := bytes.Clone(good); b[1536+100] = 'x'; return b }()
	list["more than one end"] = append(bytes.Clone(good), make([]byte, 1024)...)
	return list
}

func TestHostile(t *testing.T) {
	noGoroutinesLeft(t)
	for name, dump := range hostile(t) {
		parent := t.TempDir()
		dir := filepath.Join(parent, "into")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		x := Extraction{Limits: Limits{File: 1 << 30}}
		_, _, err := x.Extract(t.Context(), bytes.NewReader(dump), dir)
		if !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: got %v, want damaged", name, err)
		}
		if left, _ := os.ReadDir(parent); len(left) != 1 {
			t.Errorf("%s: written outside: %v", name, left)
		}
	}
	if _, _, err := readDump(bytes.NewReader(withSums(t, hostileManifest, testFile{"wal/00000001", []byte("good")})), Limits{}); err != nil {
		t.Errorf("the one that is not hostile: %v", err)
	}
}

func TestLimits(t *testing.T) {
	dump := dumpOf(t, Gzip, smallFiles())
	for name, tc := range map[string]struct {
		limits Limits
		ok     bool
	}{
		"enough": {Limits{File: 1 << 16, Text: 1 << 16, Entries: 5}, true}, "entries": {Limits{Entries: 4}, false},
		"file": {Limits{File: 549, Text: 1 << 16}, false}, "text": {Limits{Text: 12}, false},
	} {
		if _, _, err := readDump(bytes.NewReader(dump), tc.limits); (err == nil) != tc.ok || !tc.ok && !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrNotDump) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestWrongSums(t *testing.T) {
	m, f := hostileManifest, testFile{"wal/00000001", []byte("good")}
	line := func(f testFile) string { return fmt.Sprintf("%x  %s\n", sha256.Sum256(f.data), f.name) }
	bad := strings.Repeat("0", 64) + "  wal/00000001\n"
	for name, tc := range map[string]struct{ sums, want string }{
		"empty": {"", "no digest"}, "missing": {line(m), "no digest"}, "wrong": {line(m) + bad, "wal/00000001"},
		"surplus": {line(m) + line(f) + bad, "not there"}, "order": {line(f) + line(m), "must be"}, "no newline": {strings.TrimSpace(line(m) + line(f)), "no digest"},
		"binary mode": {strings.ReplaceAll(line(m)+line(f), "  ", " *"), "must be"},
	} {
		dump := rawTar(t, header(m.name, int64(len(m.data))), m.data, header(f.name, 4), f.data, header(SumsName, int64(len(tc.sums))), []byte(tc.sums))
		if _, _, err := readDump(bytes.NewReader(dump), Limits{}); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want damage with %q", name, err, tc.want)
		}
	}
}

// An error of the file itself is neither a cut nor damage.
func TestReadError(t *testing.T) {
	noGoroutinesLeft(t)
	boom := errors.New("boom")
	for _, c := range compressions {
		dump := dumpOf(t, c, testFiles(1))
		for _, n := range []int{0, 1, 300, len(dump) / 2, len(dump) - 1, len(dump)} {
			_, _, err := readDump(io.MultiReader(bytes.NewReader(dump[:n]), iotest.ErrReader(boom)), Limits{})
			if !errors.Is(err, boom) || errors.Is(err, ErrDamaged) || errors.Is(err, ErrIncomplete) {
				t.Errorf("%s: after %d bytes: %v", c, n, err)
			}
		}
	}
}

func TestExtract(t *testing.T) {
	noGoroutinesLeft(t)
	for _, c := range compressions {
		files := testFiles(4)
		dir := t.TempDir()
		var told []Entry
		x := Extraction{Sync: true, OnEntry: func(e Entry) { told = append(told, e) }}
		m, entries, err := x.Extract(t.Context(), bytes.NewReader(dumpOf(t, c, files)), dir)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(testManifest(), m) + cmp.Diff(entries, told); diff != "" {
			t.Error(diff)
		}
		found := 0
		err = filepath.WalkDir(dir, func(_ string, e os.DirEntry, err error) error {
			if err == nil && !e.IsDir() {
				found++
			}
			return err
		})
		if err != nil || found != len(files) || len(entries) != len(files) {
			t.Errorf("%s: %d files, %d entries, want %d: %v", c, found, len(entries), len(files), err)
		}
		for _, f := range files {
			if got, err := os.ReadFile(filepath.Join(dir, f.name)); err != nil || !bytes.Equal(got, f.data) {
				t.Errorf("%s: %s differs: %v", c, f.name, err)
			}
		}
		if _, _, err := Extract(t.Context(), bytes.NewReader(nil), dir, nil); err == nil || !strings.Contains(err.Error(), "not empty") {
			t.Errorf("into a full directory: %v", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		dump := dumpOf(t, c, testFiles(4))
		x = Extraction{OnEntry: func(Entry) { cancel() }}
		_, _, err = x.Extract(ctx, iotest.OneByteReader(bytes.NewReader(dump)), t.TempDir())
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: cancelled: %v", c, err)
		}
	}
	if _, _, err := Extract(t.Context(), bytes.NewReader(nil), filepath.Join(t.TempDir(), "none"), nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("into nowhere: %v", err)
	}
}

// Closing early must end what reads ahead.
func TestCloseEarly(t *testing.T) {
	noGoroutinesLeft(t)
	for _, c := range compressions {
		d, err := NewReader(bytes.NewReader(dumpOf(t, c, testFiles(1))))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.Next(); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(d.Close(), d.Close()); err != nil {
			t.Error(err)
		}
		if _, err := d.Next(); err == nil || err == io.EOF {
			t.Errorf("Next after Close: %v", err)
		}
	}
}

// Sizes beyond 8 GiB have another header.
func TestHugeHeader(t *testing.T) {
	for _, size := range []int64{0, octalMax, octalMax + 1, 64 << 30} {
		b, err := appendHeader(nil, Entry{ulid1 + "/index", size}, time.Unix(5, 0))
		if err != nil {
			t.Fatal(err)
		}
		if e, err := parseHeader((*[blockSize]byte)(b)); err != nil || e.Size != size {
			t.Errorf("%d bytes: %v, %v", size, e, err)
		}
		if h, err := tar.NewReader(bytes.NewReader(b)).Next(); err != nil || h.Size != size {
			t.Errorf("%d bytes: archive/tar reads %v, %v", size, h, err)
		}
	}
}

// FuzzReader: no input may crash the reader, make it run away, or pass as whole
// unless a dump of the same files can be made of it.
func FuzzReader(f *testing.F) {
	for _, c := range compressions {
		dump := dumpOf(f, c, smallFiles())
		f.Add(dump)
		f.Add(dump[:len(dump)/2])
	}
	for _, dump := range hostile(f) {
		f.Add(dump)
	}
	f.Fuzz(func(t *testing.T, dump []byte) {
		_, files, err := readDump(bytes.NewReader(dump), Limits{File: 1 << 20, Text: 1 << 20, Entries: 100})
		if err != nil {
			return
		}
		_, again, err := readDump(bytes.NewReader(dumpOf(t, None, files)), Limits{})
		if err != nil || !sameFiles(files, again) {
			t.Errorf("a dump that was taken for whole cannot be written again: %v", err)
		}
	})
}
