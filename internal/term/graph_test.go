package term

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// TestGraph draws a line from corner to corner, one with a gap, and values that are not finite.
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
		if err := (Graph{Width: 60, Height: 24, Last: 100_000, Gap: 1000, Title: "SERIES", Lines: lines}).Write(&b); err != nil {
			t.Fatal(err)
		}
		return strings.Split(b.String(), "\n")
	}
	rows := draw(rise)
	if !strings.HasPrefix(rows[0], "100 ┤") || !strings.HasPrefix(rows[9], " 40 ┤") || !strings.HasPrefix(rows[15], "  0 ┤") {
		t.Errorf("the axis: %q %q %q", rows[0], rows[9], rows[15])
	}
	at := func(row int) int {
		return strings.IndexFunc(rows[row], func(r rune) bool { return r > 0x2800 && r < 0x2900 })
	}
	if at(15) >= at(8) || at(8) >= at(0) {
		t.Errorf("the line does not rise:\n%s", strings.Join(rows, "\n"))
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
	if rows = draw(Line{Name: "none", Points: []Point{{0, math.Inf(1)}}}); rows[0] != "no values to draw" {
		t.Errorf("%q", rows)
	}
	// Values from the smallest to the largest float.
	rows = draw(Line{Name: "all", Points: []Point{{0, -math.MaxFloat64}, {100_000, math.MaxFloat64}}})
	if len(rows) < 18 {
		t.Errorf("%q", rows)
	}
	var many []Line
	for i := range 40 {
		many = append(many, Line{Name: fmt.Sprint("m", i), Points: []Point{{0, float64(i)}}})
	}
	rows = draw(many...)
	if all := strings.Join(rows, "\n"); !strings.Contains(all, " series more, drawn but not listed") || len(rows)-1 > 23 {
		t.Errorf("unlisted lines are not counted, or %d rows scroll:\n%s", len(rows)-1, all)
	}
}

var escapes = regexp.MustCompile("\x1b\\[[0-9]+m")

// TestGraphFitsTheScreen draws graphs for several screens and numbers of lines. They fit the screen,
// and have the same text with and without colours.
func TestGraphFitsTheScreen(t *testing.T) {
	for _, width := range []int{40, 60, 80, 200} {
		for _, height := range []int{12, 24, 50} {
			for _, n := range []int{1, 2, 9, 40} {
				for _, length := range []int64{1, 1000, 90_000, 3_600_000, 86_400_000, 400 * 86_400_000, 9e14} {
					g := Graph{Width: width, Height: height, First: 1_617_235_200_123, Last: 1_617_235_200_123 + length, Gap: length / 2, Title: "SERIES of " + strings.Repeat("x", 100)}
					for i := range n {
						l := Line{Name: strings.Repeat("long ", 30)}
						for k := range int64(5) {
							l.Points = append(l.Points, Point{g.First + k*length/5, float64(i)*1234.5 + float64(k)})
						}
						g.Lines = append(g.Lines, l)
					}
					var plain, colored strings.Builder
					if err := g.Write(&plain); err != nil {
						t.Fatal(err)
					}
					g.Color = true
					if err := g.Write(&colored); err != nil {
						t.Fatal(err)
					}
					if escapes.ReplaceAllString(colored.String(), "") != plain.String() {
						t.Fatalf("with colours it is another one:\n%s\n%s", plain.String(), colored.String())
					}
					if got := len(escapes.FindAllString(colored.String(), -1)); got < 2*n && n < 9 {
						t.Errorf("%d lines have %d colours", n, got)
					}
					rows := strings.Split(strings.TrimSuffix(plain.String(), "\n"), "\n")
					if len(rows) >= height {
						t.Errorf("%d rows on a screen of %d", len(rows), height)
					}
					for _, r := range rows {
						if w := utf8.RuneCountInString(r); w > width {
							t.Errorf("%d columns on a screen of %d: %q", w, width, r)
						}
					}
				}
			}
		}
	}
}

// TestAxis checks that the labels of an axis are round numbers, and that the axis includes the values.
func TestAxis(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		size := math.Pow(10, r.Float64()*30-15)
		low := (r.Float64() - 0.5) * size
		high := low + r.Float64()*size
		a := newAxis(low, high, 5+r.IntN(12))
		if a.low > low || a.high < high || len(a.ticks) < 2 {
			t.Fatalf("%g to %g: axis from %g to %g, ticks %v", low, high, a.low, a.high, a.ticks)
		}
		for i, tick := range a.ticks {
			if i > 0 && (tick.label == a.ticks[i-1].label || tick.value >= a.ticks[i-1].value) {
				t.Fatalf("%g to %g: ticks %v", low, high, a.ticks)
			}
			if len(tick.label) > 16 {
				t.Fatalf("%g to %g: the label %s", low, high, tick.label)
			}
		}
	}
	for _, c := range []struct {
		low, high float64
		want      string
	}{
		{0.3, 97.2, "100 80 60 40 20 0"},
		{3, 3, "4.0 3.5 3.0 2.5 2.0"},
		{0.0012, 0.0031, "0.0035 0.0030 0.0025 0.0020 0.0015 0.0010"},
		{-3, 17, "20 15 10 5 0 -5"},
		{1.1e9, 4.2e9, "5G 4G 3G 2G 1G"},
		{12000, 48000, "50k 40k 30k 20k 10k"},
	} {
		var got []string
		for _, tick := range newAxis(c.low, c.high, 16).ticks {
			got = append(got, tick.label)
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%g to %g: %s, want %s", c.low, c.high, got, c.want)
		}
	}
}

func TestTimeAxis(t *testing.T) {
	at := func(s string) int64 {
		when, err := time.Parse("2006-01-02 15:04:05", s)
		if err != nil {
			t.Fatal(err)
		}
		return when.UnixMilli()
	}
	_, times := timeAxis(60, at("2021-04-01 10:03:07"), at("2021-04-01 11:02:00"))
	if want := regexp.MustCompile(`^ *2021-04-01 10:[0-5]0( +1[01]:[0-5]0)+$`); !want.MatchString(times) {
		t.Errorf("%q", times)
	}
	_, times = timeAxis(60, at("2021-04-01 22:00:00"), at("2021-04-02 04:00:00"))
	if !strings.Contains(times, "2021-04-01 22:00") || !strings.Contains(times, "2021-04-02 0") {
		t.Errorf("midnight has no date: %q", times)
	}
	if _, times = timeAxis(60, 1795478400000, 1795478400000000000); times != "2026-11-24T00:00:00Z                   1795478400000000000ms" {
		t.Errorf("%q", times)
	}
}
