package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/promdump/promdump/internal/archive"
	"github.com/promdump/promdump/internal/term"
)

func testApp(out *bytes.Buffer) *app {
	return &app{Program: Promdump(), Streams: term.Streams{In: strings.NewReader(""), Out: out, Err: out}}
}

// A file that appears while the output is written stays, and the complete output gets
// a name of its own.
func TestOutputDoesNotReplaceWhatAppears(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "dump.tar")
	for i := range 3 {
		out, err := testApp(&bytes.Buffer{}).openOutput(name, "", false)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(out, "new")
		if err := os.WriteFile(name, []byte("old"), 0o600); err != nil {
			t.Fatal(err)
		}
		err = out.commit()
		e, ok := errors.AsType[*existsError](err)
		if !ok || codeOf(err) != Failed || hintOf(err) == "" || e.kept != fmt.Sprintf("%s.%d", name, i+1) {
			t.Fatalf("%v, exit %d, hint %q", err, codeOf(err), hintOf(err))
		}
		if b, err := os.ReadFile(e.kept); err != nil || string(b) != "new" {
			t.Errorf("%s holds %q, %v", e.kept, b, err)
		}
	}
	if b, err := os.ReadFile(name); err != nil || string(b) != "old" {
		t.Errorf("%s holds %q, %v", name, b, err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*.partial")); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

// Two commands never write one file, also when the first is just giving it its name.
func TestPartialIsLocked(t *testing.T) {
	name := filepath.Join(t.TempDir(), "dump.tar")
	a := testApp(&bytes.Buffer{})
	first, err := a.openOutput(name, "", true)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(first, "first")
	var busy *busyError
	if _, err := a.openOutput(name, "", true); !errors.As(err, &busy) || codeOf(err) != Usage || hintOf(err) == "" {
		t.Errorf("a second output: %v, exit %d, hint %q", err, codeOf(err), hintOf(err))
	}
	if err := a.checkPartial(name, false); !errors.As(err, &busy) {
		t.Errorf("the check of a second command: %v", err)
	}
	if err := first.commit(); err != nil {
		t.Fatal(err)
	}
	second, err := a.openOutput(name, "", true)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(second, "second")
	if err := second.commit(); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(name); err != nil || string(b) != "second" {
		t.Errorf("it holds %q, %v", b, err)
	}
}

// Of many that give a file one name at the same time, one does.
func TestRenameNew(t *testing.T) {
	dir := t.TempDir()
	to := filepath.Join(dir, "to")
	var wg sync.WaitGroup
	errs := make([]error, 20)
	for i := range errs {
		from := filepath.Join(dir, fmt.Sprint("from", i))
		if err := os.WriteFile(from, []byte(from), 0o600); err != nil {
			t.Fatal(err)
		}
		wg.Go(func() { errs[i] = renameNew(from, to) })
	}
	wg.Wait()
	done := 0
	for i, err := range errs {
		switch {
		case err == nil:
			done++
			if b, _ := os.ReadFile(to); string(b) != filepath.Join(dir, fmt.Sprint("from", i)) {
				t.Errorf("it holds %q", b)
			}
		case !errors.Is(err, fs.ErrExist):
			t.Error(err)
		}
	}
	if done != 1 {
		t.Errorf("%d were given the name", done)
	}
}

// What an unfinished dump left is neither overwritten nor removed, unless that is asked
// for; what cannot be resumed is.
func TestUnfinishedStays(t *testing.T) {
	name := filepath.Join(t.TempDir(), "dump.tar")
	a := testApp(&bytes.Buffer{})
	a.Name = "promdump"
	var dump bytes.Buffer
	w, err := archive.NewWriter(&dump, archive.Options{Compression: archive.None})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.Manifest(archive.Manifest{}), w.Suspend()); err != nil {
		t.Fatal(err)
	}
	for left, refused := range map[string]bool{dump.String(): true, "something else, and longer than the start of a dump": true, dump.String()[:100]: false, "": false} {
		if err := os.WriteFile(partial(name), []byte(left), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := a.checkPartial(name, false); (err != nil) != refused || refused && (codeOf(err) != Usage || !strings.Contains(hintOf(err), "--force")) {
			t.Errorf("%.20q: %v, hint %q", left, err, hintOf(err))
		}
		if err := a.checkPartial(name, true); err != nil {
			t.Errorf("%.20q: %v", left, err)
		}
		// Until something is written the file is as it was.
		out, err := a.openOutput(name, "", true)
		if err != nil {
			t.Fatal(err)
		}
		if err := out.abort(); err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(partial(name)); left != "" && (err != nil || string(b) != left) {
			t.Errorf("%.20q: it holds %.20q, %v", left, b, err)
		}
		// Ctrl-C takes back what a command has begun, not what it has resumed.
		for _, resumed := range []bool{true, false} {
			if out, err = a.openOutput(name, "", true); err != nil {
				t.Fatal(err)
			}
			out.resume = resumed
			fmt.Fprint(out, "new")
			if resumed {
				if err := out.abort(); err != nil {
					t.Fatal(err)
				}
				if _, err := os.Stat(partial(name)); err != nil {
					t.Errorf("%.20q: it is gone: %v", left, err)
				}
			}
		}
		if err := out.abort(); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(partial(name)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%.20q: what was written is still there: %v", left, err)
		}
	}
}

// A name as long as a filesystem allows leaves room for the addition.
func TestPartialName(t *testing.T) {
	long := strings.Repeat("ü", 127) // 254 bytes
	if got := filepath.Base(partial("/x/" + long)); len(got) > 255 || !strings.HasSuffix(got, ".partial") || got == partial(long[2:]) {
		t.Errorf("%d bytes: %s", len(got), got)
	}
	if got := partial("/x/dump.tar"); got != "/x/dump.tar.partial" {
		t.Error(got)
	}
}
