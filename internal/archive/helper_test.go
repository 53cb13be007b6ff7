package archive

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"
)

var compressions = []Compression{Gzip, Zstd, None}

type testFile struct {
	name string
	data []byte
}

const (
	ulid1 = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
	ulid2 = "01BX5ZZKBKACTAV9WEVGEMMVRZ"
)

// testFiles have sizes around those of tar blocks and pieces, and every form of name.
func testFiles(seed uint64) []testFile {
	rng := rand.New(rand.NewPCG(seed, 1))
	var files []testFile
	for i, name := range []string{
		ulid1 + "/meta.json", ulid1 + "/index", ulid1 + "/tombstones", ulid1 + "/chunks/000001", ulid1 + "/chunks/000002",
		ulid2 + "/chunks/1000001", ulid2 + "/index", ulid2 + "/meta.json", "chunks_head/000007",
		"wal/checkpoint.00000004/00000000", "wal/00000005", "wal/00000006", "wbl/00000000",
	} {
		size := []int{1, 0, 511, 512, 513, 64 << 10, nonePiece, gzipPiece - 512, gzipPiece + 1, zstdPiece, 3<<20 + 17}[rng.IntN(11)]
		if i == 3 {
			size = 5<<20 + 3
		}
		data := make([]byte, size)
		for j := range data {
			if data[j] = byte(rng.Uint32()); j%64 > 20 { // compresses a little
				data[j] = byte(i)
			}
		}
		files = append(files, testFile{name, data})
	}
	return files
}

// smallFiles are for tests that go over every byte.
func smallFiles() []testFile {
	return []testFile{
		{ulid1 + "/chunks/000001", []byte("chunks, chunks, chunks, chunks")},
		{ulid1 + "/index", bytes.Repeat([]byte("index"), 110)},
		{ulid1 + "/meta.json", []byte(`{"version":1}`)},
		{ulid1 + "/tombstones", nil},
	}
}

func testManifest() Manifest {
	return Manifest{
		Format: Format, Tool: "promdump test", Created: time.Date(2021, 4, 1, 12, 0, 0, 0, time.UTC),
		Source: Source{Kind: "local", Name: "/prometheus"},
		Selection: Selection{
			MinTime: 1617271200000, MaxTime: 1617278399999, From: "2021-04-01T10:00:00Z", To: "2021-04-01T11:59:59.999Z",
			Matchers: []string{`{namespace="shop"}`}, Head: "block",
		},
		Plan: Plan{
			Blocks: []PlannedBlock{{
				ULID: ulid1, MinTime: 1617271200000, MaxTime: 1617278400000, From: "2021-04-01T10:00:00Z", To: "2021-04-01T12:00:00Z",
				Action: "whole", Samples: 12, Series: 3, Bytes: 4711,
			}},
			Head: PlannedHead{Mode: "block", Bytes: 99}, Notes: []string{"A note."},
		},
	}
}

func writeDump(t testing.TB, w io.Writer, opts Options, files []testFile) {
	t.Helper()
	d, err := NewWriter(w, opts)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Abort()
	if err := d.Manifest(testManifest()); err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if err := d.File(f.name, int64(len(f.data)), bytes.NewReader(f.data)); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
}

func dumpOf(t testing.TB, c Compression, files []testFile) []byte {
	t.Helper()
	var b bytes.Buffer
	writeDump(t, &b, Options{Compression: c, ModTime: time.Unix(1617271200, 0)}, files)
	return b.Bytes()
}

// readDump reads all of a dump. The files are those read before the error.
func readDump(r io.Reader, limits Limits) (Manifest, []testFile, error) {
	d, err := NewReaderLimits(r, limits)
	if err != nil {
		return Manifest{}, nil, err
	}
	defer d.Close()
	var files []testFile
	for {
		e, err := d.Next()
		if err == io.EOF {
			// The end must stay the end.
			if _, again := d.Next(); again != io.EOF {
				return Manifest{}, nil, fmt.Errorf("after io.EOF: %w", again)
			}
			return d.Manifest(), files, nil
		}
		if err != nil {
			if _, again := d.Next(); again != err {
				return Manifest{}, nil, errors.New("an error did not stay")
			}
			return d.Manifest(), files, err
		}
		data, err := io.ReadAll(io.NewSectionReader(readerAt{d}, 0, e.Size+1))
		if err != nil {
			return d.Manifest(), files, err
		}
		if int64(len(data)) != e.Size {
			return d.Manifest(), files, fmt.Errorf("%s: read %d of %d bytes", e.Name, len(data), e.Size)
		}
		files = append(files, testFile{e.Name, data})
	}
}

// readerAt hides WriteTo, so that Read is tested.
type readerAt struct{ r io.Reader }

func (r readerAt) ReadAt(p []byte, _ int64) (int, error) { return r.r.Read(p) }

func sameFiles(a, b []testFile) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].name != b[i].name || !bytes.Equal(a[i].data, b[i].data) {
			return false
		}
	}
	return true
}

// noGoroutinesLeft fails the test if there are more goroutines at its end than now.
func noGoroutinesLeft(t *testing.T) {
	t.Helper()
	before := runtime.NumGoroutine()
	t.Cleanup(func() {
		// One that has done its last deed may still be counted for a moment.
		for end := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > before; runtime.Gosched() {
			if time.Now().After(end) {
				stacks := make([]byte, 1<<20)
				t.Fatalf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, stacks[:runtime.Stack(stacks, true)])
			}
		}
	})
}
