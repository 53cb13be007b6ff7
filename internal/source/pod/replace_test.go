package pod

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/promdump/promdump/internal/tsdbtest"
	"github.com/promdump/promdump/internal/wire"
)

// contents are the files of a data dir by name, but for the lock of the database
// that made it.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || e.Name() == "lock" {
			return err
		}
		b, err := os.ReadFile(path)
		name, _ := filepath.Rel(dir, path)
		all[name] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// exchange is a data dir, and what comes in its place.
type exchange struct {
	dir      string
	files    []Upload
	old, new map[string]string
}

func newExchange(t *testing.T, old, comes string) exchange {
	t.Helper()
	x := exchange{dir: t.TempDir(), new: map[string]string{}}
	if err := tsdbtest.CopyDir(x.dir, old); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(x.dir, "foreign"), []byte("stays"), 0o600); err != nil {
		t.Fatal(err)
	}
	head, err := Uploads(filepath.Join(comes, "chunks_head"), filepath.Join(comes, "wal"))
	if err != nil || len(head) < 3 {
		t.Fatalf("%d files of a head, %v", len(head), err)
	}
	x.files = append(uploads(t, comes), head...)
	for _, f := range x.files {
		b, err := os.ReadFile(f.Path)
		if err != nil {
			t.Fatal(err)
		}
		x.new[f.Name] = string(b)
	}
	x.old = contents(t, x.dir)
	x.new["foreign"] = "stays"
	return x
}

// dirs makes two data dirs that have nothing in common.
func dirs(t *testing.T) (old, comes string) {
	t.Helper()
	for i, dir := range []*string{&old, &comes} {
		d := tsdbtest.Random(t, t.TempDir(), uint64(3+i), tsdbtest.Options{Plain: true, Duration: 9 * time.Hour, Series: 24})
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		*dir = d.Dir
	}
	return old, comes
}

func TestReplace(t *testing.T) {
	old, comes := dirs(t)
	for name, test := range map[string]func(*testing.T, exchange){
		"whole": replaceWhole, "its answer is lost": replaceLosesItsAnswer, "refused": replaceRefuses, "cut": replaceCut,
	} {
		t.Run(name, func(t *testing.T) { test(t, newExchange(t, old, comes)) })
	}
}

