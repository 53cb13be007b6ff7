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
	var all []*output
	for range 3 {
		out, err := testApp(&bytes.Buffer{}).openOutput(name, "", false)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(out, "new")
		all = append(all, out)
	}
	if err := os.WriteFile(name, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	for i, out := range all {
		err := out.commit()
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
	if left, _ := filepath.Glob(filepath.Join(dir, ".*")); len(left) > 0 {
		t.Errorf("left: %q", left)
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

// What a lost connection leaves does not take the place of what an earlier one left.
func TestKeep(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "dump.tar")
	if err := os.WriteFile(partial(name), []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	a := testApp(&bytes.Buffer{})
	a.Resumes = true
	err := a.checkPartial(dumpConfig{file: name})
	if codeOf(err) != Usage || !strings.Contains(hintOf(err), "--resume -t "+name) {
		t.Errorf("%v, hint %q", err, hintOf(err))
	}
	if err := errors.Join(a.checkPartial(dumpConfig{file: name, force: true}), a.checkPartial(dumpConfig{file: name, resume: true})); err != nil {
		t.Error(err)
	}
	for _, over := range []bool{false, true} {
		out, err := a.openOutput(name, "", false)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(out, "new")
		out.overPartial = over
		want := map[bool]string{false: "old", true: "new"}[over]
		if err := out.keep(); (err == nil) != over {
			t.Errorf("over %v: %v", over, err)
		}
		if b, err := os.ReadFile(partial(name)); err != nil || string(b) != want {
			t.Errorf("it holds %q, %v", b, err)
		}
	}
}
