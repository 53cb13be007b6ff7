package local_test

import (
	"bytes"
	"context"
	"encoding/json"
	"iter"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/tsdb"

	"github.com/promdump/promdump/internal/archive"
	"github.com/promdump/promdump/internal/dump"
	"github.com/promdump/promdump/internal/source"
	"github.com/promdump/promdump/internal/source/local"
	"github.com/promdump/promdump/internal/tsdbtest"
	"github.com/promdump/promdump/internal/wire"
)

// manyBlocks is more than fit into the limit of open files of TestFewOpenFiles.
const manyBlocks = 150

// multiply copies the blocks of a data dir until there are n, each with a ULID of its
// own.
func multiply(t *testing.T, dir string, n int) {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, "*", "meta.json"))
	if err != nil || len(found) == 0 {
		t.Fatal(found, err)
	}
	for i := len(found); i < n; i++ {
		from, id := filepath.Dir(found[i%len(found)]), ulid.Make()
		to := filepath.Join(dir, id.String())
		if err := os.CopyFS(to, os.DirFS(from)); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(filepath.Join(to, "meta.json"))
		if err != nil {
			t.Fatal(err)
		}
		var m tsdb.BlockMeta
		if err := json.Unmarshal(text, &m); err != nil {
			t.Fatal(err)
		}
		m.ULID, m.Compaction.Sources = id, []ulid.ULID{id}
		if text, err = json.Marshal(m); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(to, "meta.json"), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// compacting compacts the last two blocks of the first plan while they wait.
type compacting struct {
	source.Source
	dir  string
	made []ulid.ULID
}

func (c *compacting) Read(ctx context.Context, req wire.Request) iter.Seq2[wire.Message, error] {
	return func(yield func(wire.Message, error) bool) {
		for m, err := range c.Source.Read(ctx, req) {
			if p, ok := m.(*wire.Plan); ok && c.made == nil {
				n := len(p.Blocks)
				if err := c.compact(ctx, p.Blocks[n-2].ULID, p.Blocks[n-1].ULID); err != nil {
					yield(nil, err)
					return
				}
			}
			if !yield(m, err) {
				return
			}
		}
	}
}

func (c *compacting) compact(ctx context.Context, a, b string) error {
	quiet := slog.New(slog.DiscardHandler)
	compactor, err := tsdb.NewLeveledCompactor(ctx, nil, quiet, []int64{2 * 3600_000, 6 * 3600_000, 24 * 3600_000}, nil, nil)
	if err != nil {
		return err
	}
	a, b = filepath.Join(c.dir, a), filepath.Join(c.dir, b)
	if c.made, err = compactor.Compact(c.dir, []string{a, b}, nil); err != nil {
		return err
	}
	if err := os.RemoveAll(a); err != nil {
		return err
	}
	return os.RemoveAll(b)
}

// A data dir with more blocks than the process may open files is dumped whole, also
// when some are compacted meanwhile.
func TestFewOpenFiles(t *testing.T) {
	const dirVar, fileVar = "PROMDUMP_TEST_DIR", "PROMDUMP_TEST_FILE"
	if dir := os.Getenv(dirVar); dir != "" {
		out, err := os.Create(os.Getenv(fileVar))
		if err != nil {
			t.Fatal(err)
		}
		src := &compacting{Source: local.New(dir, local.Options{}), dir: dir}
		report, err := dump.Write(t.Context(), src, dump.Spec{
			Request: wire.Request{Head: wire.HeadBlock, Selection: tsdbtest.Everything()}, Compression: archive.None,
			Staging: t.TempDir(), Tool: "test", Now: time.Unix(1, 0),
		}, out)
		if err != nil || len(report.Plan.LeftOut) > 0 || len(src.made) != 1 {
			t.Fatalf("%v, left out %v, compacted to %v", err, report.Plan.LeftOut, src.made)
		}
		if err := out.Close(); err != nil {
			t.Fatal(err)
		}
		return
	}
	db := tsdbtest.Random(t, t.TempDir(), 11, tsdbtest.Options{Plain: true})
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	multiply(t, db.Dir, manyBlocks)
	want := tsdbtest.SamplesDir(t, db.Dir, tsdbtest.Everything())
	file := filepath.Join(t.TempDir(), "dump.tar")
	cmd := exec.CommandContext(t.Context(), "sh", "-c", `ulimit -n 128 && exec "$0" -test.run '^TestFewOpenFiles$'`, os.Args[0])
	cmd.Env = append(os.Environ(), dirVar+"="+db.Dir, fileVar+"="+file)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if _, _, err := archive.Extract(t.Context(), bytes.NewReader(text), dir, nil); err != nil {
		t.Fatal(err)
	}
	if d := tsdbtest.Diff(want, tsdbtest.SamplesDir(t, dir, tsdbtest.Everything())); d != "" {
		t.Error(d)
	}
	if found, err := filepath.Glob(filepath.Join(dir, "*", "meta.json")); err != nil || len(found) < manyBlocks {
		t.Errorf("%d blocks are in the dump, %v", len(found), err)
	}
}
