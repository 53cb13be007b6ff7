package term

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// Bytes formats a size in bytes for display: "0 B", "1023 B", "12.3 MiB".
func Bytes(n int64) string {
	if n < 0 {
		return "-" + Bytes(max(-n, 0)) // -math.MinInt64 is negative
	}
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	v := float64(n)
	units := []string{"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	i := -1
	// 1023.95 would print as "1024.0".
	for v >= 1023.95 && i+1 < len(units) || i < 0 {
		v /= 1024
		i++
	}
	return fmt.Sprintf("%.1f %s", v, units[i])
}

// Count formats a number with commas: "1,234,567".
func Count[N ~int | ~int64 | ~uint64](n N) string {
	digits := strconv.FormatUint(uint64(n), 10)
	sign := ""
	if n < 0 {
		digits = strconv.FormatInt(int64(n), 10)[1:]
		sign = "-"
	}
	var b strings.Builder
	for i, d := range digits {
		if i > 0 && (len(digits)-i)%3 == 0 {
			b.WriteByte(',')
		}
		b.WriteRune(d)
	}
	return sign + b.String()
}

// Counted formats a number with its noun, in the singular for one: "1 block", "1,234 series".
func Counted[N ~int | ~int64 | ~uint64](n N, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return Count(n) + " " + many
}

// Duration formats a duration for display: "0.4 s", "12 s", "2 min 5 s", "1 h 30 min". A negative
// one is "0.0 s".
func Duration(d time.Duration) string {
	d = max(d, 0)
	if d < 9950*time.Millisecond {
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
	s := int64(d.Round(time.Second) / time.Second)
	switch {
	case s < 60:
		return fmt.Sprintf("%d s", s)
	case s < 3600:
		return fmt.Sprintf("%d min %d s", s/60, s%60)
	case s < 48*3600:
		return fmt.Sprintf("%d h %d min", s/3600, s/60%60)
	default:
		return fmt.Sprintf("%d d %d h", s/86400, s/3600%24)
	}
}

// The range of times that RFC 3339 can represent.
const (
	firstPrintable = -62167219200000 // 0000-01-01, in Unix milliseconds
	lastPrintable  = 253402300799999 // 9999-12-31, in Unix milliseconds
)

// Beginning and End are the results of [Time] for math.MinInt64 and math.MaxInt64.
const (
	Beginning = "the beginning"
	End       = "the end"
)

// Time formats Unix milliseconds as RFC 3339 in UTC, with milliseconds if they are not zero:
// "2021-04-01T00:00:00Z", "2021-04-01T00:00:00.025Z". A time that RFC 3339 cannot represent is a
// number with a unit, "253402300800000ms"; the limits of int64 are [Beginning] and [End]. The
// command line accepts each of these forms.
func Time(ms int64) string {
	if ms%1000 == 0 && printable(ms) {
		return time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05Z")
	}
	return TimeMillis(ms)
}

// TimeMillis is like [Time], but always prints milliseconds, for a column of times with the same
// layout.
func TimeMillis(ms int64) string {
	switch {
	case ms == math.MinInt64:
		return Beginning
	case ms == math.MaxInt64:
		return End
	case !printable(ms):
		return strconv.FormatInt(ms, 10) + "ms"
	default:
		return time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.000Z")
	}
}

// printable reports whether RFC 3339 can represent a time.
func printable(ms int64) bool { return ms >= firstPrintable && ms <= lastPrintable }

// Printable replaces characters that cannot be printed by escapes, except newlines and tabs.
func Printable(s string) string {
	bad := func(r rune) bool { return r != '\n' && r != '\t' && !unicode.IsPrint(r) }
	if !strings.ContainsFunc(s, bad) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if bad(r) {
			q := strconv.QuoteRuneToASCII(r)
			b.WriteString(q[1 : len(q)-1])
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}
