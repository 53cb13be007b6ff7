package pod

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/oklog/ulid/v2"

	"github.com/promdump/promdump/internal/tsdbtest"
	"github.com/promdump/promdump/internal/wire"
)

// blocksOf lists the blocks of a data dir by name.
func blocksOf(t *testing.T, dir string) (ids []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if _, err := ulid.ParseStrict(e.Name()); err == nil {
			ids = append(ids, e.Name())
		}
	}
	return ids
}

func uploads(t *testing.T, dir string) []Upload {
	t.Helper()
	var blocks []string
	for _, id := range blocksOf(t, dir) {
		blocks = append(blocks, filepath.Join(dir, id))
	}
	files, err := Uploads(blocks...)
	if err != nil || len(files) < 6 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	return files
}

func silent(int64) {}

// What arrives is what was sent, byte for byte, also when the streams break on
// the way and when it is sent again.
func TestSend(t *testing.T) {
	tsdb := tsdbtest.Random(t, t.TempDir(), 3, tsdbtest.Options{Plain: true})
	files := uploads(t, tsdb.Dir)
	ids := blocksOf(t, tsdb.Dir)
	to := t.TempDir()
	c := newContainer(t)
	c.cut = func(n int) int64 { return []int64{65, 125, -1}[min(n, 2)] }
	src := c.source(to)
	got, err := src.Send(t.Context(), files, silent)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Added)+len(got.Skipped) != len(ids) || c.started.Load() != 3 {
		t.Errorf("got %v in %d tries, want %v", got, c.started.Load(), ids)
	}
	for _, f := range files {
		want, err1 := os.ReadFile(f.Path)
		have, err2 := os.ReadFile(filepath.Join(to, f.Name))
		if err1 != nil || err2 != nil || string(want) != string(have) {
			t.Errorf("%s: %v, %v, or other bytes", f.Name, err1, err2)
		}
	}
	if got, err = src.Send(t.Context(), files, silent); err != nil || len(got.Skipped) != len(ids) || len(got.Added) > 0 {
		t.Errorf("again: %v, %v", got, err)
	}
	seen, err := src.Inspect(t.Context())
	if err != nil || len(seen.Blocks) != len(ids) || !seen.Writable || seen.Free <= 0 || len(seen.Blocks[0].Meta) == 0 {
		t.Errorf("inspect: %v, %v", seen, err)
	}
}

// When it cannot be finished, nothing is there.
func TestSendNothingLeft(t *testing.T) {
	tsdb := tsdbtest.Random(t, t.TempDir(), 3, tsdbtest.Options{Plain: true})
	for what, spoil := range map[string]func(f []Upload) []Upload{
		"a name that leads out": func(f []Upload) []Upload { f[2].Name = "../evil"; return f },
		"a file of the head":    func(f []Upload) []Upload { f[2].Name = "wal/00000000"; return f },
		"a file twice":          func(f []Upload) []Upload { return append(f, f[0]) },
		"a shorter file":        func(f []Upload) []Upload { f[len(f)-1].Size++; return f },
		"a file that is gone":   func(f []Upload) []Upload { f[len(f)-1].Path = "/nowhere"; return f },
	} {
		t.Run(what, func(t *testing.T) {
			to := t.TempDir()
			got, err := newContainer(t).source(to).Send(t.Context(), spoil(uploads(t, tsdb.Dir)), silent)
			if err == nil {
				t.Fatalf("sent: %v", got)
			}
			_, told := errors.AsType[*wire.Failure](err)
			if ours := what == "a shorter file" || what == "a file that is gone"; told == ours {
				t.Errorf("got %v", err)
			}
			if left, err := os.ReadDir(to); err != nil || len(left) > 0 {
				t.Errorf("left: %v, %v", left, err)
			}
		})
	}
}
