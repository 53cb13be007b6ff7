package local_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/promdump/promdump/internal/source/local"
	"github.com/promdump/promdump/internal/source/sourcetest"
	"github.com/promdump/promdump/internal/tsdbtest"
	"github.com/promdump/promdump/internal/wire"
)

// TestGentle: a gentle dump has the same samples, and says that no server sets its pace.
func TestGentle(t *testing.T) {
	db := tsdbtest.Random(t, t.TempDir(), 3, tsdbtest.Options{Plain: true})
	req := wire.Request{Head: wire.HeadBlock, Selection: tsdbtest.Everything()}
	want, _, _, err := sourcetest.Dump(t, local.New(db.Dir, local.Options{}), req)
	if err != nil {
		t.Fatal(err)
	}
	got, report, _, err := sourcetest.Dump(t, local.New(db.Dir, local.Options{Gentle: true}), req)
	if err != nil {
		t.Fatal(err)
	}
	if d := tsdbtest.Diff(tsdbtest.SamplesDir(t, want, tsdbtest.Everything()), tsdbtest.SamplesDir(t, got, tsdbtest.Everything())); d != "" {
		t.Error(d)
	}
	noted := slices.ContainsFunc(report.Plan.Notes, func(n string) bool { return strings.Contains(n, "cannot be watched") })
	if !noted {
		t.Errorf("no server is at work in the data directory, and the notes are %q", report.Plan.Notes)
	}
}
