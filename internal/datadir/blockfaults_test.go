package datadir

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/tombstones"
)

// sealed returns the index b with valid checksums of the table of contents and of the
// sections that a server reads, so that checksums do not reveal earlier damage.
func sealed(b []byte) []byte {
	seal := func(start, n int) {
		if start >= 0 && n >= 0 && start+n+4 <= len(b) {
			binary.BigEndian.PutUint32(b[start+n:], crc32.Checksum(b[start:start+n], castagnoli))
		}
	}
	toc := len(b) - tocSize
	if toc < 0 {
		return b
	}
	for _, at := range []int{0, 40} {
		if off := int(binary.BigEndian.Uint64(b[toc+at:])); off >= 0 && off <= len(b)-4 {
			seal(off+4, int(binary.BigEndian.Uint32(b[off:])))
		}
	}
	seal(toc, tocSize-crc32.Size)
	return b
}

// TestRandomDamage damages index and tombstones at random. openBlock accepts a block exactly
// if the TSDB opens it.
func TestRandomDamage(t *testing.T) {
	rng := rand.New(rand.NewPCG(11, 2))
	dir := t.TempDir()
	name := writeBlock(t, dir, 10, 20)
	stones := tombstones.NewMemTombstones()
	stones.AddInterval(0, tombstones.Interval{Mint: 3, Maxt: 5}, tombstones.Interval{Mint: 9, Maxt: math.MaxInt64})
	stones.AddInterval(1, tombstones.Interval{Mint: math.MinInt64, Maxt: 5})
	_, err := tombstones.WriteFile(quiet, filepath.Join(dir, name), stones)
	must(t, err)
	verdicts := map[bool]int{}
	for i := range 1200 {
		file := []string{"index", "tombstones"}[i%2]
		path := filepath.Join(dir, name, file)
		good, err := os.ReadFile(path)
		must(t, err)
		b := slices.Clone(good)
		var what []string
		for range rng.IntN(3) {
			switch at := rng.IntN(len(b)); rng.IntN(5) {
			case 0:
				b = b[:at+1]
				what = append(what, fmt.Sprintf("cut at %d", at))
			case 1: // another offset in the table of contents
				if at = len(b) - tocSize + 40*rng.IntN(2); at >= 0 {
					v := []uint64{0, uint64(rng.IntN(len(b) + 9)), math.MaxUint64, 1 << 63, math.MaxInt64 - 2}[rng.IntN(5)]
					binary.BigEndian.PutUint64(b[at:], v)
					what = append(what, fmt.Sprintf("%d at %d", v, at))
				}
			default:
				b[at] = []byte{0, 1, 2, 0x7f, 0x80, 0xff, byte(rng.Uint32())}[rng.IntN(7)]
				what = append(what, fmt.Sprintf("%#x at %d", b[at], at))
			}
		}
		if rng.IntN(4) > 0 {
			if file == "index" {
				b = sealed(b)
			} else if len(b) > 9 {
				binary.BigEndian.PutUint32(b[len(b)-4:], crc32.Checksum(b[5:len(b)-4], castagnoli))
			}
		}
		must(t, os.WriteFile(path, b, 0o666))
		judge := opens(filepath.Join(dir, name))
		blk, err := openBlock(dir, Meta{ULID: name}, openMode{check: true})
		if _, broken := errors.AsType[*brokenError](err); err != nil && !broken {
			t.Fatalf("%s, %v: %v", file, what, err)
		}
		if (judge == nil) != (err == nil) {
			t.Errorf("%s, %v: the TSDB returns %v, openBlock %v (%v)", file, what, judge, err, blk)
		}
		verdicts[judge == nil]++
		must(t, os.WriteFile(path, good, 0o666))
	}
	if verdicts[true] < 100 || verdicts[false] < 100 {
		t.Errorf("too few accepted or rejected blocks: %v", verdicts)
	}
}

