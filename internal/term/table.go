package term

import (
	"bufio"
	"io"
	"strings"
	"unicode/utf8"
)

// Column describes a column of a table.
type Column struct {
	Name  string
	Right bool // align to the right, for numbers
}

// Table writes rows below the names of their columns, separated by two spaces. A row may have
// fewer cells than there are columns.
func Table(w io.Writer, columns []Column, rows [][]string) error {
	head := make([]string, len(columns))
	for i, c := range columns {
		head[i] = c.Name
	}
	all := make([][]string, 0, len(rows)+1)
	all = append(all, head)
	widths := make([]int, len(columns))
	for _, row := range append(all, rows...) {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(Printable(cell)))
		}
	}
	all = append(all, rows...)

	bw := bufio.NewWriter(w)
	for _, row := range all {
		var line strings.Builder
		for i, cell := range row {
			cell = Printable(cell)
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			if i > 0 {
				line.WriteString("  ")
			}
			if columns[i].Right {
				line.WriteString(pad + cell)
			} else {
				line.WriteString(cell + pad)
			}
		}
		bw.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
	return bw.Flush()
}

// Fact is a line of a [Facts] section.
type Fact struct{ Name, Value string }

// Facts writes a titled section of names and values:
//
//	Persistent Blocks Metadata
//	--------------------------
//	Total number of blocks | 9
//	Total size             | 132.8 MiB
func Facts(w io.Writer, title string, facts []Fact) error {
	wide := 0
	for _, f := range facts {
		wide = max(wide, utf8.RuneCountInString(f.Name))
	}
	bw := bufio.NewWriter(w)
	bw.WriteString(title + "\n" + strings.Repeat("-", utf8.RuneCountInString(title)) + "\n")
	for _, f := range facts {
		pad := strings.Repeat(" ", wide-utf8.RuneCountInString(f.Name))
		bw.WriteString(f.Name + pad + " | " + Printable(f.Value) + "\n")
	}
	return bw.Flush()
}
