package agent

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/tsdb"

	"github.com/promdump/promdump/internal/tsdbtest"
	"github.com/promdump/promdump/internal/wire"
)

var quiet = slog.New(slog.DiscardHandler)

// compact makes one block of two, as a server does, and removes the two.
func compact(t *testing.T, dir string, ids ...string) string {
	t.Helper()
	c, err := tsdb.NewLeveledCompactor(t.Context(), nil, quiet, []int64{2 * 3600_000, 6 * 3600_000, 24 * 3600_000}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	var dirs []string
	for _, id := range ids {
		dirs = append(dirs, filepath.Join(dir, id))
	}
	made, err := c.Compact(dir, dirs, nil)
	if err != nil || len(made) != 1 {
		t.Fatal(made, err)
	}
	for _, d := range dirs {
		if err := os.RemoveAll(d); err != nil {
			t.Fatal(err)
		}
	}
	return made[0].String()
}

// blocksOf reads the blocks of a data dir without a database, ordered by time.
func blocksOf(t *testing.T, dir string) (ids []string) {
	t.Helper()
	d, err := Inventory(t.Context(), dir, Options{Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range d.Blocks {
		ids = append(ids, b.ULID)
	}
	return ids
}

// Blocks that are compacted before their turn, while few files can be held open, are
// taken as what they became: all samples are there.
func TestCompactionBeforeTheirTurn(t *testing.T) {
	for _, handles := range []int{0, 7, 11} {
		t.Run(fmt.Sprint(handles), func(t *testing.T) {
			db := tsdbtest.Random(t, t.TempDir(), 5, tsdbtest.Options{})
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			want := tsdbtest.SamplesDir(t, db.Dir, tsdbtest.Everything())
			ids := blocksOf(t, db.Dir)
			if len(ids) < 4 {
				t.Fatalf("just %d blocks", len(ids))
			}
			out := t.TempDir()
			req := wire.Request{Version: wire.Version, Head: wire.HeadRaw, Selection: tsdbtest.Everything()}
			plans, became, last := 0, "", &wire.Plan{}
			for m, err := range Read(t.Context(), db.Dir, req, Options{Logger: quiet, Handles: handles + 1}) {
				if err != nil {
					t.Fatal(err)
				}
				switch m := m.(type) {
				case *wire.Plan:
					last = m
					if plans++; plans == 1 {
						n := len(ids)
						became = compact(t, db.Dir, ids[n-2], ids[n-1])
					}
				case *wire.File:
					body, err := io.ReadAll(m.Body)
					path := filepath.Join(out, m.Name)
					if err == nil {
						err = os.MkdirAll(filepath.Dir(path), 0o777)
					}
					if err == nil {
						err = os.WriteFile(path, body, 0o666)
					}
					if err != nil {
						t.Fatal(err)
					}
				}
			}
			if plans != 2 || !slices.ContainsFunc(last.Blocks, func(b wire.PlannedBlock) bool { return b.ULID == became }) {
				t.Errorf("%d plans, the last has %+v, want %s", plans, last.Blocks, became)
			}
			if len(last.LeftOut) > 0 {
				t.Errorf("left out: %v", last.LeftOut)
			}
			if d := tsdbtest.Diff(want, tsdbtest.SamplesDir(t, out, tsdbtest.Everything())); d != "" {
				t.Error(d)
			}
		})
	}
}

// A block that is deleted before its turn, and that nothing was made of, is named.
func TestDeletionBeforeItsTurn(t *testing.T) {
	db := tsdbtest.Random(t, t.TempDir(), 5, tsdbtest.Options{})
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	ids := blocksOf(t, db.Dir)
	gone := ids[len(ids)-1]
	req := wire.Request{Version: wire.Version, Head: wire.HeadNone, Selection: tsdbtest.Everything()}
	var last *wire.Plan
	var end *wire.End
	for m, err := range Read(t.Context(), db.Dir, req, Options{Logger: quiet, Handles: 1}) {
		if err != nil {
			t.Fatal(err)
		}
		switch m := m.(type) {
		case *wire.Plan:
			if last == nil {
				if err := os.RemoveAll(filepath.Join(db.Dir, gone)); err != nil {
					t.Fatal(err)
				}
			}
			last = m
		case *wire.End:
			end = m
		}
	}
	if len(last.LeftOut) != 1 || last.LeftOut[0].ULID != gone || end == nil || int(end.Blocks) != len(ids)-1 {
		t.Errorf("left out %v, want %s; %+v", last.LeftOut, gone, end)
	}
}
