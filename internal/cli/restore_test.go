package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/promdump/promdump/internal/restore"
	"github.com/promdump/promdump/internal/term"
	"github.com/promdump/promdump/internal/tsdbtest"
)

// TestHalfReplaced: what a restore --replace that was killed has taken apart is not read,
// and the next restore puts it together again and says so, also with --dry-run.
func TestHalfReplaced(t *testing.T) {
	d := tsdbtest.Random(t, t.TempDir(), 3, tsdbtest.Options{Plain: true, Duration: 9 * time.Hour, Series: 5})
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) (int, string) {
		var out bytes.Buffer
		code := Run(t.Context(), Promdump(), args, term.Streams{In: strings.NewReader(""), Out: &out, Err: &out})
		return code, out.String()
	}
	file := filepath.Join(t.TempDir(), "dump.tar")
	if code, out := run("dump", "-d", d.Dir, "--min-time", "0", "-t", file); code != 0 {
		t.Fatal(out)
	}
	want := tsdbtest.SamplesDir(t, d.Dir, tsdbtest.Everything())
	aside := filepath.Join(d.Dir, "promdump-replaced-01K00000000000000000000000")
	if err := os.Mkdir(aside, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(aside, "promdump.json"), []byte(`{"state":"moving","discard":true}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(d.Dir, "wal"), filepath.Join(aside, "wal")); err != nil {
		t.Fatal(err)
	}
	if code, out := run("meta", "-d", d.Dir); code != int(Failed) || !strings.Contains(out, "is half replaced") || !strings.Contains(out, "hint: the next restore") {
		t.Errorf("it is read: exit %d: %s", code, out)
	}
	code, out := run("restore", "-d", d.Dir, "-t", file, "--dry-run")
	if code != 0 || !strings.Contains(out, d.Dir+" holds again what it held before, whole") {
		t.Errorf("exit %d: %s", code, out)
	}
	if _, err := os.Stat(aside); err == nil {
		t.Error("the old contents are still aside")
	}
	if diff := tsdbtest.Diff(want, tsdbtest.SamplesDir(t, d.Dir, tsdbtest.Everything())); diff != "" {
		t.Error(diff)
	}
}

// TestRefusals: each kind has a row, so that none is without what can be done about it.
func TestRefusals(t *testing.T) {
	for _, kind := range restore.RefusalKinds() {
		if _, ok := refusals[kind]; !ok {
			t.Errorf("%s has no row", kind)
		}
	}
	if len(restore.RefusalKinds()) != len(refusals) {
		t.Error("there are rows of no kind")
	}
}
