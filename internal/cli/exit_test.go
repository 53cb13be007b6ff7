package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/promdump/promdump/internal/archive"
	"github.com/promdump/promdump/internal/block"
	"github.com/promdump/promdump/internal/datadir"
	"github.com/promdump/promdump/internal/dump"
	"github.com/promdump/promdump/internal/restore"
	"github.com/promdump/promdump/internal/term"
)

// The table of exit codes is in code, in the help and in the docs.
func TestExitCodesAreToldAlike(t *testing.T) {
	var rows, lines strings.Builder
	for _, m := range ExitCodes() {
		fmt.Fprintf(&rows, "| %d | %s | %s |\n", m.Code, m.Name, m.Text)
		fmt.Fprintf(&lines, "  %3d  %s: %s\n", m.Code, m.Name, m.Text)
	}
	doc, err := os.ReadFile("../../docs/exit-codes.md")
	if err != nil {
		t.Fatal(err)
	}
	inDoc := strings.Join(regexp.MustCompile(`(?m)^\| \d+ .*\n`).FindAllString(string(doc), -1), "")
	if d := cmp.Diff(rows.String(), inDoc); d != "" {
		t.Errorf("docs/exit-codes.md (-want +got):\n%s", d)
	}
	var out bytes.Buffer
	if code := Main(t.Context(), []string{"help", "exit-codes"}, term.Streams{In: strings.NewReader(""), Out: &out, Err: &out}); code != 0 {
		t.Fatalf("help exit-codes exits with %d", code)
	}
	inHelp := strings.Join(regexp.MustCompile(`(?m)^ +\d+  .*\n`).FindAllString(out.String(), -1), "")
	if d := cmp.Diff(lines.String(), inHelp); d != "" {
		t.Errorf("promdump help exit-codes (-want +got):\n%s", d)
	}
}

func TestCodeOf(t *testing.T) {
	for _, c := range []struct {
		err  error
		want ExitCode
	}{
		{nil, Done},
		{errors.New("any"), Failed},
		{&dump.EmptyError{}, Failed},
		{archive.ErrNotDump, Failed},
		{fmt.Errorf("x: %w", usagef("", "typed wrong")), Usage},
		{fmt.Errorf("x: %w", archive.ErrIncomplete), Incomplete},
		{incompleteOutput(errors.New("pipe"), "stdout"), Incomplete},
		{fmt.Errorf("x: %w", &archive.DamageError{}), Unverified},
		{&restore.VerifyError{Findings: make([]block.Finding, 1)}, Unverified},
		{fmt.Errorf("x: %w", datadir.ErrNotDataDir), NoTarget},
		{&fs.PathError{Err: fs.ErrPermission}, NotPermitted},
	} {
		if got := codeOf(c.err); got != c.want {
			t.Errorf("%v: exit code %d, want %d", c.err, got, c.want)
		}
	}
}

func TestHints(t *testing.T) {
	refused := &restore.RefusedError{Refusals: []restore.Refusal{{Kind: restore.LittleSpace, Reason: "r"}}}
	for _, c := range []struct {
		err  error
		want string
	}{
		{errors.New("any"), ""},
		{fmt.Errorf("x: %w", hinted(errors.New("e"), "do %s", "this")), "do this"},
		{usagef("like so", "wrong"), "like so"},
		{refused, "make room, or dump a smaller selection; to go on all the same: --ignore-space"},
		{fmt.Errorf("%w: text", archive.ErrNotDump), "give a file that promdump wrote; what it holds is said by: promdump meta FILE"},
	} {
		if got := hintOf(c.err); got != c.want {
			t.Errorf("%v: hint %q, want %q", c.err, got, c.want)
		}
	}
}
