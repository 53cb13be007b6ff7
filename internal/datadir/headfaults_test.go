package datadir

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"
)

// writeHead writes a WAL of four segments with the TSDB. Each has its own series and sample.
func writeHead(t *testing.T, dir string) {
	t.Helper()
	for i := range 4 {
		o := tsdb.DefaultOptions()
		o.RetentionDuration = 0
		db, err := tsdb.Open(dir, quiet, nil, o, nil)
		must(t, err)
		app := db.Appender(t.Context())
		_, err = app.Append(0, labels.FromStrings("__name__", "m", "n", fmt.Sprint(i)), int64(100+i), 1)
		must(t, errors.Join(err, app.Commit(), db.Close()))
	}
}

// TestStrangeHeads opens heads with files of a wrong type or name. The rest is read, and a
// raw head reports fatal damage exactly if the TSDB does not start on the copy.
func TestStrangeHeads(t *testing.T) {
	for _, c := range []struct {
		what    string
		change  func(*testing.T, string) // of the data directory
		records int                      // readable ones of 8
		raw     []error                  // damage that a raw head reports
	}{
		{"unchanged", unchanged, 8, nil},
		{"a repair that did not begin", renamed("wal/00000001", "wal/00000001.repair"), 8, []error{ErrRepair}},
		{"a repair that did not end", func(t *testing.T, d string) {
			renamed("wal/00000001", "wal/00000001.repair")(t, d)
			must(t, os.WriteFile(filepath.Join(d, "wal/00000001"), nil, 0o666))
		}, 8, []error{ErrRepair}},
		{"a segment with six digits", renamed("wal/00000002", "wal/000002"), 8, []error{ErrName}},
		{"a directory for a segment", at("wal/00000001", isDirectory), 6, []error{errNotRegular}},
		{"a file for the WAL", at("wal", isFile), 0, []error{errNotDir}},
		{"a file for the out-of-order log", at("wbl", isFile), 8, []error{errNotDir}},
		{"a file for the head chunks", at("chunks_head", isFile), 8, []error{errNotDir}},
		{"the WAL is a link to itself", at("wal", itself), 0, []error{errNotDir}},
		{"an empty checkpoint", func(t *testing.T, d string) {
			isDirectory(t, filepath.Join(d, "wal/checkpoint.00000000"))
			gone(t, filepath.Join(d, "wal/00000000"))
		}, 6, []error{errEmptyCheckpoint}},
		{"an empty checkpoint of another log", at("wal/checkpoint.00000099", isDirectory), 8, nil},
	} {
		dir := t.TempDir()
		block := writeBlock(t, dir, 0, 10)
		writeHead(t, dir)
		c.change(t, dir)
		d := mustOpen(t, dir, Options{Head: ReadHead})
		recs, _, err := readDamaged(t, &d.Head)
		if err != nil || len(recs) != c.records || !slices.Equal(taken(d), []string{block}) {
			t.Errorf("%s: %d records, blocks %v, %v", c.what, len(recs), taken(d), err)
		}
		raw := mustOpen(t, dir, Options{Head: RawHead})
		damage := raw.Head.Damage()
		for i, want := range c.raw {
			if len(damage) != len(c.raw) || !errors.Is(damage[i].Err, want) {
				t.Errorf("%s: a raw head reports %v", c.what, damage)
			}
		}
		if len(c.raw) == 0 && len(damage) > 0 {
			t.Errorf("%s: a raw head reports %v", c.what, damage)
		}
		fatal := slices.ContainsFunc(damage, func(d Damage) bool { return d.Fatal })
		into := copyHead(t, &raw.Head)
		db, err := tsdb.Open(into, quiet, nil, nil, nil)
		if err == nil {
			must(t, db.Close())
		}
		if (err != nil) != fatal && c.raw[0] != errNotDir { // a copy lacks the file
			t.Errorf("%s: a raw head reports %v, and the TSDB opens the copy with %v", c.what, damage, err)
		}
	}
}

func renamed(from, to string) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		must(t, os.Rename(filepath.Join(dir, from), filepath.Join(dir, to)))
	}
}

// at applies a change to a path in the data directory.
func at(name string, change func(*testing.T, string)) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		gone(t, filepath.Join(dir, name))
		change(t, filepath.Join(dir, name))
	}
}

// TestOldLogOfOneSegment opens a log of Prometheus 2.0 to 2.2, which begins with segment 1.
// The damage is ErrOldLog even for a single segment, and the TSDB does not start on the log.
func TestOldLogOfOneSegment(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, "wal"), 0o777))
	must(t, os.WriteFile(filepath.Join(dir, "wal/000001"), append(bytes.Clone(oldMagic), make([]byte, 100)...), 0o666))
	if _, err := tsdb.Open(dir, quiet, nil, nil, nil); err == nil {
		t.Error("the TSDB starts on it")
	}
	must(t, os.RemoveAll(filepath.Join(dir, "wal/00000000"))) // the TSDB created it
	for _, want := range []HeadFiles{ReadHead, RawHead} {
		d := mustOpen(t, dir, Options{Head: want})
		_, damage, err := readDamaged(t, &d.Head)
		if err != nil || len(damage) != 1 || !errors.Is(damage[0].Err, ErrOldLog) || !damage[0].Fatal {
			t.Errorf("%v: damage: %v, %v", want, damage, err)
		}
		if got := d.Head.Damage(); want == RawHead && !slices.Equal(got, damage) {
			t.Errorf("a raw head reports %v", got)
		}
		if b, err := io.ReadAll(d.Head.WAL[0].Body()); err != nil || len(b) != 104 {
			t.Errorf("%d bytes, %v", len(b), err)
		}
	}
}
