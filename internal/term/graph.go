package term

import (
	"bufio"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Line is a line of a [Graph].
type Line struct {
	Name   string
	Points []Point // sorted by time
}

// Point is a value at a time.
type Point struct {
	Ms int64 // Unix milliseconds
	V  float64
}

// Graph is a line graph for a terminal with a legend below it.
type Graph struct {
	Width, Height int    // of the terminal, in columns and rows
	First, Last   int64  // time range, Unix milliseconds
	Gap           int64  // maximum distance of connected points, in milliseconds
	Color         bool   // draw each line in its own colour
	Title         string // of the legend's column of names
	Lines         []Line
}

// dots are the bits of a braille character, by row and column.
var dots = [4][2]rune{{0x01, 0x08}, {0x02, 0x10}, {0x04, 0x20}, {0x40, 0x80}}

// sparks are the characters of a small graph, by height.
var sparks = []rune("▁▂▃▄▅▆▇█")

// colors are the colours of a terminal's palette that are readable on black and on white.
var colors = []string{"36", "33", "35", "32", "34", "31", "96", "93", "95", "92", "94", "91"}

// Sizes in rows and columns.
const (
	maxGraphHeight  = 16
	minGraphHeight  = 5
	sparkWidth      = 24
	minScreenHeight = 12 // on a smaller screen the graph scrolls
)

// Write draws all lines into one graph of braille characters, and a legend with the name, the values
// and a small graph of each line. Both together fit the height of the terminal unless that is less
// than 12 rows; lines that do not fit into the legend are counted in its last row. Points with NaN
// or infinite values leave a gap.
func (g Graph) Write(w io.Writer) error {
	low, high, found := bounds(g.Lines)
	bw := bufio.NewWriter(w)
	if !found {
		bw.WriteString("no values to draw\n")
		return bw.Flush()
	}
	// One row is for the shell prompt and one for the header of the legend.
	room := max(g.Height, minScreenHeight) - 2
	const axes = 2
	height := min(max(room-axes-len(g.Lines), room/2, minGraphHeight), maxGraphHeight)
	listed := min(len(g.Lines), room-axes-height)
	if listed < len(g.Lines) {
		listed-- // one row counts the unlisted lines
	}

	axis := newAxis(low, high, height)
	left := 0
	for _, t := range axis.ticks {
		left = max(left, utf8.RuneCountInString(t.label))
	}
	c := newCanvas(max(g.Width-left-3, 10), height, g.First, max(g.Last, g.First+1), axis.low, axis.high)
	for i, l := range g.Lines {
		c.line(l.Points, g.Gap, i)
	}
	labels := make([]string, height)
	for _, t := range axis.ticks {
		_, y := c.at(Point{g.First, t.value})
		labels[min(max(y/4, 0), height-1)] = t.label
	}
	for row, label := range labels {
		edge := " │"
		if label != "" {
			edge = " ┤"
		}
		pad := strings.Repeat(" ", left-utf8.RuneCountInString(label))
		bw.WriteString(pad + label + edge + c.row(row, g.Color) + "\n")
	}
	ticks, times := timeAxis(c.width, g.First, g.Last)
	bw.WriteString(strings.Repeat(" ", left) + " └" + ticks + "\n")
	bw.WriteString(strings.Repeat(" ", left+2) + times + "\n")
	if err := bw.Flush(); err != nil {
		return err
	}
	return g.legend(w, listed)
}

// bounds returns the lowest and the highest finite value of lines.
func bounds(lines []Line) (low, high float64, found bool) {
	low, high = math.Inf(1), math.Inf(-1)
	for _, l := range lines {
		for _, p := range l.Points {
			if finite(p.V) {
				low, high, found = min(low, p.V), max(high, p.V), true
			}
		}
	}
	return low, high, found
}

// finite reports whether v is neither NaN nor infinite.
func finite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }

// canvas draws lines with braille characters.
type canvas struct {
	width       int // in characters
	cells       [][]rune
	lines       [][]int // number of the last line drawn in each cell
	first, last int64   // times at the left and right edge
	low, high   float64 // values at the lower and upper edge
}

// newCanvas returns an empty canvas of width by height characters.
func newCanvas(width, height int, first, last int64, low, high float64) *canvas {
	c := &canvas{width: width, first: first, last: last, low: low, high: high}
	c.cells, c.lines = make([][]rune, height), make([][]int, height)
	for i := range c.cells {
		c.cells[i] = []rune(strings.Repeat("\u2800", width))
		c.lines[i] = make([]int, width)
	}
	return c
}

// at returns the position of a point, in dots from the upper left.
func (c *canvas) at(p Point) (x, y int) {
	span := float64(c.last) - float64(c.first)
	x = int(math.Round((float64(p.Ms) - float64(c.first)) / span * float64(2*c.width-1)))
	// Halves, because high-low may overflow.
	y = int(math.Round((c.high/2 - p.V/2) / (c.high/2 - c.low/2) * float64(4*len(c.cells)-1)))
	return x, y
}

// dot draws a dot of a line. It ignores positions outside the canvas.
func (c *canvas) dot(x, y, line int) {
	if x < 0 || y < 0 || x >= 2*c.width || y >= 4*len(c.cells) {
		return
	}
	c.cells[y/4][x/2] |= dots[y%4][x%2]
	c.lines[y/4][x/2] = line
}

