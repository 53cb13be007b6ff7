package cli

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/prometheus/common/model"

	"github.com/promdump/promdump/internal/changed"
	"github.com/promdump/promdump/internal/term"
)

func (a *app) printChangedJSON(r *changed.Result) error {
	e := json.NewEncoder(a.Out)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

func (a *app) printChanged(r *changed.Result) error {
	for _, n := range r.Notes {
		a.notes([]string{n.Text})
	}
	days := ""
	if r.Days > 0 {
		days = fmt.Sprintf(" and the same hours of %s before", term.Counted(r.Days, "day", "days"))
	}
	a.summary("compared %s to %s with %s to %s%s: %s of %s changed, in %s",
		term.Time(r.Window.From), term.Time(r.Window.To), term.Time(r.Baseline.From), term.Time(r.Baseline.To), days,
		term.Counted(r.Changed, "series", "series"), term.Count(r.Series), term.Duration(time.Duration(r.TookMs)*time.Millisecond))
	if r.Quiet {
		a.summary("nothing changed more than its own spread in the baseline")
		return nil
	}
	w := bufio.NewWriter(a.Out)
	for i := range r.Rows {
		printChangedRow(w, &r.Rows[i], max(term.Width(a.Out), 60))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if r.LeftOut > 0 {
		a.summary("%s more; --limit shows more of them", term.Counted(r.LeftOut, "row", "rows"))
	}
	return nil
}

// printChangedRow writes what changed, and below it why it has its rank.
func printChangedRow(w io.Writer, r *changed.Row, width int) {
	const indent = "     "
	head := fmt.Sprintf("%3d  %.2f  %s%s", r.Rank, r.Score, plainName(r.Metric), labelText(r.Labels, width))
	fmt.Fprintln(w, head)
	line := indent
	if r.Before != nil && r.After != nil {
		line += fmt.Sprintf("%s → %s%s", amount(*r.Before), amount(*r.After), unitText(r))
	} else {
		line += string(r.Kind)
	}
	line += ", began " + term.Time(r.Began)
	fmt.Fprintln(w, line)
	if s := sparkText(r); s != "" {
		fmt.Fprintln(w, indent+s)
	}
	fmt.Fprintln(w, indent+clean(r.Reason))
	if n := len(r.Also); n > 0 {
		const most = 4
		names := make([]string, 0, most)
		for _, name := range r.Also[:min(n, most)] {
			names = append(names, plainName(name))
		}
		more := ""
		if n > most || r.Metrics > n+1 {
			more = fmt.Sprintf(" and %d more", max(n, r.Metrics-1)-len(names))
		}
		fmt.Fprintln(w, indent+"also: "+strings.Join(names, ", ")+more)
	}
	fmt.Fprintln(w, indent+clean(r.Query))
	fmt.Fprintln(w)
}

// clean makes text of a dump safe for a line of a terminal.
func clean(s string) string {
	return strings.NewReplacer("\n", `\n`, "\t", `\t`).Replace(term.Printable(s))
}

// plainName is a metric's name; one that PromQL cannot write plainly is quoted.
func plainName(name string) string {
	base, _, _ := strings.Cut(name, " (")
	if model.LegacyValidation.IsValidMetricName(base) {
		return clean(name)
	}
	return shortened(strconv.QuoteToGraphic(name), 120)
}

func shortened(s string, most int) string {
	if utf8.RuneCountInString(s) <= most {
		return s
	}
	return string([]rune(s)[:most-1]) + "…"
}

// labelText writes labels as PromQL does, as many as fit into three lines.
func labelText(ls map[string]string, width int) string {
	if len(ls) == 0 {
		return ""
	}
	const longest = 80
	var parts []string
	n := 0
	for _, name := range slices.Sorted(maps.Keys(ls)) {
		p := shortened(clean(name), longest) + "=" + shortened(clean(strconv.QuoteToGraphic(ls[name])), longest)
		if n += len(p); n > 3*width {
			parts = append(parts, "…")
			break
		}
		parts = append(parts, p)
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

func amount(v float64) string {
	if a := math.Abs(v); a != 0 && (a < 1e-3 || a >= 1e15) {
		return strconv.FormatFloat(v, 'g', 3, 64)
	}
	return term.Number(v)
}

func unitText(r *changed.Row) string {
	switch {
	case r.Kind != changed.Value && r.Kind != changed.Deadline:
		return " series"
	case strings.HasPrefix(r.Unit, "/"):
		return r.Unit
	case r.Unit != "":
		return " " + r.Unit
	}
	return ""
}

// sparkText draws the baseline and the window with a bar between them.
func sparkText(r *changed.Row) string {
	if len(r.Spark) == 0 || len(r.SparkLen) != 2 {
		return ""
	}
	values := make([]float64, len(r.Spark))
	for i, v := range r.Spark {
		values[i] = math.NaN()
		if v != nil {
			values[i] = *v
		}
	}
	s := []rune(term.Spark(values))
	return string(s[:r.SparkLen[0]]) + "│" + string(s[r.SparkLen[0]:])
}
