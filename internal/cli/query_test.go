package cli

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// A query that stands before its dump file is found, right or wrong: its error is
// not to be about the file's name.
func TestQueryBeforeItsFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "a.tar")
	if err := os.WriteFile(file, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ args, want []string }{
		{[]string{file, "up"}, []string{file, "up"}},
		{[]string{"up", file}, []string{file, "up"}},
		{[]string{"up[", file}, []string{file, "up["}},
		{[]string{"up[", "up", file}, []string{"up[", file, "up"}},
		{[]string{file, "up[", file}, []string{file, file, "up["}},
		{[]string{file, file}, []string{file, file}},
		{[]string{"-", file}, []string{"-", file}},
	} {
		if got := queryLast(c.args); !slices.Equal(got, c.want) {
			t.Errorf("%q are %q, not %q", c.args, got, c.want)
		}
	}
}
