package term

import (
	"bytes"
	"fmt"
	"math"
	"strings"
	"testing"
	"unicode/utf8"
)

// A line that rises from corner to corner, one with a gap, and what is no number.
func TestGraph(t *testing.T) {
	var rise, gap Line
	rise.Name, gap.Name = "rise", "gap"
	for i := range int64(101) {
		rise.Points = append(rise.Points, Point{i * 1000, float64(i)})
		if i < 20 || i > 80 {
			gap.Points = append(gap.Points, Point{i * 1000, 50})
		}
	}
	rise.Points[50].V = math.NaN()
	draw := func(lines ...Line) []string {
		var b bytes.Buffer
		if err := Graph(&b, 60, 0, 100_000, 1000, lines); err != nil {
			t.Fatal(err)
		}
		return strings.Split(b.String(), "\n")
	}
	rows := draw(rise)
	if !strings.HasPrefix(rows[0], "100 │") || !strings.HasPrefix(rows[8], " 50 │") || !strings.HasPrefix(rows[15], "  0 │") {
		t.Errorf("the axis: %q %q %q", rows[0], rows[8], rows[15])
	}
	at := func(row int) int {
		return strings.IndexFunc(rows[row], func(r rune) bool { return r > 0x2800 && r < 0x2900 })
	}
	if at(15) >= at(8) || at(8) >= at(0) {
		t.Errorf("it does not rise:\n%s", strings.Join(rows, "\n"))
	}
	for _, r := range rows {
		if utf8.RuneCountInString(r) > 60 {
			t.Errorf("wider than the terminal: %q", r)
		}
	}
	rows = draw(gap)
	line := []rune(rows[8] + rows[7] + rows[9])
	if n := strings.Count(string(line), "\u2800"); n < 20 {
		t.Errorf("the gap is filled:\n%s", strings.Join(rows, "\n"))
	}
	if rows = draw(Line{Name: "none", Points: []Point{{0, math.Inf(1)}}}); rows[0] != "there is nothing to draw" {
		t.Errorf("%q", rows)
	}
	// From the smallest to the largest float.
	rows = draw(Line{Name: "all", Points: []Point{{0, -math.MaxFloat64}, {100_000, math.MaxFloat64}}})
	if len(rows) < 18 {
		t.Errorf("%q", rows)
	}
	var many []Line
	for i := range 40 {
		many = append(many, Line{Name: fmt.Sprint("m", i), Points: []Point{{0, float64(i)}}})
	}
	if all := strings.Join(draw(many...), "\n"); !strings.Contains(all, "… and 15 series more") {
		t.Errorf("what is not listed is not said:\n%s", all)
	}
}
