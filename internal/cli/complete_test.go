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

// What is begun at the end of an expression.
func TestPromQLEnd(t *testing.T) {
	for typed, want := range map[string]struct {
		at          place
		word, label string
	}{
		"":                                  {atMetric, "", ""},
		"htt":                               {atMetric, "htt", ""},
		"rate(htt":                          {atMetric, "htt", ""},
		"a + job:up:su":                     {atMetric, "job:up:su", ""},
		"up{":                               {atLabel, "", ""},
		"up{na":                             {atLabel, "na", ""},
		`up{job="a",na`:                     {atLabel, "na", ""},
		`up{job="`:                          {atValue, "", "job"},
		`up{job=~"ku`:                       {atValue, "ku", "job"},
		`up{job="a", pod!="che`:             {atValue, "che", "pod"},
		"up{job='ku":                        {atValue, "ku", "job"},
		`up{job="a{b",po`:                   {atLabel, "po", ""},
		`up{job="a\"b`:                      {atValue, `a\"b`, "job"},
		`up{job="a"} + `:                    {atMetric, "", ""},
		"sum by (po":                        {atLabel, "po", ""},
		"sum by(pod,":                       {atLabel, "", ""},
		"sum by (pod) (rat":                 {atMetric, "rat", ""},
		"a * on(po":                         {atLabel, "po", ""},
		"a / ignoring (x) group_left (":     {atLabel, "", ""},
		`label_replace(up, "x`:              {atValue, "x", ""},
		`sum without (a) (up{job="x"}) / c`: {atMetric, "c", ""},
	} {
		if at, word, label := promQLEnd(typed); at != want.at || word != want.word || label != want.label {
			t.Errorf("%s: %v %q %q, want %v %q %q", typed, at, word, label, want.at, want.word, want.label)
		}
	}
}
