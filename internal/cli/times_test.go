package cli

import (
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/promdump/promdump/internal/term"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func TestParseTime(t *testing.T) {
	for s, want := range map[string]time.Time{
		"2021-04-01 10:20:30":                  time.Date(2021, 4, 1, 10, 20, 30, 0, time.UTC),
		"2021-04-01 10:20:30.025":              time.Date(2021, 4, 1, 10, 20, 30, 25e6, time.UTC),
		"2021-04-01 10:20":                     time.Date(2021, 4, 1, 10, 20, 0, 0, time.UTC),
		"2021-04-01":                           time.Date(2021, 4, 1, 0, 0, 0, 0, time.UTC),
		"2021-04-01T10:20":                     time.Date(2021, 4, 1, 10, 20, 0, 0, time.UTC),
		"2021-04-01T10:20:30Z":                 time.Date(2021, 4, 1, 10, 20, 30, 0, time.UTC),
		"2021-04-01t10:20:30z":                 time.Date(2021, 4, 1, 10, 20, 30, 0, time.UTC),
		"2021-04-01T10:20:30+02:00":            time.Date(2021, 4, 1, 8, 20, 30, 0, time.UTC),
		"2021-04-01 10:20:30 +0530":            time.Date(2021, 4, 1, 4, 50, 30, 0, time.UTC),
		"2021-04-01 10:20:30 UTC":              time.Date(2021, 4, 1, 10, 20, 30, 0, time.UTC),
		"2021-04-01T10:20:30.123456789Z":       time.Date(2021, 4, 1, 10, 20, 30, 123456789, time.UTC),
		" now ":                                noon,
		"1617272430":                           time.Unix(1617272430, 0).UTC(),
		"1617272430.025":                       time.Unix(1617272430, 25e6).UTC(),
		"1617272430025":                        time.UnixMilli(1617272430025).UTC(),
		"1617272430025.5":                      time.UnixMilli(1617272430025).Add(500 * time.Microsecond).UTC(),
		"0":                                    time.Unix(0, 0).UTC(),
		"-1.5":                                 time.Unix(-2, 5e8).UTC(),
		"99999999999":                          time.Unix(99999999999, 0).UTC(),
		"100000000000":                         time.UnixMilli(100000000000).UTC(),
		strconv.FormatInt(253402300799999, 10): time.UnixMilli(253402300799999).UTC(),
		"253402300800000":                      time.UnixMilli(253402300800000).UTC(),
		"-1":                                   time.Unix(-1, 0).UTC(),
		"-1ms":                                 time.UnixMilli(-1).UTC(),
		"2021ms":                               time.UnixMilli(2021).UTC(),
		"1795478400000000000 ms":               time.UnixMilli(1795478400000000000).UTC(),
		"-9223372036854775808":                 time.UnixMilli(math.MinInt64).UTC(),
		"The End":                              time.UnixMilli(math.MaxInt64).UTC(),
	} {
		got, err := parseTime(s, noon)
		if err != nil || !got.Equal(want) {
			t.Errorf("%q: %v, %v, want %v", s, got, err, want)
		}
	}
	for _, s := range []string{"", "yesterday", "2021", "20210401", "2021-4-1", "2021-13-01", "2021-02-30", "2021-04-01 25:00", "10:20",
		"1e9", "0x10", "1617272430.", ".5", "--1", "1.2.3", "ms", "1.5sms", "9223372036854775808", "99999999999999999999", "2021-04-01Z+02:00", "0.1234567891"} {
		if got, err := parseTime(s, noon); err == nil {
			t.Errorf("%q is %v, want an error", s, got)
		} else if hintOf(err) == "" {
			t.Errorf("%q: no hint which forms there are", s)
		}
	}
}