// TestSegments opens blocks with missing or renamed chunk segments. Segments are numbered by
// their names if one is missing, and get the names that Prometheus uses.
func TestSegments(t *testing.T) {
	for _, c := range []struct {
		what   string
		change func(*testing.T, string) // of chunks/
		names  string                   // of its files
		lost   []int
		broken bool
	}{
		{"all", unchanged, "000001 000002 000003", nil, false},
		{"the first is missing", func(t *testing.T, d string) { gone(t, d+"/000001") }, "000002 000003", []int{1}, false},
		{"the second is missing", func(t *testing.T, d string) { gone(t, d+"/000002") }, "000001 000003", []int{2}, false},
		{"the last is missing", func(t *testing.T, d string) { gone(t, d+"/000003") }, "000001 000002", []int{3}, false},
		{"two are missing", func(t *testing.T, d string) { gone(t, d+"/000001"); gone(t, d+"/000003") }, "000002", []int{1, 3}, false},
		{"none is left", isEmptyDir, "", nil, true},
		{"other names", func(t *testing.T, d string) {
			for i, name := range []string{"4", "5", "6"} {
				must(t, os.Rename(fmt.Sprintf("%s/%06d", d, i+1), d+"/"+name))
			}
		}, "000001 000002 000003", nil, false},
		{"other names, one missing", func(t *testing.T, d string) {
			gone(t, d+"/000003")
			must(t, os.Rename(d+"/000001", d+"/5"))
			must(t, os.Rename(d+"/000002", d+"/6"))
		}, "000001 000002", []int{3}, false},
	} {
		t.Run(c.what, func(t *testing.T) {
			dir := t.TempDir()
			name := writeBlockMeta(t, dir, 3, tsdb.BlockMeta{MinTime: 10, MaxTime: 20})
			c.change(t, filepath.Join(dir, name, "chunks"))
			d := mustOpen(t, dir, Options{})
			if c.broken {
				if len(d.Blocks) != 0 || len(d.LeftOut) != 1 {
					t.Fatalf("%v, %v", d.Blocks, d.LeftOut)
				}
				return
			}
			if len(d.Blocks) != 1 {
				t.Fatalf("left out: %v", d.LeftOut)
			}
			b := d.Blocks[0]
			var names []string
			for i, f := range b.Chunks() {
				if slices.Contains(b.Lost, i+1) != (f == nil) {
					t.Errorf("segment %d is %v", i+1, f)
				}
				if f != nil {
					names = append(names, strings.TrimPrefix(f.Name, name+"/chunks/"))
				}
			}
			if got := strings.Join(names, " "); got != c.names || !slices.Equal(b.Lost, c.lost) || b.Segments != 3 {
				t.Errorf("%s, lost %v of %d", got, b.Lost, b.Segments)
			}
		})
	}
}

// TestParents opens a data directory with a block and its parents. The parents are not taken
// if the block can be loaded, and are taken otherwise.
func TestParents(t *testing.T) {
	dir := t.TempDir()
	other := writeBlock(t, dir, 30, 40)
	parents := []string{writeBlock(t, dir, 0, 10), writeBlock(t, dir, 10, 20)}
	broken := writeBlock(t, dir, 0, 10) // a parent that a server deletes without loading it
	gone(t, filepath.Join(dir, broken, "index"))
	nameless := writeBlock(t, dir, 0, 10)
	gone(t, filepath.Join(dir, nameless, "meta.json"))
	m := tsdb.BlockMeta{MinTime: 0, MaxTime: 20, Compaction: tsdb.BlockMetaCompaction{Level: 2}}
	for _, p := range append(slices.Clone(parents), broken, nameless) {
		m.Compaction.Parents = append(m.Compaction.Parents, tsdb.BlockDesc{ULID: ulid.MustParse(p)})
		m.Compaction.Sources = append(m.Compaction.Sources, ulid.MustParse(p))
	}
	child := writeBlockMeta(t, dir, 1, m)
	judge := func() {
		t.Helper()
		want, err := starts(t, dir)
		d := mustOpen(t, dir, Options{})
		if got := taken(d); err != nil || !slices.Equal(got, want) || len(d.LeftOut) > 0 {
			t.Errorf("taken: %v, left out: %v, a server serves %v, %v", got, d.LeftOut, want, err)
		}
		// The result is the same for a time range without the child.
		d = mustOpen(t, dir, Options{Wanted: func(m Meta) bool { return m.ULID != child }})
		if got := taken(d); !slices.Equal(got, want) {
			t.Errorf("without the child taken: %v, a server serves %v", got, want)
		}
	}
	judge()
	os.Truncate(filepath.Join(dir, child, "index"), 30)
	d := mustOpen(t, dir, Options{})
	want := append(slices.Clone(parents), other)
	slices.Sort(want)
	bad := []string{broken, nameless, child}
	slices.Sort(bad)
	if got := taken(d); !slices.Equal(got, want) || !slices.Equal(leftOut(d), bad) {
		t.Errorf("with a child that cannot be loaded taken: %v, want %v; left out: %v", got, want, d.LeftOut)
	}
}

