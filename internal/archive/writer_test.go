package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
)

func TestRoundTrip(t *testing.T) {
	noGoroutinesLeft(t)
	for _, c := range compressions {
		for seed := range uint64(2) {
			t.Run(fmt.Sprintf("%s/%d", c, seed), func(t *testing.T) {
				files := testFiles(seed)
				m, got, err := readDump(bytes.NewReader(dumpOf(t, c, files)), Limits{})
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(testManifest(), m); diff != "" {
					t.Errorf("manifest (-want +got):\n%s", diff)
				}
				if !sameFiles(files, got) {
					t.Error("other files came back")
				}
			})
		}
	}
}

// A reader may be slow, give bytes one at a time, or its end together with its last bytes.
func TestWriterTakesAnyReader(t *testing.T) {
	files := smallFiles()
	want := dumpOf(t, None, files)
	for name, wrap := range map[string]func(io.Reader) io.Reader{
		"one byte": iotest.OneByteReader, "half": iotest.HalfReader, "data and EOF": iotest.DataErrReader,
	} {
		var out bytes.Buffer
		d, err := NewWriter(&out, Options{Compression: None, ModTime: time.Unix(1617271200, 0)})
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Manifest(testManifest()); err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			if err := d.File(f.name, int64(len(f.data)), wrap(bytes.NewReader(f.data))); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(out.Bytes(), want) {
			t.Errorf("%s: another dump", name)
		}
		if got := d.Stats(); got.Out != int64(out.Len()) || got.In != 30+550+13 {
			t.Errorf("%s: stats %+v", name, got)
		}
	}
}

func TestDeterministic(t *testing.T) {
	files := testFiles(7)
	for _, c := range compressions {
		var want []byte
		for concurrency := range 4 {
			var out bytes.Buffer
			writeDump(t, &out, Options{Compression: c, Concurrency: concurrency, ModTime: time.Unix(1617271200, 999)}, files)
			if want == nil {
				want = out.Bytes()
			}
			if !bytes.Equal(want, out.Bytes()) {
				t.Errorf("%s: another dump with %d encoders", c, concurrency)
			}
		}
	}
}

// What tar and sha256sum of this machine say is what users see.
func TestOpenedByTar(t *testing.T) {
	files := testFiles(3)
	for _, c := range compressions {
		t.Run(string(c), func(t *testing.T) {
			dir := t.TempDir()
			dump := dumpOf(t, c, files)
			args := []string{"-xf", "-"}
			switch c {
			case Gzip:
				args[0] = "-xzf"
			case Zstd:
				if _, err := exec.LookPath("zstd"); err == nil {
					args = append([]string{"--zstd"}, args...)
					break
				}
				z, err := zstd.NewReader(nil)
				if err != nil {
					t.Fatal(err)
				}
				defer z.Close()
				if dump, err = z.DecodeAll(dump, nil); err != nil {
					t.Fatal(err)
				}
			}
			run(t, dir, dump, "tar", args...)
			for _, f := range files {
				got, err := os.ReadFile(filepath.Join(dir, f.name))
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(got, f.data) {
					t.Errorf("%s differs", f.name)
				}
				info, err := os.Stat(filepath.Join(dir, f.name))
				if err != nil {
					t.Fatal(err)
				}
				if info.Mode() != 0o644 || info.ModTime().Unix() != 1617271200 {
					t.Errorf("%s: mode %v, time %v", f.name, info.Mode(), info.ModTime())
				}
			}
			if got := strings.Count(run(t, dir, nil, "sha256sum", "-c", "SHA256SUMS"), ": OK\n"); got != len(files)+1 {
				t.Errorf("sha256sum -c: %d entries OK, want %d", got, len(files)+1)
			}
			// And it must be able to fail.
			if err := os.WriteFile(filepath.Join(dir, files[0].name), []byte("?"), 0o644); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command("sha256sum", "-c", "SHA256SUMS")
			cmd.Dir = dir
			if err := cmd.Run(); err == nil {
				t.Error("sha256sum -c takes a changed file")
			}
		})
	}
}

func run(t *testing.T, dir string, stdin []byte, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Stdin = dir, bytes.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}

