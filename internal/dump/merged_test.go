package dump_test

import (
	"bytes"
	"context"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"

	"github.com/promdump/promdump/internal/dump"
	"github.com/promdump/promdump/internal/source/local"
	"github.com/promdump/promdump/internal/tsdbtest"
	"github.com/promdump/promdump/internal/wire"
)

// A server that merges a block of out-of-order samples with the block before it drops the
// hint that its end says nothing about the head. The dump has what the running server
// serves, and not only what it would serve after a restart.
func TestMergedOutOfOrder(t *testing.T) {
	const hour, minute = int64(time.Hour / time.Millisecond), int64(time.Minute / time.Millisecond)
	dir, quiet := t.TempDir(), slog.New(slog.DiscardHandler)
	o := tsdb.DefaultOptions()
	o.OutOfOrderTimeWindow = 3 * hour
	db, err := tsdb.Open(dir, quiet, nil, o, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	db.DisableCompactions()
	write := func(name string, from, to int64) {
		app := db.Appender(context.Background())
		for ms := from; ms < to; ms += minute {
			if _, err := app.Append(0, labels.FromStrings("__name__", name), ms, float64(ms)); err != nil {
				t.Fatal(err)
			}
		}
		if err := app.Commit(); err != nil {
			t.Fatal(err)
		}
	}
	write("in_order", 0, 3*hour)
	write("late", 3*hour-minute, 3*hour)
	write("late", 2*hour+10*minute, 2*hour+20*minute)
	if err := db.CompactHead(tsdb.NewRangeHead(db.Head(), 0, 2*hour-1)); err != nil {
		t.Fatal(err)
	}
	if err := db.CompactOOOHead(t.Context()); err != nil {
		t.Fatal(err)
	}
	var blocks []string
	for _, b := range db.Blocks() {
		blocks = append(blocks, b.Dir())
	}
	c, err := tsdb.NewLeveledCompactor(t.Context(), nil, quiet, []int64{2 * hour, 6 * hour}, nil, storage.NewCompactingChunkSeriesMerger(storage.ChainedSeriesMerge))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Compact(dir, blocks, nil); err != nil || len(blocks) < 2 {
		t.Fatalf("merge %d blocks: %v", len(blocks), err)
	}
	want := tsdbtest.Samples(t, db, tsdbtest.Everything())

	req := wire.Request{Head: wire.HeadBlock, Selection: tsdbtest.Everything()}
	var out bytes.Buffer
	if _, err := dump.Write(t.Context(), local.New(dir, local.Options{}), spec(t, req), &out); err != nil {
		t.Fatal(err)
	}
	if diff := tsdbtest.Diff(want, extracted(t, out.Bytes(), req.Selection)); diff != "" {
		t.Error(diff)
	}
	if metas, _ := filepath.Glob(filepath.Join(dir, "*", "meta.json")); len(metas) != 3 {
		t.Errorf("%d blocks, not the two and the merged one", len(metas))
	}
}