// TestLinks opens a data directory with symbolic links. Like a server, Open follows links to
// the directories of the head. It reports links to blocks, which a server ignores.
func TestLinks(t *testing.T) {
	dir, far := t.TempDir(), t.TempDir()
	good, bad := writeBlock(t, dir, 0, 10), writeBlock(t, far, 10, 20)
	writeLog(t, filepath.Join(far, "wal"), 3, 100)
	must(t, os.Symlink(filepath.Join(far, "wal"), filepath.Join(dir, "wal")))
	must(t, os.Symlink(filepath.Join(far, bad), filepath.Join(dir, bad)))
	d := mustOpen(t, dir, Options{Head: ReadHead})
	if got := taken(d); !slices.Equal(got, []string{good}) || !slices.Equal(leftOut(d), []string{bad}) || len(d.Head.WAL) == 0 {
		t.Errorf("blocks %v, left out %v, %d segments", got, d.LeftOut, len(d.Head.WAL))
	}
	gone(t, filepath.Join(dir, good))
	if err := Check(dir); err != nil {
		t.Error(err)
	}
	gone(t, filepath.Join(dir, "wal"))
	if err := Check(dir); err != nil {
		t.Error(err)
	}
	gone(t, filepath.Join(dir, bad))
	must(t, os.Symlink("nowhere", filepath.Join(dir, "wal")))
	isFile(t, filepath.Join(dir, bad))
	if err := Check(dir); !errors.Is(err, ErrNotDataDir) {
		t.Errorf("a dangling link and a file: %v", err)
	}
}

// TestStaticDirectory opens a damaged data directory that does not change: Open retries once,
// not ten times. A file without read permission is an error.
func TestStaticDirectory(t *testing.T) {
	dir := t.TempDir()
	good, bad := writeBlock(t, dir, 0, 10), writeBlock(t, dir, 10, 20)
	gone(t, filepath.Join(dir, bad, "index"))
	start := time.Now()
	d := mustOpen(t, dir, Options{})
	if took := time.Since(start); took > maxTries*retryDelay/2 {
		t.Errorf("it took %v", took)
	}
	if got := taken(d); !slices.Equal(got, []string{good}) || !slices.Equal(leftOut(d), []string{bad}) {
		t.Errorf("%v, %v", got, d.LeftOut)
	}
	if os.Getuid() == 0 {
		return // root may read everything
	}
	must(t, os.Chmod(filepath.Join(dir, good, "index"), 0))
	if _, err := Open(t.Context(), dir, Options{Logger: quiet}); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("without read permission: %v", err)
	}
}

// TestVanishingBlock opens a block that a server deletes: the error is ErrChanged, so that
// Open retries.
func TestVanishingBlock(t *testing.T) {
	dir := t.TempDir()
	writeBlock(t, dir, 0, 10)
	name := writeBlock(t, dir, 10, 20)
	m, _, err := readMeta(dir, name)
	must(t, err)
	for _, left := range []string{"", "chunks", "index"} {
		if left != "" {
			must(t, os.MkdirAll(filepath.Join(dir, name+Deleting, left), 0o777))
		}
		_ = os.RemoveAll(filepath.Join(dir, name))
		if _, err := openBlock(dir, m, openMode{check: true}); !errors.Is(err, ErrChanged) {
			t.Errorf("got %v", err)
		}
	}
	if _, _, err := readMeta(dir, name); !errors.Is(err, ErrChanged) {
		t.Errorf("got %v", err)
	}
}

// TestHandles opens more blocks than Options.Handles allows. Block.Open opens the others
// later, or returns ErrChanged for a deleted one.
func TestHandles(t *testing.T) {
	dir := t.TempDir()
	var names []string
	for i := range int64(4) {
		names = append(names, writeBlock(t, dir, i*10, i*10+10))
	}
	d := mustOpen(t, dir, Options{Handles: 12}) // five each
	var held []string
	for _, b := range d.Blocks {
		if len(b.Files) > 0 {
			held = append(held, b.Meta.ULID)
		}
		if b.Bytes == 0 {
			t.Errorf("%s has no size", b.Meta.ULID)
		}
	}
	if !slices.Equal(held, names[:2]) {
		t.Errorf("open: %v, want the first two of %v", held, names)
	}
	must(t, os.RemoveAll(dir+"/"+names[3]))
	must(t, os.RemoveAll(dir+"/"+names[0]))
	for i, want := range []error{nil, nil, nil, ErrChanged} {
		if err := d.Blocks[i].Open(); !errors.Is(err, want) {
			t.Errorf("block %d: %v, want %v", i, err, want)
		}
	}
	if n := len(d.Blocks[2].Files); n != 5 {
		t.Errorf("%d files", n)
	}
	if d := mustOpen(t, dir, Options{CheckOnly: true}); len(d.Blocks[0].Files) > 0 || d.Blocks[0].Bytes == 0 {
		t.Error("CheckOnly keeps files open")
	}
}
