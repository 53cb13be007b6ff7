package docs

import (
	"regexp"
	"strings"
)

// rules are what does not count, in their order.
var rules = []struct {
	what *regexp.Regexp
	as   string
}{
	{regexp.MustCompile(`\b[0-7][0-9A-HJKMNP-TV-Z]{25}\b`), "ULID"},
	{regexp.MustCompile(`\b\d+ h \d+ min\b|\b\d+ min \d+ s\b|\b\d+(\.\d)? s\b`), "DURATION"},
	{regexp.MustCompile(`\b(\d+ \()?\d+(\.\d+)? (B|[KMGT]iB)\b`), "SIZE"},
	{regexp.MustCompile(`-{3,}`), "---"}, // as long as the heading over it
	{regexp.MustCompile(`\s+`), " "},     // as wide as what is in the column
}

// free are more of them, for data that is not the same each time.
var free = []struct {
	what *regexp.Regexp
	as   string
}{
	{regexp.MustCompile(`\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?Z?`), "TIME"},
	{regexp.MustCompile(`\b\d+(,\d{3})*(\.\d+)?\b`), "NUMBER"},
	{regexp.MustCompile(`\bNUMBER blocks?\b`), "NUMBER blocks"},       // one less or more at a full two hours
	{regexp.MustCompile(`\bpromdump-[a-z0-9]{5}\b`), "promdump-NAME"}, // a debug container's
}

// Like tells whether the lines were printed that are said to be. ULIDs, lengths of
// time, sizes and the width of columns do not count; with vary, times and numbers do
// not either.
func Like(want, got []string, vary bool) bool {
	want, got = trim(want), trim(got)
	if len(want) == 0 {
		return len(got) == 0
	}
	if want[0] == "…" {
		for skip := range len(got) + 1 {
			if Like(want[1:], got[skip:], vary) {
				return true
			}
		}
		return false
	}
	return len(got) > 0 && likeLine(want[0], got[0], vary) && Like(want[1:], got[1:], vary)
}

// trim drops empty lines at the end.
func trim(lines []string) []string {
	for len(lines) > 0 && strings.TrimSpace(lines[len(lines)-1]) == "" {
		lines = lines[:len(lines)-1]
	}
	return lines
}

func likeLine(want, got string, vary bool) bool {
	want, got = plain(want, vary), plain(got, vary)
	parts := strings.Split(want, "…")
	if len(parts) == 1 {
		return want == got
	}
	got, ok := strings.CutPrefix(got, parts[0])
	if !ok {
		return false
	}
	last := parts[len(parts)-1]
	for _, part := range parts[1 : len(parts)-1] {
		i := strings.Index(got, part)
		if i < 0 {
			return false
		}
		got = got[i+len(part):]
	}
	return strings.HasSuffix(got, last)
}

// plain is the line without what does not count.
func plain(line string, vary bool) string {
	all := rules
	if vary {
		all = append(free[:len(free):len(free)], rules...)
		// A size is no number, so it goes first.
		all = append(rules[:3:3], all...)
	}
	for _, r := range all {
		line = r.what.ReplaceAllString(line, r.as)
	}
	return strings.TrimSpace(line)
}
