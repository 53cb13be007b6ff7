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

// Line is one line of a [Graph]. Its points are in the order of their times.
type Line struct {
	Name   string
	Points []Point
}

// Point is a value at a time in Unix milliseconds.
type Point struct {
	Ms int64
	V  float64
}

// Graph is a picture of lines over the time from First to Last, in Unix milliseconds,
// with a legend below it. Together they fit a screen of Width columns and Height rows.
type Graph struct {
	Width, Height int
	First, Last   int64
	Gap           int64  // longer times without a point leave a gap in the line
	Color         bool   // draws each line in its own colour
	Title         string // the head of the legend
	Lines         []Line
}

// A braille character is two dots wide and four high; its bits by row and column.
var dots = [4][2]rune{{0x01, 0x08}, {0x02, 0x10}, {0x04, 0x20}, {0x40, 0x80}}

var sparks = []rune("▁▂▃▄▅▆▇█")

// colors are those of a terminal's palette that can be read on black and on white.
var colors = []string{"36", "33", "35", "32", "34", "31", "96", "93", "95", "92", "94", "91"}

const (
	highestGraph = 16 // rows of characters
	lowestGraph  = 5
	sparkWidth   = 24
	lowestScreen = 12 // rows; on a smaller one the graph scrolls
)

// Write draws all lines into one picture, in braille, and lists them below it, each
// with a small picture of its own. Points that are not numbers leave a gap.
func (g Graph) Write(w io.Writer) error {
	low, high, found := bounds(g.Lines)
	bw := bufio.NewWriter(w)
	if !found {
		bw.WriteString("there is nothing to draw\n")
		return bw.Flush()
	}
	// One row stays for the prompt of the shell, and one has the legend's head.
	room := max(g.Height, lowestScreen) - 2
	const axes = 2
	height := min(max(room-axes-len(g.Lines), room/2, lowestGraph), highestGraph)
	listed := min(len(g.Lines), room-axes-height)
	if listed < len(g.Lines) {
		listed-- // says how many are not
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

func finite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }

type canvas struct {
	width       int // characters
	cells       [][]rune
	lines       [][]int // the last line in each cell
	first, last int64
	low, high   float64
}

func newCanvas(width, height int, first, last int64, low, high float64) *canvas {
	c := &canvas{width: width, first: first, last: last, low: low, high: high}
	c.cells, c.lines = make([][]rune, height), make([][]int, height)
	for i := range c.cells {
		c.cells[i] = []rune(strings.Repeat("\u2800", width))
		c.lines[i] = make([]int, width)
	}
	return c
}

// at is the place of a point, in dots from the upper left.
func (c *canvas) at(p Point) (x, y int) {
	x = int(math.Round((float64(p.Ms) - float64(c.first)) / (float64(c.last) - float64(c.first)) * float64(2*c.width-1)))
	// Halves, since the whole way from low to high may be beyond a float.
	y = int(math.Round((c.high/2 - p.V/2) / (c.high/2 - c.low/2) * float64(4*len(c.cells)-1)))
	return x, y
}

func (c *canvas) dot(x, y, line int) {
	if x < 0 || y < 0 || x >= 2*c.width || y >= 4*len(c.cells) {
		return
	}
	c.cells[y/4][x/2] |= dots[y%4][x%2]
	c.lines[y/4][x/2] = line
}

// line connects what follows each other without a gap.
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

func (c *canvas) stroke(x0, y0, x1, y1, line int) {
	steps := max(x1-x0, x0-x1, y1-y0, y0-y1, 1)
	for i := range steps + 1 {
		part := float64(i) / float64(steps)
		c.dot(x0+int(math.Round(float64(x1-x0)*part)), y0+int(math.Round(float64(y1-y0)*part)), line)
	}
}

// row is a row of characters, without what is empty at its end.
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

// painted is text in the colour of a line.
func painted(text string, line int) string {
	return "\x1b[" + colors[line%len(colors)] + "m" + text + "\x1b[0m"
}

// legend lists the first lines, one row each, cut to the width.
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

// Shorten cuts text to a number of columns, with "…" in the place of what is missing.
func Shorten(text string, columns int) string {
	if utf8.RuneCountInString(text) <= columns {
		return text
	}
	return string([]rune(text)[:max(columns-1, 0)]) + "…"
}

// spark shows the last value of each piece of time, as one of eight heights.
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

// Number formats a value for a person: as few digits as tell it apart, at most
// six.
func Number(v float64) string {
	if v == math.Trunc(v) && math.Abs(v) < 1e15 {
		return strconv.FormatFloat(v, 'f', -1, 64)
	}
	return strconv.FormatFloat(v, 'g', 6, 64)
}

// Step is how far apart the points of a graph of that length of time are, when
// nobody says it: about 250 of them, whole seconds.
func Step(length time.Duration) time.Duration {
	return max((length / 250).Truncate(time.Second), time.Second)
}