// What we print can be typed, and so can the numbers that programs print.
func TestParseTimeReadsWhatIsPrinted(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		ms := r.Int64N(253402300799999)
		for _, s := range []string{term.Time(ms), time.UnixMilli(ms).In(time.FixedZone("", r.IntN(24*60)*60-12*3600)).Format(time.RFC3339Nano)} {
			if got, err := parseTime(s, noon); err != nil || got.UnixMilli() != ms {
				t.Fatalf("%s: %v, %v, want %d", s, got, err, ms)
			}
		}
		if ms < msFrom {
			continue
		}
		if got, err := parseTime(strconv.FormatInt(ms, 10), noon); err != nil || got.UnixMilli() != ms {
			t.Fatalf("%d: %v, %v", ms, got, err)
		}
		seconds := strconv.FormatInt(ms/1000, 10)
		if got, err := parseTime(seconds, noon); ms/1000 >= msFrom && err == nil && got.Unix() == ms/1000 {
			t.Fatalf("%s: %v must be milliseconds", seconds, got)
		} else if ms/1000 < msFrom && !looksLikeDate(seconds) && (err != nil || got.Unix() != ms/1000) {
			t.Fatalf("%s: %v, %v", seconds, got, err)
		}
	}
}

// Each int64 is a time that a data dir may hold, and that we then print.
func TestEachTimeThatIsPrintedIsRead(t *testing.T) {
	check := func(ms int64) {
		for _, s := range []string{term.Time(ms), term.TimeMillis(ms), strings.Trim(shownTime(ms), "'")} {
			if got, err := parseTime(s, noon); err != nil || got.UnixMilli() != ms || floorMs(got) != ms || ceilMs(got) != ms {
				t.Fatalf("%d is printed as %s, and read as %v, %v", ms, s, got, err)
			}
		}
	}
	for _, ms := range []int64{math.MinInt64, math.MinInt64 + 1, math.MaxInt64, math.MaxInt64 - 1, 0, -1, 1, msFrom, -msFrom, msFrom - 1, 1 - msFrom,
		-62167219200000, -62167219200001, 253402300799999, 253402300800000} {
		check(ms)
	}
	r := rand.New(rand.NewPCG(3, 4))
	for range 20_000 {
		check(int64(r.Uint64()) >> r.IntN(64))
	}
}

func FuzzParseTime(f *testing.F) {
	for _, s := range []string{"2021-04-01 10:20:30", "2021-04-01T10:20:30.5+02:00", "1617272430.025", "-1", "now", "2021-04-01 10:20 UTC"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := parseTime(s, noon)
		if err != nil {
			return
		}
		if low, high := floorMs(got), ceilMs(got); high < low || high-low > 1 || time.UnixMilli(low).After(got) || time.UnixMilli(high).Before(got) {
			t.Fatalf("%q: %v is between %d and %d ms", s, got, low, high)
		}
		printed := got.Format(time.RFC3339Nano)
		if got.Year() < 0 || got.Year() > 9999 { // it has no RFC 3339 form, and finer than ms it has none at all
			if got, printed = got.Truncate(time.Millisecond), term.Time(floorMs(got)); got.UnixMilli() != floorMs(got) {
				return
			}
		}
		again, err := parseTime(printed, noon)
		if err != nil || !again.Equal(got) {
			t.Fatalf("%q: %v, read again: %v, %v", s, got, again, err)
		}
	})
}

func TestParseDuration(t *testing.T) {
	for s, want := range map[string]time.Duration{
		"30m": 30 * time.Minute, "2h": 2 * time.Hour, "1h30m": 90 * time.Minute, "7d": 7 * 24 * time.Hour, "1w": 7 * 24 * time.Hour, "1.5h": 90 * time.Minute, "250ms": 250 * time.Millisecond,
	} {
		if got, err := parseDuration(s); err != nil || got != want {
			t.Errorf("%q: %v, %v, want %v", s, got, err, want)
		}
	}
	for _, s := range []string{"", "0s", "0", "-1h", "2", "h", "soon", "999999999999y"} {
		if got, err := parseDuration(s); err == nil {
			t.Errorf("%q is %v, want an error", s, got)
		}
	}
}
