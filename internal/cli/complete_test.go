package cli

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"github.com/promdump/promdump/internal/term"
)

// What a shell is told: words, and what files fit.
func TestComplete(t *testing.T) {
	for typed, want := range map[string]string{
		"dump --head ":        "block raw none :4",
		"dump --compression ": "gzip zstd none :4",
		"dump --since ":       ":4",
		"dump ":               ":4",
		"-d ":                 ":16",
		"open --cache-dir ":   ":16",
		"open --rules ":       ":0",
		"meta -o ":            "table wide json yaml :4",
		"verify ":             "gz tgz zst tar partial :8",
		"restore -t ":         "gz tgz zst tar partial :8",
		"open --export ":      "openmetrics csv parquet :4",
		"query dump.tar ":     "gz tgz zst tar partial :8",
	} {
		var out bytes.Buffer
		if code := Main(t.Context(), append([]string{"__complete"}, strings.Split(typed, " ")...), term.Streams{In: strings.NewReader(""), Out: &out, Err: io.Discard}); code != 0 {
			t.Errorf("%q: exit %d", typed, code)
		}
		if got := strings.Join(strings.Fields(out.String()), " "); got != want {
			t.Errorf("%q: %q, want %q", typed, got, want)
		}
	}
}