// line draws a line. It connects neighbouring points that are at most gap apart.
func (c *canvas) line(points []Point, gap int64, line int) {
	open := false
	var lastX, lastY int
	var lastMs int64
	for _, p := range points {
		if !finite(p.V) {
			open = false
			continue
		}
		x, y := c.at(p)
		if open && p.Ms-lastMs <= gap {
			c.stroke(lastX, lastY, x, y, line)
		} else {
			c.dot(x, y, line)
		}
		open, lastX, lastY, lastMs = true, x, y, p.Ms
	}
}

// stroke draws a straight line between two positions.
func (c *canvas) stroke(x0, y0, x1, y1, line int) {
	steps := max(x1-x0, x0-x1, y1-y0, y0-y1, 1)
	for i := range steps + 1 {
		part := float64(i) / float64(steps)
		c.dot(x0+int(math.Round(float64(x1-x0)*part)), y0+int(math.Round(float64(y1-y0)*part)), line)
	}
}

// row returns a row of characters without empty ones at its end.
func (c *canvas) row(row int, color bool) string {
	text := []rune(strings.TrimRight(string(c.cells[row]), "\u2800"))
	if !color {
		return string(text)
	}
	var b strings.Builder
	for i := 0; i < len(text); {
		from := i
		if text[i] == '\u2800' {
			for i < len(text) && text[i] == '\u2800' {
				i++
			}
			b.WriteString(string(text[from:i]))
			continue
		}
		for i < len(text) && text[i] != '\u2800' && c.lines[row][i] == c.lines[row][from] {
			i++
		}
		b.WriteString(painted(string(text[from:i]), c.lines[row][from]))
	}
	return b.String()
}

// painted returns text in the colour of a line.
func painted(text string, line int) string {
	return "\x1b[" + colors[line%len(colors)] + "m" + text + "\x1b[0m"
}

// legend writes the first listed lines, one row each, shortened to the width.
func (g Graph) legend(w io.Writer, listed int) error {
	shape := min(max(g.Width/5, 4), sparkWidth)
	rows := [][]string{{"MIN", "MAX", "LAST", g.Title}}
	var shapes []string
	for _, l := range g.Lines[:listed] {
		low, high, found := bounds([]Line{l})
		row := []string{"", "", "", l.Name}
		if found {
			row[0], row[1], row[2] = Number(low), Number(high), Number(l.Points[len(l.Points)-1].V)
		}
		rows = append(rows, row)
		shapes = append(shapes, spark(l.Points, shape, g.First, g.Last, low, high))
	}
	var widths [3]int
	for _, row := range rows {
		for i := range widths {
			widths[i] = max(widths[i], utf8.RuneCountInString(row[i]))
		}
	}
	bw := bufio.NewWriter(w)
	for i, row := range rows {
		text := "SHAPE" + strings.Repeat(" ", max(shape-len("SHAPE"), 0))
		used := max(shape, len("SHAPE"))
		if i > 0 {
			text = shapes[i-1]
			if g.Color {
				text = painted(text, i-1)
			}
			text += strings.Repeat(" ", used-shape)
		}
		for k, n := range widths {
			text += "  " + strings.Repeat(" ", n-utf8.RuneCountInString(row[k])) + row[k]
			used += 2 + n
		}
		bw.WriteString(strings.TrimRight(text+"  "+Shorten(Printable(row[3]), g.Width-used-2), " ") + "\n")
	}
	if more := len(g.Lines) - listed; more > 0 {
		line := fmt.Sprintf("… and %s more, drawn but not listed", Counted(more, "series", "series"))
		bw.WriteString(Shorten(line, g.Width) + "\n")
	}
	return bw.Flush()
}

// Shorten returns text shortened to a number of columns, with "…" at the end if it was longer.
func Shorten(text string, columns int) string {
	if utf8.RuneCountInString(text) <= columns {
		return text
	}
	return string([]rune(text)[:max(columns-1, 0)]) + "…"
}

// spark returns a small graph of width characters. Each has the height of the last value in its part
// of the time range.
func spark(points []Point, width int, first, last int64, low, high float64) string {
	cells := []rune(strings.Repeat(" ", width))
	for _, p := range points {
		if !finite(p.V) {
			continue
		}
		i := int((float64(p.Ms) - float64(first)) / max(float64(last)-float64(first), 1) * float64(width))
		height := 0
		if high > low {
			height = int((p.V/2 - low/2) / (high/2 - low/2) * float64(len(sparks)))
		}
		cells[min(max(i, 0), width-1)] = sparks[min(max(height, 0), len(sparks)-1)]
	}
	return string(cells)
}

// Number formats a value for display with at most six significant digits, and whole numbers below
// 1e15 with all digits.
func Number(v float64) string {
	if v == math.Trunc(v) && math.Abs(v) < 1e15 {
		return strconv.FormatFloat(v, 'f', -1, 64)
	}
	return strconv.FormatFloat(v, 'g', 6, 64)
}

// Step returns the default distance of the points of a graph of a time range: whole seconds, for about
// 250 points.
func Step(length time.Duration) time.Duration {
	return max((length / 250).Truncate(time.Second), time.Second)
}
