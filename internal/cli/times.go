package cli

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/model"

	"github.com/promdump/promdump/internal/term"
)

const timeForms = `times are "2021-04-01 10:00:00" (UTC), 2021-04-01, 2021-04-01T10:00, RFC 3339 (2021-04-01T10:00:00.5+02:00), ` +
	`Unix seconds, Unix milliseconds (with the unit for any number: 1617271200000ms), or now`

// msFrom is the number from which on a bare number is milliseconds. As seconds it
// would be the year 5138; as milliseconds it is March 1973, before all metrics.
const msFrom = 100_000_000_000

// parseTime reads a time as people and programs write them, exactly: nothing is
// rounded. A time without a zone is UTC. It reads all that term.Time prints.
func parseTime(s string, now time.Time) (time.Time, error) {
	s = strings.TrimSpace(s)
	switch {
	case strings.EqualFold(s, "now"):
		return now, nil
	case strings.EqualFold(s, term.Beginning):
		return time.UnixMilli(math.MinInt64).UTC(), nil
	case strings.EqualFold(s, term.End):
		return time.UnixMilli(math.MaxInt64).UTC(), nil
	}
	t, err := parseUnix(s)
	if errors.Is(err, errNotNumber) {
		t, err = parseDate(s)
	}
	if err != nil {
		return time.Time{}, hinted(fmt.Errorf("%q is not a valid time: %w", s, err), "%s", timeForms)
	}
	return t, nil
}

var errNotNumber = errors.New("not a number")

// parseUnix does without floats: 53 bits are too few for fractions of today's
// milliseconds.
func parseUnix(s string) (time.Time, error) {
	number, unit := s, false
	if cut, ok := strings.CutSuffix(s, "ms"); ok {
		number, unit = strings.TrimSpace(cut), true
	}
	whole, fraction, point := strings.Cut(number, ".")
	digits := func(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }
	unsigned := strings.TrimPrefix(whole, "-")
	if !digits(unsigned) || point && !digits(fraction) {
		return time.Time{}, errNotNumber
	}
	if !point && !unit && looksLikeDate(s) {
		return time.Time{}, errors.New("a date needs dashes, like 2021-04-01")
	}
	n, err := strconv.ParseInt(whole, 10, 64)
	if err != nil {
		return time.Time{}, errors.New("the number is too large")
	}
	const nanos = 9
	if len(fraction) > nanos {
		return time.Time{}, errors.New("more than nine digits behind the point")
	}
	part, _ := strconv.ParseInt((fraction + "000000000")[:nanos], 10, 64)
	if unsigned != whole {
		part = -part
	}
	if unit || n >= msFrom || n <= -msFrom {
		return time.UnixMilli(n).Add(time.Duration(part / 1000)).UTC(), nil
	}
	return time.Unix(n, part).UTC(), nil
}

// looksLikeDate is for "2021" and "20210401", which would be a time in 1970.
func looksLikeDate(s string) bool {
	layout := map[int]string{4: "2006", 8: "20060102"}[len(s)]
	if layout == "" {
		return false
	}
	t, err := time.Parse(layout, s)
	return err == nil && t.Year() >= 1970 && t.Year() < 2100
}

func parseDate(s string) (time.Time, error) {
	// One layout list for all spellings of separator and zone.
	s = strings.ToUpper(s)
	for _, zone := range []string{" UTC", " GMT", "UTC", "GMT"} {
		if cut, ok := strings.CutSuffix(s, zone); ok {
			s = cut + "Z"
			break
		}
	}
	s = strings.Replace(s, "T", " ", 1)
	for _, layout := range []string{"2006-01-02 15:04:05", "2006-01-02 15:04", "2006-01-02"} {
		for _, zone := range []string{"", "Z07:00", " Z07:00", "Z0700", " Z0700"} {
			if t, err := time.Parse(layout+zone, s); err == nil {
				return t.UTC(), nil
			}
		}
	}
	return time.Time{}, errors.New("it has none of the forms that are known")
}

// ceilMs and floorMs keep a closed range exact where a time is finer than Prometheus'
// milliseconds. Times beyond int64, as of a window around its end, are clamped.
func ceilMs(t time.Time) int64 {
	ms := floorMs(t)
	if ms < math.MaxInt64 && time.UnixMilli(ms).Before(t) {
		ms++
	}
	return ms
}

func floorMs(t time.Time) int64 {
	switch {
	case t.Before(time.UnixMilli(math.MinInt64)):
		return math.MinInt64
	case t.After(time.UnixMilli(math.MaxInt64)):
		return math.MaxInt64
	}
	return t.UnixMilli()
}

// shownTime formats a time for a command line that can be pasted into a shell.
func shownTime(ms int64) string {
	return shellWord(term.Time(ms))
}

// parseDuration reads a length of time that is more than nothing: "2h", "1h30m",
// "1d" as Prometheus writes them, or "1.5h" as Go does.
func parseDuration(s string) (time.Duration, error) {
	s = strings.TrimSpace(s)
	var d time.Duration
	if p, err := model.ParseDuration(s); err == nil {
		d = time.Duration(p)
	} else if d, err = time.ParseDuration(s); err != nil {
		return 0, hinted(fmt.Errorf("%q is no length of time that can be understood", s), "lengths are like 30m, 2h, 1h30m, 1.5h, 7d")
	}
	if d <= 0 {
		return 0, fmt.Errorf("%q is not more than nothing", s)
	}
	return d, nil
}
