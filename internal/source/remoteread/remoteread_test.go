package remoteread

import (
	"testing"

	"github.com/promdump/promdump/internal/source/sourcetest"
	"github.com/promdump/promdump/internal/tsdbtest"
	"github.com/promdump/promdump/internal/wire"
)

func TestSource(t *testing.T) {
	sourcetest.Run(t, sourcetest.Kind{OpenDB: openDB, Refuses: refuses, Selections: 6, Stops: 6})
}

// A Prometheus panics when the end of a window cuts a chunk and a later part of the
// series was deleted. It is asked in another way then, and not for halves and halves
// of them.
func TestServerThatPanics(t *testing.T) {
	db := tsdbtest.Random(t, t.TempDir(), 0, tsdbtest.Options{})
	sel := db.Selections(0, 6)[3]
	var told notes
	src := serve(t, db.DB(), db.DB(), nil).source(t, func(o *Options) { o.Note = told.note })
	dir, _, _, err := sourcetest.Dump(t, src, wire.Request{Head: wire.HeadBlock, Selection: sel})
	if err != nil {
		t.Fatal(err)
	}
	if d := tsdbtest.Diff(tsdbtest.Samples(t, db.DB(), sel), tsdbtest.SamplesDir(t, dir, tsdbtest.Everything())); d != "" {
		t.Error(d)
	}
	if !told.has("broke off") || told.has("half") {
		t.Errorf("%q", told.all)
	}
}
