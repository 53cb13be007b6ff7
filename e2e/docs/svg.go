package docs

import (
	"encoding/xml"
	"errors"
	"fmt"
	"html"
	"io"
	"os"
	"slices"
	"strings"
	"unicode/utf8"
)

// Where a line of the recording is, in its units.
const (
	charWidth, lineHeight = 8.4, 19
	margin, bar           = 18, 34
	most                  = 92 // characters in a line
)

// Picture draws a terminal with these commands and what they print, as an SVG: text,
// not shapes; no script, and nothing that moves, so that all of it is seen at once
// wherever it is shown. It has a ground of its own, the same on a light page and on a
// dark one.
func Picture(commands []Command) string {
	var body strings.Builder
	y := float64(bar + margin)
	line := func(class, text string) {
		fmt.Fprintf(&body, `<text class="%s" x="%d" y="%.0f" xml:space="preserve">%s</text>`+"\n", class, margin, y, html.EscapeString(text))
		y += lineHeight
	}
	for _, c := range commands {
		for i, text := range strings.Split(c.Text, "\n") {
			if i == 0 {
				text = "$ " + text
			}
			line("c", text)
		}
		for _, text := range trim(c.Want) {
			line("o", text)
		}
		y += lineHeight / 2
	}
	w, h := most*charWidth+2*margin, y
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f %.0f" width="%.0f" height="%.0f" role="img" aria-label="promdump in a terminal">
<style>
text{font:14px ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;white-space:pre}
.c{fill:#e6edf3;font-weight:600}.o{fill:#9fb3c8}
</style>
<rect width="100%%" height="100%%" rx="10" fill="#0f1720" stroke="#3b4a5a"/>
<circle cx="20" cy="18" r="5.5" fill="#ff5f57"/><circle cx="38" cy="18" r="5.5" fill="#febc2e"/><circle cx="56" cy="18" r="5.5" fill="#28c840"/>
%s</svg>
`, w, h, w, h, body.String())
}

// Record runs the commands in the session and draws them.
func (s *Session) Record(commands []string) (string, error) {
	var all []Command
	for _, text := range commands {
		all = append(all, Command{Text: text})
	}
	outputs, err := s.shell(all)
	if err != nil {
		return "", err
	}
	for i := range all {
		all[i].Want = strings.Split(strings.TrimRight(s.there(outputs[i]), "\n"), "\n")
		for _, line := range slices.Concat(all[i].Want, strings.Split("$ "+all[i].Text, "\n")) {
			if n := utf8.RuneCountInString(line); n > most {
				return "", fmt.Errorf("%d characters do not fit: %s", n, line)
			}
		}
	}
	return Picture(all), nil
}

// Recorded are the lines of a picture.
func Recorded(file string) (lines []string, err error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	for d := xml.NewDecoder(f); ; {
		token, err := d.Token()
		if err == io.EOF {
			return lines, nil
		}
		if err != nil {
			return nil, err
		}
		if start, is := token.(xml.StartElement); is && start.Name.Local == "text" {
			var text string
			if err := d.DecodeElement(&text, &start); err != nil {
				return nil, err
			}
			lines = append(lines, text)
		}
	}
}
