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

// A braille character is two dots wide and four high; its bits by row and column.
var dots = [4][2]rune{{0x01, 0x08}, {0x02, 0x10}, {0x04, 0x20}, {0x40, 0x80}}

var sparks = []rune("▁▂▃▄▅▆▇█")

const (
	graphHeight = 16 // rows of characters
	sparkWidth  = 24
	maxLegend   = 25 // lines that are listed below the graph
)

// Graph draws lines over the time from first to last, all into one picture, in
// braille, and lists them below it, each with a small picture of its own: there
// are no colours to tell them apart. Points that are not numbers leave a gap, and
// so does a time of more than gap without a point.
func Graph(w io.Writer, width int, first, last, gap int64, lines []Line) error {
	low, high, found := bounds(lines)
	bw := bufio.NewWriter(w)
	if !found {
		bw.WriteString("there is nothing to draw\n")
		return bw.Flush()
	}
	if low == high { // a straight line stands in the middle
		pad := max(math.Abs(low)/10, 1)
		low, high = low-pad, high+pad
	}
	labels := []string{Number(high), Number(low/2 + high/2), Number(low)}
	left := 0
	for _, l := range labels {
		left = max(left, utf8.RuneCountInString(l))
	}
	c := newCanvas(max(width-left-3, 10), graphHeight, first, max(last, first+1), low, high)
	for _, l := range lines {
		c.line(l.Points, gap)
	}
	for row := range c.cells {
		label := ""
		switch row {
		case 0:
			label = labels[0]
		case len(c.cells) / 2:
			label = labels[1]
		case len(c.cells) - 1:
			label = labels[2]
		}
		bw.WriteString(strings.Repeat(" ", left-utf8.RuneCountInString(label)) + label + " │" + strings.TrimRight(string(c.cells[row]), "\u2800") + "\n")
	}
	bw.WriteString(strings.Repeat(" ", left) + " └" + strings.Repeat("─", c.width) + "\n")
	bw.WriteString(strings.Repeat(" ", left+2) + timeAxis(c.width, first, last) + "\n\n")
	if err := bw.Flush(); err != nil {
		return err
	}
	return legend(w, first, last, lines)
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
	first, last int64
	low, high   float64
}

func newCanvas(width, height int, first, last int64, low, high float64) *canvas {
	c := &canvas{width: width, cells: make([][]rune, height), first: first, last: last, low: low, high: high}
	for i := range c.cells {
		c.cells[i] = []rune(strings.Repeat("\u2800", width))
	}
	return c
}

// at is the place of a point, in dots from the upper left.
func (c *canvas) at(p Point) (x, y int) {
	x = int(math.Round(float64(p.Ms-c.first) / float64(c.last-c.first) * float64(2*c.width-1)))
	// Halves, since the whole way from low to high may be beyond a float.
	y = int(math.Round((c.high/2 - p.V/2) / (c.high/2 - c.low/2) * float64(4*len(c.cells)-1)))
	return x, y
}

func (c *canvas) dot(x, y int) {
	if x < 0 || y < 0 || x >= 2*c.width || y >= 4*len(c.cells) {
		return
	}
	c.cells[y/4][x/2] |= dots[y%4][x%2]
}

// line connects what follows each other without a gap.
func (c *canvas) line(points []Point, gap int64) {
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
			c.stroke(lastX, lastY, x, y)
		} else {
			c.dot(x, y)
		}
		open, lastX, lastY, lastMs = true, x, y, p.Ms
	}
}

func (c *canvas) stroke(x0, y0, x1, y1 int) {
	steps := max(x1-x0, x0-x1, y1-y0, y0-y1, 1)
	for i := range steps + 1 {
		part := float64(i) / float64(steps)
		c.dot(x0+int(math.Round(float64(x1-x0)*part)), y0+int(math.Round(float64(y1-y0)*part)))
	}
}

// timeAxis writes as many of first, middle and last as there is room for.
func timeAxis(width int, first, last int64) string {
	a, m, z := Time(first), Time((first+last)/2), Time(last)
	if room := width - len(a) - len(m) - len(z); room >= 2 {
		before := max(width/2-len(m)/2-len(a), 1)
		return a + strings.Repeat(" ", before) + m + strings.Repeat(" ", max(width-len(a)-before-len(m)-len(z), 1)) + z
	}
	if room := width - len(a) - len(z); room >= 1 {
		return a + strings.Repeat(" ", room) + z
	}
	return a
}

func legend(w io.Writer, first, last int64, lines []Line) error {
	var rows [][]string
	for _, l := range lines[:min(len(lines), maxLegend)] {
		low, high, found := bounds([]Line{l})
		row := []string{spark(l.Points, first, last, low, high), "", "", "", l.Name}
		if found {
			row[1], row[2], row[3] = Number(low), Number(high), Number(l.Points[len(l.Points)-1].V)
		}
		rows = append(rows, row)
	}
	columns := []Column{{Name: "SHAPE"}, {Name: "MIN", Right: true}, {Name: "MAX", Right: true}, {Name: "LAST", Right: true}, {Name: "SERIES"}}
	if err := Table(w, columns, rows); err != nil {
		return err
	}
	if more := len(lines) - len(rows); more > 0 {
		_, err := fmt.Fprintf(w, "… and %s more, drawn but not listed\n", Counted(more, "series", "series"))
		return err
	}
	return nil
}

// spark shows the last value of each piece of time, as one of eight heights.
func spark(points []Point, first, last int64, low, high float64) string {
	cells := []rune(strings.Repeat(" ", sparkWidth))
	for _, p := range points {
		if !finite(p.V) {
			continue
		}
		i := int(float64(p.Ms-first) / float64(max(last-first, 1)) * sparkWidth)
		height := 0
		if high > low {
			height = int((p.V/2 - low/2) / (high/2 - low/2) * float64(len(sparks)))
		}
		cells[min(max(i, 0), sparkWidth-1)] = sparks[min(max(height, 0), len(sparks)-1)]
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