func TestWriterRefuses(t *testing.T) {
	noGoroutinesLeft(t)
	boom := errors.New("boom")
	one := func(s string) io.Reader { return strings.NewReader(s) }
	for _, tc := range []struct {
		name, file string
		size       int64
		r          io.Reader
		want       string
	}{
		{"short", ulid1 + "/index", 3, one("ab"), "ended after 2 of 3 bytes"},
		{"long", ulid1 + "/index", 3, one("abcd"), "more than the 3 bytes"},
		{"long empty", ulid1 + "/index", 0, one("a"), "more than the 0 bytes"},
		{"reader fails", ulid1 + "/index", 3, io.MultiReader(one("ab"), iotest.ErrReader(boom)), "boom"},
		{"reader fails at the end", ulid1 + "/index", 2, io.MultiReader(one("ab"), iotest.ErrReader(boom)), "boom"},
		{"negative", ulid1 + "/index", -1, one(""), "size of -1"},
		{"huge", ulid1 + "/index", 1 << 60, one(""), "beyond the limit"},
		{"huge meta", ulid1 + "/meta.json", 65 << 20, one(""), "beyond the limit"},
		{"outside", "../index", 0, one(""), "not a name"},
		{"twice", ulid2 + "/index", 0, one(""), "already"},
		{"manifest", "promdump.json", 0, one(""), "itself"},
		{"sums", "SHA256SUMS", 0, one(""), "itself"},
	} {
		for _, c := range compressions {
			t.Run(tc.name+"/"+string(c), func(t *testing.T) {
				var out bytes.Buffer
				d, err := NewWriter(&out, Options{Compression: c})
				if err != nil {
					t.Fatal(err)
				}
				if err := d.Manifest(testManifest()); err != nil {
					t.Fatal(err)
				}
				if err := d.File(ulid2+"/index", 0, one("")); err != nil {
					t.Fatal(err)
				}
				if s, ok := tc.r.(*strings.Reader); ok {
					_, _ = s.Seek(0, io.SeekStart)
				} else {
					tc.r = io.MultiReader(one("ab"), iotest.ErrReader(boom))
				}
				err = d.File(tc.file, tc.size, tc.r)
				if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), tc.file) {
					t.Fatalf("got error %v, want one with %q", err, tc.want)
				}
				if again := d.Close(); again != err {
					t.Errorf("Close: %v, want the same error", again)
				}
				if _, _, err := readDump(&out, Limits{}); !errors.Is(err, ErrIncomplete) {
					t.Errorf("the dump reads as %v, want incomplete", err)
				}
			})
		}
	}
}

func TestWriterOrder(t *testing.T) {
	noGoroutinesLeft(t)
	for name, use := range map[string]func(d *Writer) error{
		"no manifest":      func(d *Writer) error { return d.Close() },
		"file first":       func(d *Writer) error { return d.File(ulid1+"/index", 0, strings.NewReader("")) },
		"manifest twice":   func(d *Writer) error { return errors.Join(d.Manifest(Manifest{}), d.Manifest(Manifest{})) },
		"file after close": func(d *Writer) error { _ = d.Close(); return d.File(ulid1+"/index", 0, strings.NewReader("")) },
		"close twice": func(d *Writer) error {
			if err := errors.Join(d.Manifest(Manifest{}), d.Close()); err != nil {
				t.Fatal(err)
			}
			return d.Close()
		},
		"close after abort": func(d *Writer) error { d.Abort(); return d.Close() },
	} {
		d, err := NewWriter(io.Discard, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if err := use(d); err == nil {
			t.Errorf("%s: no error", name)
		}
		d.Abort()
	}
	if _, err := NewWriter(io.Discard, Options{Compression: "lzma"}); err == nil {
		t.Error("unknown compression: no error")
	}
}

// failingWriter takes so many bytes, like a disk.
type failingWriter struct {
	left int
	err  error
}

func (w *failingWriter) Write(p []byte) (int, error) {
	n := min(len(p), w.left)
	w.left -= n
	if n < len(p) {
		return n, w.err
	}
	return n, nil
}

func TestDiskFull(t *testing.T) {
	noGoroutinesLeft(t)
	for _, c := range compressions {
		whole := len(dumpOf(t, c, testFiles(1)))
		for _, room := range []int{0, 4 << 10, 2<<20 + 1, whole - 1} {
			for _, werr := range []error{syscall.ENOSPC, nil} { // nil: a short write
				d, err := NewWriter(&failingWriter{room, werr}, Options{Compression: c, ModTime: time.Unix(1617271200, 0)})
				if err != nil {
					t.Fatal(err)
				}
				want := werr
				if want == nil {
					want = io.ErrShortWrite
				}
				var first error
				for _, err := range writeAll(d, testFiles(1)) {
					if first == nil {
						first = err
					}
					if err != nil && err != first {
						t.Fatalf("%s, %d bytes: error %v after %v", c, room, err, first)
					}
				}
				if !errors.Is(first, want) {
					t.Errorf("%s, %d bytes: got %v, want %v", c, room, first, want)
				}
			}
		}
	}
}

// writeAll goes on after errors.
func writeAll(d *Writer, files []testFile) []error {
	errs := []error{d.Manifest(testManifest())}
	for _, f := range files {
		errs = append(errs, d.File(f.name, int64(len(f.data)), bytes.NewReader(f.data)))
	}
	return append(errs, d.Close())
}

// endless counts what is read of a file that never ends.
type endless struct{ n atomic.Int64 }

func (e *endless) Read(p []byte) (int, error) { e.n.Add(int64(len(p))); return len(p), nil }

// A dump whose consumer is gone must not go on reading the source.
func TestClosedPipe(t *testing.T) {
	noGoroutinesLeft(t)
	for _, c := range compressions {
		pr, pw := io.Pipe()
		d, err := NewWriter(pw, Options{Compression: c})
		if err != nil {
			t.Fatal(err)
		}
		pr.Close()
		if err := d.Manifest(Manifest{}); err != nil {
			t.Fatal(err)
		}
		var r endless
		err = d.File(ulid1+"/chunks/000001", 60<<30, &r)
		if !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("%s: got %v, want a closed pipe", c, err)
		}
		if n := r.n.Load(); n > 64<<20 {
			t.Errorf("%s: %d bytes were read after the pipe was closed", c, n)
		}
		d.Abort()
	}
}

