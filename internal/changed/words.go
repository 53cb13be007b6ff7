package changed

import (
	"fmt"
	"math"
	"strings"
	"unicode/utf8"
)

// reasonValue says in plain words why a row of values has its rank.
func reasonValue(p *plan, r *Row, g group, first *change) string {
	e := first.effect
	var b strings.Builder
	if first.kind == Deadline {
		fmt.Fprintf(&b, "the time that it names has passed at %s", stamp(r.Began))
		return b.String()
	}
	fmt.Fprintf(&b, "%s %s", aspectWord(r.Aspect), move(e))
	fmt.Fprintf(&b, ", %s times the baseline's own spread", atMost(e.z, 1000))
	if share := int(math.Round(100 * e.share)); share > 0 && share < 90 {
		fmt.Fprintf(&b, ", for %d%% of the window", share)
	}
	switch {
	case r.Of == 1:
		b.WriteString("; the metric has one series")
	case r.Series >= r.Of:
		fmt.Fprintf(&b, "; all %d series changed", r.Of)
	default:
		fmt.Fprintf(&b, "; %d of the %d series with these labels", min(r.Series, g.of), g.of)
		if g.of < r.Of {
			fmt.Fprintf(&b, ", of %d in all", r.Of)
		}
	}
	if e.seasonal {
		b.WriteString("; the usual change at this hour is subtracted")
	}
	if e.noisy {
		b.WriteString("; the baseline is noisy")
	}
	return b.String()
}

func aspectWord(a Aspect) string {
	switch a {
	case Rate:
		return "rate"
	case Mean:
		return "mean"
	case P99:
		return "99th percentile"
	case Age:
		return "age"
	}
	return "value"
}

// move says how far a value went.
func move(e effect) string {
	b, a := math.Abs(e.before), math.Abs(e.after)
	switch {
	case e.before == 0 && e.up:
		return "rose from 0"
	case e.after == 0 && !e.up:
		return "fell to 0"
	case e.before*e.after < 0 && e.up:
		return "rose above 0"
	case e.before*e.after < 0:
		return "fell below 0"
	case e.up && e.before < 0, !e.up && e.before < 0:
		return map[bool]string{true: "rose", false: "fell"}[e.up]
	case e.up:
		return "rose " + atMost(a/b, 1000) + "×"
	}
	return "fell to 1/" + atMost(b/a, 1000)
}

func atMost(x, most float64) string {
	switch {
	case x > most:
		return fmt.Sprintf("over %.0f", most)
	case x >= 10:
		return fmt.Sprintf("%.0f", x)
	}
	return fmt.Sprintf("%.1f", x)
}

// reasonLife says why a row of series that began or ended has its rank.
func (t *table) reasonLife(r *Row, items []int) string {
	switch r.Kind {
	case Born:
		s := fmt.Sprintf("%d series began; the metric had %d in the baseline", r.Series, t.base)
		if name, n := t.news(items); n > 1 {
			s += fmt.Sprintf("; the label %s has %d new values", shown(name), n)
		}
		return s
	case Ended:
		return fmt.Sprintf("%d of the metric's %d series ended, and nothing began in their place", r.Series, t.base)
	case Replaced:
		return fmt.Sprintf("%d of the metric's %d series ended, and %d others began", r.Series, t.base, len(t.births))
	}
	return fmt.Sprintf("%d series ended and began again more than once", r.Series)
}

// quote writes a string of PromQL.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r < ' ' || r == 0x7f:
			fmt.Fprintf(&b, `\x%02x`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// shown shortens a name for a sentence.
func shown(s string) string {
	const most = 80
	if utf8.RuneCountInString(s) > most {
		s = string([]rune(s)[:most-1]) + "…"
	}
	return s
}
