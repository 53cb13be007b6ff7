package archive

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
	"time"
)

// rewindable is an output like a file.
type rewindable struct {
	bytes.Buffer
	err error // of Rewind
}

func (r *rewindable) Rewind(size int64) error {
	if r.err == nil {
		r.Truncate(int(size))
	}
	return r.err
}

type fullDisk struct{ failingWriter }

func (*fullDisk) Rewind(int64) error { return nil }

// A dump with blocks taken back is the dump without them, wherever each was given up.
func TestRollback(t *testing.T) {
	noGoroutinesLeft(t)
	files, lost := testFiles(4), testFiles(5)
	for i := range lost {
		lost[i].name = strings.NewReplacer(ulid1, "01CX5ZZKBKACTAV9WEVGEMMVRZ", ulid2, "01DX5ZZKBKACTAV9WEVGEMMVRZ").Replace(lost[i].name)
	}
	boom := errors.New("boom")
	rng := rand.New(rand.NewPCG(1, 1))
	for _, c := range compressions {
		for range 3 {
			out := &rewindable{}
			d, err := NewWriter(out, Options{Compression: c, ModTime: time.Unix(1617271200, 0)})
			if err != nil {
				t.Fatal(err)
			}
			check := func(err error) {
				t.Helper()
				if err != nil {
					t.Fatalf("%s: %v", c, err)
				}
			}
			check(d.Manifest(testManifest()))
			var first Mark
			for i, f := range files {
				m, err := d.Mark()
				check(err)
				if i == 0 {
					first = m
				}
				for _, l := range lost[:rng.IntN(6)] {
					check(d.File(l.name, int64(len(l.data)), bytes.NewReader(l.data)))
				}
				if rng.IntN(2) == 0 {
					l, at := lost[5], rng.IntN(len(lost[5].data)+1)
					r := io.MultiReader(bytes.NewReader(l.data[:at]), iotest.ErrReader(boom))
					if err := d.File(l.name, int64(len(l.data)), r); !errors.Is(err, boom) {
						t.Fatalf("%s: %v", c, err)
					}
					if _, err := d.Mark(); !errors.Is(err, boom) {
						t.Fatalf("%s: a mark after an error: %v", c, err)
					}
				}
				check(d.Rollback(m))
				if rng.IntN(3) == 0 { // again
					check(d.Rollback(m))
				}
				check(d.File(f.name, int64(len(f.data)), bytes.NewReader(f.data)))
			}
			if rng.IntN(2) == 0 { // and all of it
				check(d.Rollback(first))
				for _, f := range files {
					check(d.File(f.name, int64(len(f.data)), bytes.NewReader(f.data)))
				}
			}
			check(d.Close())
			_, got, err := readDump(bytes.NewReader(out.Bytes()), Limits{})
			if err != nil || !sameFiles(files, got) {
				t.Errorf("%s: other files came back, or %v", c, err)
			}
			var in int64
			for _, f := range files {
				in += int64(len(f.data))
			}
			if s := d.Stats(); s.In != in || s.Out != int64(out.Len()) {
				t.Errorf("%s: %+v, want %d and %d", c, s, in, out.Len())
			}
		}
	}
}

func TestRollbackRefuses(t *testing.T) {
	noGoroutinesLeft(t)
	begin := func(w io.Writer) (*Writer, Mark) {
		d, err := NewWriter(w, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Manifest(testManifest()); err != nil {
			t.Fatal(err)
		}
		m, err := d.Mark()
		if err != nil {
			t.Fatal(err)
		}
		return d, m
	}
	d, foreign := begin(io.Discard)
	if err := d.Rollback(foreign); !errors.Is(err, ErrNoRollback) || d.CanRollback() {
		t.Errorf("a stream: %v", err)
	}
	d.Abort()

	d, m := begin(&rewindable{})
	if err := d.Rollback(foreign); err == nil || !d.CanRollback() {
		t.Error("a mark of another dump is taken")
	}
	d.Abort()
	if err := d.Rollback(m); err == nil {
		t.Error("it rolls back after its end")
	}

	d, m = begin(&rewindable{err: syscall.EIO})
	if err := d.Rollback(m); !errors.Is(err, syscall.EIO) {
		t.Errorf("%v, want the error of the output", err)
	}
	if err := d.Close(); !errors.Is(err, syscall.EIO) {
		t.Errorf("%v, want the error of the output", err)
	}

	// A full disk stays full.
	d, m = begin(&fullDisk{failingWriter: failingWriter{1 << 20, syscall.ENOSPC}})
	_ = d.File(ulid1+"/chunks/000001", 4<<20, io.LimitReader(rand.NewChaCha8([32]byte{}), 4<<20)) // later, perhaps
	if err := d.Rollback(m); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("%v, want the error of the output", err)
	}
	d.Abort()
}

// After Suspend all is there that was written, and the error that was returned is not
// returned again.
func TestSuspend(t *testing.T) {
	noGoroutinesLeft(t)
	boom := errors.New("boom")
	files := testFiles(6)
	for _, c := range compressions {
		var out bytes.Buffer
		d, err := NewWriter(&out, Options{Compression: c})
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Manifest(testManifest()); err != nil {
			t.Fatal(err)
		}
		for _, f := range files[:4] {
			if err := d.File(f.name, int64(len(f.data)), bytes.NewReader(f.data)); err != nil {
				t.Fatal(err)
			}
		}
		f := files[5]
		if err := d.File(f.name, 100, io.MultiReader(strings.NewReader("abc"), iotest.ErrReader(boom))); !errors.Is(err, boom) {
			t.Fatal(err)
		}
		if err := d.Suspend(); err != nil {
			t.Errorf("%s: %v", c, err)
		}
		_, got, err := readDump(&out, Limits{})
		if !errors.Is(err, ErrIncomplete) || !sameFiles(files[:4], got) {
			t.Errorf("%s: other files came back, or %v", c, err)
		}

		d, err = NewWriter(&failingWriter{0, syscall.ENOSPC}, Options{Compression: c})
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Manifest(testManifest()); err != nil {
			t.Fatal(err)
		}
		if err := d.Suspend(); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("%s: %v, want the error of the output", c, err)
		}
	}
}
