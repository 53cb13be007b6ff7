package term

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// axis is the scale of a graph's values, between two round numbers.
type axis struct {
	low, high float64
	ticks     []tick // the highest first
}

// tick is a labelled value of an axis.
type tick struct {
	value float64
	label string
}

// newAxis returns an axis that includes low and high, with about one tick for three rows.
func newAxis(low, high float64, rows int) axis {
	if low == high { // draws a constant line in the middle
		pad := max(math.Abs(low)/10, 1)
		low, high = low-pad, high+pad
	}
	step := roundStep((high/2 - low/2) / float64(max(rows/3, 1)) * 2)
	first, last := math.Floor(low/step), math.Ceil(high/step)
	// More than 2^53 steps from zero, neighbouring ticks may be equal floats.
	if !finite(step) || !finite(first*step) || !finite(last*step) ||
		math.Abs(first) > 1<<53 || math.Abs(last) > 1<<53 || last-first > float64(rows) {
		a := axis{low: low, high: high}
		for _, v := range []float64{high, low/2 + high/2, low} {
			a.ticks = append(a.ticks, tick{v, Number(v)})
		}
		return a
	}
	a := axis{low: first * step, high: last * step}
	divisor, unit := unitOf(max(math.Abs(a.low), math.Abs(a.high)))
	// All labels have the digits of the step.
	digits := max(0, -int(math.Floor(math.Log10(step/divisor)+1e-9)))
	for n := last; n >= first; n-- {
		v := n * step / divisor
		label := strconv.FormatFloat(v, 'f', digits, 64) + unit
		switch {
		case n == 0:
			label = "0"
		case digits > 6:
			label = strconv.FormatFloat(v, 'g', 6, 64)
		}
		a.ticks = append(a.ticks, tick{n * step, label})
	}
	return a
}

// roundStep returns the smallest number of at least v that is 1, 2 or 5 times a power of ten.
func roundStep(v float64) float64 {
	power := math.Pow(10, math.Floor(math.Log10(v)))
	for _, f := range []float64{1, 2, 5} {
		if f*power >= v*(1-1e-9) {
			return f * power
		}
	}
	return 10 * power
}

// unitOf returns the unit for numbers up to v.
func unitOf(v float64) (divisor float64, unit string) {
	for _, u := range []struct {
		from, size float64
		name       string
	}{{1e12, 1e12, "T"}, {1e9, 1e9, "G"}, {1e6, 1e6, "M"}, {1e4, 1e3, "k"}} {
		if v >= u.from && v < 1e18 {
			return u.size, u.name
		}
	}
	return 1, ""
}

// timeSteps are the possible distances of ticks, in seconds.
var timeSteps = []int64{
	1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 2 * 3600, 3 * 3600, 6 * 3600, 12 * 3600,
	86400, 2 * 86400, 7 * 86400, 14 * 86400, 30 * 86400, 90 * 86400, 365 * 86400,
}

// timeAxis returns the axis below a graph, with ticks at round times, and the line with the labels.
// The first label of each day has the date. If there is no room for ticks, or RFC 3339 cannot
// represent the times, the labels are the first and the last time.
func timeAxis(width int, first, last int64) (ticks, times string) {
	line := []rune(strings.Repeat("─", width))
	span := float64(last) - float64(first)
	if !printable(first) || !printable(last) || span <= 0 {
		return string(line), ends(width, first, last)
	}
	const dated = len("2006-01-02 15:04")
	text := []rune(strings.Repeat(" ", width))
	for _, step := range timeSteps {
		layout, length := "15:04", 5
		switch {
		case step < 60:
			layout, length = "15:04:05", 8
		case step >= 86400:
			layout, length = "2006-01-02", 10
		}
		// Each label needs a gap, and the first one room for its date.
		if span/float64(step*1000)*float64(length+3)+float64(dated-length) > float64(width) {
			continue
		}
		stepMs := step * 1000
		at := first - first%stepMs
		if at < first {
			at += stepMs
		}
		free, day := 0, ""
		for ; at <= last; at += stepMs {
			x := min(int(math.Round((float64(at)-float64(first))/span*float64(width-1))), width-1)
			t := time.UnixMilli(at).UTC()
			label, date := t.Format(layout), t.Format("2006-01-02")
			if date != day && step < 86400 {
				label = date + " " + label
			}
			begin := max(x-utf8.RuneCountInString(label)/2, 0)
			begin = min(begin, width-len(label))
			if begin < free || begin < 0 {
				continue
			}
			line[x] = '┬'
			copy(text[begin:], []rune(label))
			free, day = begin+len(label)+1, date
		}
		if slices.Contains(line, '┬') {
			return string(line), strings.TrimRight(string(text), " ")
		}
		break
	}
	return string(line), ends(width, first, last)
}

// ends returns a line with the first time and, if there is room, the last one.
func ends(width int, first, last int64) string {
	a, z := Time(first), Time(last)
	if room := width - len(a) - len(z); room >= 1 {
		return a + strings.Repeat(" ", room) + z
	}
	return Shorten(a, width)
}