// again is the same for another try.
func (x exchange) again(t *testing.T) exchange {
	t.Helper()
	dir := t.TempDir()
	for name, text := range x.old {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	x.dir = dir
	return x
}

func replaceWhole(t *testing.T, x exchange) {
	src := newContainer(t).source(x.dir)
	id := ulid.Make().String()
	got, err := src.Replace(t.Context(), id, x.files, silent)
	if err != nil || len(got.Added) == 0 || len(got.Replaced) < 3 {
		t.Fatalf("%+v, %v", got, err)
	}
	for name, text := range x.old { // aside, whole
		if b, err := os.ReadFile(filepath.Join(x.dir, got.Aside, name)); name != "foreign" && string(b) != text {
			t.Errorf("%s is not aside: %v", name, err)
		}
	}
	again, err := src.Replace(t.Context(), id, x.files, func(int64) { t.Error("sent again") })
	if err != nil || again.Aside != got.Aside {
		t.Errorf("again: %+v, %v", again, err)
	}
	seen, err := src.Inspect(t.Context())
	if err != nil || len(seen.Aside) != 1 || !seen.Aside[0].Done || len(seen.Own) < 3 {
		t.Errorf("inspect: %+v, %v", seen, err)
	}
	for range 2 {
		if err := src.Discard(t.Context(), id); err != nil {
			t.Error(err)
		}
	}
	if now := contents(t, x.dir); !maps.Equal(now, x.new) {
		t.Error("not what was sent")
	}
}

// Wherever the stream is cut, in either direction, and however often: all of it
// is there, or nothing has changed.
func replaceCut(t *testing.T, x exchange) {
	rng := rand.New(rand.NewPCG(5, 6))
	was, is, lost := 0, 0, 0
	for i := range 16 {
		x := x.again(t)
		var size int64
		for _, f := range x.files {
			size += f.Size
		}
		c := newContainer(t)
		tries := 1 + i%3 // so many are cut; with all three the client gives up
		// What the agent says begins after some 70 bytes of the shell's. Its answer to
		// End is the last hundreds of bytes.
		c.cut = func(n int) int64 {
			if n < tries && i%2 == 0 {
				return 60 + rng.Int64N(400)
			}
			return -1
		}
		src := c.source(x.dir, func(o *Options) {
			o.times.tries = 3
			n := 0
			o.Exec = func(ctx context.Context, command []string, s Streams) error {
				if n++; n <= tries && i%2 == 1 {
					s.In = io.LimitReader(s.In, 2_700_000+rng.Int64N(size+200)) // most of it is the agent
				}
				return c.exec(ctx, command, s)
			}
		})
		id := ulid.Make().String()
		_, err := src.Replace(t.Context(), id, x.files, silent)
		if _, gone := errors.AsType[*LostError](err); gone {
			lost++
		} else if err != nil {
			t.Errorf("%d: %v", i, err)
		}
		now := contents(t, x.dir)
		aside := false
		for name := range now {
			aside = aside || strings.HasPrefix(name, "promdump-replaced-")
		}
		if err == nil || aside {
			is++
			if err := src.Discard(t.Context(), id); err != nil {
				t.Error(err)
			}
			if now = contents(t, x.dir); !maps.Equal(now, x.new) {
				t.Errorf("%d: not all of the new", i)
			}
			continue
		}
		if was++; !maps.Equal(now, x.old) {
			t.Errorf("%d: not all of the old: %d files, want %d", i, len(now), len(x.old))
		}
	}
	if t.Logf("%d are as they were, %d replaced, %d clients gave up", was, is, lost); was == 0 || is < 4 {
		t.Error("this proves little")
	}
}

// The answer is lost and nothing else: it is not done twice.
func replaceLosesItsAnswer(t *testing.T, x exchange) {
	c := newContainer(t)
	src := c.source(x.dir, func(o *Options) {
		o.Codec = wire.Plain // so that the answer is seen
		o.Exec = func(ctx context.Context, command []string, s Streams) error {
			if c.started.Load() == 0 {
				s.Out = &until{w: s.Out, word: `"replaced"`}
			}
			return c.exec(ctx, command, s)
		}
	})
	var sent int64
	got, err := src.Replace(t.Context(), ulid.Make().String(), x.files, func(n int64) {
		if n < sent {
			t.Error("sent twice")
		}
		sent = n
	})
	if err != nil || c.started.Load() != 2 || len(got.Added) == 0 || len(got.Replaced) < 3 {
		t.Fatalf("%+v, %v, %d tries", got, err, c.started.Load())
	}
	for name, text := range x.old {
		if b, err := os.ReadFile(filepath.Join(x.dir, got.Aside, name)); name != "foreign" && string(b) != text {
			t.Errorf("%s is not aside: %v", name, err)
		}
	}
}

// until is a stream that is lost with the first write that has a word in it.
type until struct {
	w    io.Writer
	word string
}

func (u *until) Write(p []byte) (int, error) {
	if strings.Contains(string(p), u.word) {
		return 0, errors.New("lost")
	}
	return u.w.Write(p)
}

func replaceRefuses(t *testing.T, x exchange) {
	for what, spoil := range map[string]func(f []Upload) []Upload{
		"a name that leads out": func(f []Upload) []Upload { f[2].Name = "../evil"; return f },
		"a name of its own":     func(f []Upload) []Upload { f[2].Name = "lock"; return f },
		"a file twice":          func(f []Upload) []Upload { return append(f, f[0]) },
		"a shorter file":        func(f []Upload) []Upload { f[len(f)-1].Size++; return f },
		"nothing":               func([]Upload) []Upload { return nil },
	} {
		x := x.again(t)
		src := newContainer(t).source(x.dir)
		id := ulid.Make().String()
		if got, err := src.Replace(t.Context(), id, spoil(slices.Clone(x.files)), silent); err == nil {
			t.Errorf("%s: sent: %v", what, got)
		}
		if now := contents(t, x.dir); !maps.Equal(now, x.old) {
			t.Errorf("%s: not as it was", what)
		}
		if err := src.Discard(t.Context(), id); err != nil {
			t.Errorf("%s: discard: %v", what, err)
		}
	}
}
