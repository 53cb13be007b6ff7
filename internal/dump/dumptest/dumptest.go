// Package dumptest makes dump files for tests: real ones, written as promdump
// itself writes them, of data dirs that the test has or of random ones.
//
// What is not promised: that they are small, or the same each time; the file names
// its moment.
package dumptest

import (
	"errors"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/promdump/promdump/internal/archive"
	"github.com/promdump/promdump/internal/dump"
	"github.com/promdump/promdump/internal/source/local"
	"github.com/promdump/promdump/internal/tsdbtest"
	"github.com/promdump/promdump/internal/wire"
)

// Of dumps all of a data dir into dump.tar.gz in a directory of the test.
func Of(t testing.TB, dataDir string, head wire.HeadMode) (file string) {
	t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	file = filepath.Join(t.TempDir(), "dump.tar.gz")
	out, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	_, err = dump.Write(t.Context(), local.New(dataDir, local.Options{Logger: quiet}), dump.Spec{
		Request: wire.Request{Version: wire.Version, Selection: wire.Selection{MinTime: 0, MaxTime: math.MaxInt64}, Head: head},
		Source:  archive.Source{Kind: "local", Name: "test"}, Compression: archive.Gzip, Staging: t.TempDir(), Tool: "test", Now: time.Now(), Logger: quiet,
	}, out)
	if err := errors.Join(err, out.Close()); err != nil {
		t.Fatal(err)
	}
	return file
}

// Random is a dump of a random data dir.
func Random(t testing.TB, seed uint64, head wire.HeadMode) (file string, d *tsdbtest.TSDB) {
	t.Helper()
	d = tsdbtest.Random(t, filepath.Join(t.TempDir(), "data"), seed, tsdbtest.Options{Series: 14, Interval: 2 * time.Minute, Duration: 6 * time.Hour})
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	return Of(t, d.Dir, head), d
}