func TestAbort(t *testing.T) {
	noGoroutinesLeft(t)
	for _, c := range compressions {
		var out bytes.Buffer
		d, err := NewWriter(&out, Options{Compression: c})
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Manifest(Manifest{}); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(errors.New("had enough"))
		err = d.File(ulid1+"/chunks/000001", 60<<30, contextReader{ctx, &endless{}})
		if err == nil || !strings.Contains(err.Error(), "had enough") {
			t.Errorf("%s: got %v", c, err)
		}
		d.Abort()
		d.Abort()
		size := out.Len()
		if err := d.Close(); err == nil || out.Len() != size {
			t.Errorf("%s: Close after Abort: %v, %d bytes more", c, err, out.Len()-size)
		}
		if _, _, err := readDump(&out, Limits{}); !errors.Is(err, ErrIncomplete) {
			t.Errorf("%s: the dump reads as %v, want incomplete", c, err)
		}
	}
}

// BenchmarkWriter and BenchmarkExtract take the data dir of PROMDUMP_BENCH_DIR, if it is set.
func BenchmarkWriter(b *testing.B) {
	files := benchFiles(b)
	for _, c := range compressions {
		b.Run(string(c), func(b *testing.B) {
			var stats Stats
			for b.Loop() {
				d, err := NewWriter(io.Discard, Options{Compression: c})
				if err != nil {
					b.Fatal(err)
				}
				for _, err := range writeAll(d, files) {
					if err != nil {
						b.Fatal(err)
					}
				}
				stats = d.Stats()
			}
			b.SetBytes(stats.In)
			b.ReportMetric(float64(stats.Out)/float64(stats.In), "out/in")
		})
	}
}

func BenchmarkExtract(b *testing.B) {
	files := benchFiles(b)
	for _, c := range compressions {
		b.Run(string(c), func(b *testing.B) {
			dump := dumpOf(b, c, files)
			for b.Loop() {
				_, entries, err := Extract(b.Context(), bytes.NewReader(dump), b.TempDir(), nil)
				if err != nil {
					b.Fatal(err)
				}
				var size int64
				for _, e := range entries {
					size += e.Size
				}
				b.SetBytes(size)
			}
		})
	}
}

func benchFiles(b *testing.B) []testFile {
	dir := os.Getenv("PROMDUMP_BENCH_DIR")
	if dir == "" {
		return testFiles(1)
	}
	var files []testFile
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil || e.IsDir() || checkName(name) != nil {
			return err
		}
		data, err := os.ReadFile(path)
		files = append(files, testFile{name, data})
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	return files
}

func TestNotes(t *testing.T) {
	for _, notes := range [][]string{nil, {"one", "two ü"}} {
		var file bytes.Buffer
		w, err := NewWriter(&file, Options{Compression: Gzip})
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Manifest(Manifest{Tool: "test", Notes: []string{"not here"}}); err != nil {
			t.Fatal(err)
		}
		if err := w.File("wal/00000000", 3, strings.NewReader("abc")); err != nil {
			t.Fatal(err)
		}
		if err := w.Notes(notes); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		m, entries, err := Extract(t.Context(), &file, dir, nil)
		if err != nil || !slices.Equal(m.Notes, notes) || len(entries) != 1 {
			t.Errorf("notes %q, entries %v, %v", m.Notes, entries, err)
		}
	}
	// Nothing comes after them but the digests.
	w, err := NewWriter(io.Discard, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	if err := errors.Join(w.Manifest(Manifest{Tool: "test"}), w.Notes([]string{"x"})); err != nil {
		t.Fatal(err)
	}
	if err := w.File("wal/00000000", 3, strings.NewReader("abc")); err == nil {
		t.Error("a file after the notes")
	}
}
