package cli

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/pflag"

	"github.com/promdump/promdump/internal/term"
)

// Without any times the last hour is taken, as the first promdump did.
const defaultSpan = time.Hour

const defaultWindow = 30 * time.Minute

// spanFlags are the flags that say which times are wanted, as typed.
type spanFlags struct {
	min, start, max, end  string
	since, around, window string
}

func (f *spanFlags) add(fs *pflag.FlagSet) {
	f.addEnds(fs)
	fs.StringVar(&f.around, "around", "", "Middle `time` of the range")
	fs.StringVar(&f.window, "window", "",
		"Length of the range of --around, a `duration`: half before, half after (default 30m)")
}

// addEnds adds the flags without those of a window.
func (f *spanFlags) addEnds(fs *pflag.FlagSet) {
	fs.StringVar(&f.min, "min-time", "", "First `time` of the range, included (default: an hour before the last)")
	fs.StringVar(&f.max, "max-time", "", "Last `time` of the range, included (default: now)")
	fs.StringVar(&f.start, "start-time", "", "First `time` of the range; same as --min-time")
	fs.StringVar(&f.end, "end-time", "", "Last `time` of the range; same as --max-time")
	fs.StringVar(&f.since, "since", "", "Start of the range, as a `duration` before now: 2h, 30m, 7d")
}

// span is a closed range of time in Unix milliseconds.
type span struct{ minMs, maxMs int64 }

func (s span) String() string {
	return fmt.Sprintf("from %s to %s", term.Time(s.minMs), term.Time(s.maxMs))
}

// emptySpanError reports a range that ends before it begins.
type emptySpanError span

func (e emptySpanError) Error() string {
	return fmt.Sprintf("the range is empty: it begins at %s and ends at %s", term.Time(e.minMs), term.Time(e.maxMs))
}

func isEmptySpan(err error) bool {
	_, empty := errors.AsType[emptySpanError](err)
	return empty
}

// compile parses the flags. now is the time that "now" means and that --since counts
// from: the machine's clock for a data dir or server, the last sample's time for a dump
// file.
func (f spanFlags) compile(now time.Time) (span, error) {
	first, err := oneOf("--min-time", f.min, "--start-time", f.start)
	if err != nil {
		return span{}, err
	}
	last, err := oneOf("--max-time", f.max, "--end-time", f.end)
	if err != nil {
		return span{}, err
	}
	switch {
	case f.window != "" && f.around == "":
		return span{}, usagef("--around TIME --window 30m takes the 30 minutes with TIME in their middle", "--window needs --around")
	case f.around != "" && (first.value != "" || last.value != "" || f.since != ""):
		return span{}, usagef("give --around, or the first and the last time", "--around cannot be combined with other times")
	case f.since != "" && first.value != "":
		return span{}, usagef("give one of them", "--since and %s both say where to begin", first.flag)
	case f.around != "":
		return f.compileAround(now)
	}

	end := now
	if last.value != "" {
		if end, err = typedTime(last, now); err != nil {
			return span{}, err
		}
	}
	start := end.Add(-defaultSpan)
	switch {
	case first.value != "":
		if start, err = typedTime(first, now); err != nil {
			return span{}, err
		}
	case f.since != "":
		d, err := typedDuration("--since", f.since)
		if err != nil {
			return span{}, err
		}
		start = now.Add(-d)
	}
	s := span{ceilMs(start), floorMs(end)}
	if s.minMs > s.maxMs {
		return span{}, usagef("the first time must not be after the last", "%w", emptySpanError(s))
	}
	return s, nil
}

func (f spanFlags) compileAround(now time.Time) (span, error) {
	middle, err := typedTime(typed{"--around", f.around}, now)
	if err != nil {
		return span{}, err
	}
	window := defaultWindow
	if f.window != "" {
		if window, err = typedDuration("--window", f.window); err != nil {
			return span{}, err
		}
	}
	return span{ceilMs(middle.Add(-window / 2)), floorMs(middle.Add(window / 2))}, nil
}

// typed is what was typed behind a flag.
type typed struct{ flag, value string }

// oneOf is for two names of one flag.
func oneOf(flag, value, alias, aliasValue string) (typed, error) {
	switch {
	case value != "" && aliasValue != "":
		return typed{}, usagef("give one of them", "%s and %s are the same flag", flag, alias)
	case aliasValue != "":
		return typed{alias, aliasValue}, nil
	}
	return typed{flag, value}, nil
}

func typedTime(v typed, now time.Time) (time.Time, error) {
	t, err := parseTime(v.value, now)
	if err != nil {
		return t, &usageError{err: fmt.Errorf("%s: %w", v.flag, err), hint: hintOf(err)}
	}
	return t, nil
}

func typedDuration(flag, value string) (time.Duration, error) {
	d, err := parseDuration(value)
	if err != nil {
		return 0, &usageError{err: fmt.Errorf("%s: %w", flag, err), hint: hintOf(err)}
	}
	return d, nil
}
