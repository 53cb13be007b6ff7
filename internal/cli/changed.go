package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/spf13/cobra"

	"github.com/promdump/promdump/internal/changed"
	"github.com/promdump/promdump/internal/query"
	"github.com/promdump/promdump/internal/term"
	"github.com/promdump/promdump/internal/view"
)

// changedFlags are the changed command's flags as typed.
type changedFlags struct {
	view            viewFlags
	window, against string
	ignore          []string
	sort, output    string
	limit           int
}

// changedConfig is what they mean.
type changedConfig struct {
	view            viewConfig
	window, against spanText
	ignore          [][]*labels.Matcher
	sort            changed.Sort
	limit           int
	print           func(*app, *changed.Result) error
}

// spanText is a span as typed: FROM..TO. It is parsed when "now" is known.
type spanText struct{ flag, from, to string }

func (s spanText) empty() bool { return s == spanText{flag: s.flag} }

func splitSpan(flag, value string) (spanText, error) {
	from, to, ok := strings.Cut(value, "..")
	if !ok || strings.TrimSpace(from) == "" || strings.TrimSpace(to) == "" {
		return spanText{}, usagef(`two times with .. between: "2021-04-01 10:00..2021-04-01 10:30"; `+timeForms, "%s %q is not a range of time", flag, value)
	}
	return spanText{flag, from, to}, nil
}

// compile parses both times.
func (s spanText) compile(now time.Time) (changed.Span, error) {
	from, err := typedTime(typed{s.flag, s.from}, now)
	if err != nil {
		return changed.Span{}, err
	}
	to, err := typedTime(typed{s.flag, s.to}, now)
	if err != nil {
		return changed.Span{}, err
	}
	if !from.Before(to) {
		return changed.Span{}, usagef("the first time must be before the last", "%s: %w", s.flag, emptySpanError{floorMs(from), floorMs(to)})
	}
	return changed.Span{From: ceilMs(from), To: floorMs(to)}, nil
}

func (f changedFlags) compile(args []string, data Data, now time.Time) (c changedConfig, err error) {
	if c.view, err = f.view.compile(args, data, true, now); err != nil {
		return c, err
	}
	if f.window == "" {
		return c, usagef(`--window "2021-04-01 10:00..2021-04-01 10:30" names the time of the incident; promdump meta FILE shows what times a dump has`,
			"--window is missing")
	}
	if c.window, err = splitSpan("--window", f.window); err != nil {
		return c, err
	}
	if f.against != "" {
		if c.against, err = splitSpan("--against", f.against); err != nil {
			return c, err
		}
	}
	window, against, err := c.spans(now)
	if err != nil {
		return c, err
	}
	if len(c.view.files) == 0 && !c.view.spanned {
		c.view.span = neededSpan(window, against)
	}
	if c.ignore, err = compileIgnore(f.ignore); err != nil {
		return c, err
	}
	if c.limit = f.limit; c.limit <= 0 {
		return c, usagef("leave it out for the default", "--limit %d must be positive", f.limit)
	}
	switch c.sort = changed.Sort(f.sort); c.sort {
	case changed.ByStrength, changed.ByStart:
	default:
		return c, usagef("strength or start", "--sort %q is not known", f.sort)
	}
	c.print, err = changedPrinter(f.output)
	return c, err
}

func changedPrinter(output string) (func(*app, *changed.Result) error, error) {
	switch output {
	case "table":
		return (*app).printChanged, nil
	case "json":
		return (*app).printChangedJSON, nil
	}
	return nil, usagef("table or json", "-o %q is not known", output)
}

func compileIgnore(selectors []string) (lists [][]*labels.Matcher, err error) {
	for _, s := range selectors {
		list, err := query.NewParser().ParseMetricSelector(s)
		if err != nil {
			return nil, usagef(`selectors are like up, {namespace="shop"}, {__name__=~"go_.*"}`, "--ignore %s: %w", s, err)
		}
		lists = append(lists, list)
	}
	return lists, nil
}

// spans parses the window and the baseline.
func (c changedConfig) spans(now time.Time) (window, against changed.Span, err error) {
	if window, err = c.window.compile(now); err != nil || c.against.empty() {
		return window, against, err
	}
	against, err = c.against.compile(now)
	return window, against, err
}

// neededSpan is what a data directory or a server is read for.
func neededSpan(window, against changed.Span) span {
	const lead = 10 * time.Minute // for the first rate
	s := span{window.From - window.Length(), window.To}
	if against != (changed.Span{}) {
		s = span{min(against.From, window.From), max(against.To, window.To)}
	}
	s.minMs -= lead.Milliseconds()
	return s
}

func (a *app) changedCommand() *cobra.Command {
	var f changedFlags
	cmd := &cobra.Command{
		Use:   "changed FILE…",
		Short: "Rank what changed in a window of time, the likely culprit first",
		Long: `Compare all series in a window of time with a baseline, and rank what changed: metrics,
the labels that the changed series share and the others lack, how much, since when, and
why it has its rank. Counters are compared by their rates, histograms by rate, mean and
99th percentile. docs/changed.md explains the statistics and their limits.

Without --against the baseline is as long as the window and ends where it begins. If the
dump has the same hours of earlier days, what usually changes then is subtracted.

Times are those of dump. "now" is the time of the last sample of a dump file; of a data
directory or a server it is the time of this machine.`,
		Example: `  promdump changed incident.tar.gz --window "2021-04-01 10:20..2021-04-01 10:45"
  promdump changed incident.tar.gz --window "2021-04-01 10:20..now" --match '{namespace="shop"}' --sort start
  promdump changed -d /prometheus --window "2021-04-01 10:20..now" --ignore '{__name__=~"go_.*"}' -o json`,
		RunE: a.run(func(ctx context.Context, args []string) error {
			c, err := f.compile(args, a.Data, a.Now())
			if err != nil {
				return err
			}
			return a.runChanged(ctx, c)
		}),
	}
	fs := cmd.Flags()
	fs.SortFlags = false
	a.Data.AddFlags(fs)
	fs.StringVar(&f.window, "window", "", "The `FROM..TO` of the incident; forms of a time as in dump")
	fs.StringVar(&f.against, "against", "", "The `FROM..TO` of the baseline (default: the equal span before the window)")
	fs.StringVar(&f.sort, "sort", "strength", "Order by `strength|start`: the strongest change first, or the one that began first")
	fs.IntVar(&f.limit, "limit", changed.DefaultLimit, "Maximum `number` of rows")
	fs.StringArrayVar(&f.ignore, "ignore", nil, "PromQL `selector` of series to leave out; may be repeated")
	fs.StringVarP(&f.output, "output", "o", "table", "`table|json`")
	f.view.add(fs)
	f.view.span.addEnds(fs)
	fs.StringArrayVar(&f.view.match, "match", nil, "PromQL `selector` of the series to compare; may be repeated")
	return cmd
}

func (a *app) runChanged(ctx context.Context, c changedConfig) (err error) {
	v, err := a.openView(ctx, c.view)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	if v.Empty() {
		return errors.New("there is no sample in it")
	}
	now := c.view.now
	if len(c.view.files) > 0 {
		now = time.UnixMilli(v.MaxTime)
	}
	window, against, err := c.spans(now)
	if err != nil {
		return err
	}
	progress := a.progress("comparing")
	defer progress.Done()
	data := changedData(v)
	r, err := changed.Run(ctx, changed.Options{
		Data: data, Window: window, Baseline: against, Ignore: c.ignore, Sort: c.sort, Limit: c.limit,
		Memory: c.view.limits.Memory / 2, Progress: shareOf(progress, v),
	})
	progress.Done()
	if err != nil {
		return changedHint(err)
	}
	return c.print(a, r)
}

// changedData is a view as data to compare.
func changedData(v *view.View) changed.Data {
	d := changed.Data{Queryable: v, MinTime: v.MinTime, MaxTime: v.MaxTime}
	for _, dump := range v.Dumps {
		most := uint64(0) // blocks have mostly the same series
		for _, b := range dump.Blocks {
			most = max(most, b.Meta().Stats.NumSeries)
		}
		d.Series += most
	}
	return d
}

// shareOf shows series as bytes of the dumps.
func shareOf(p *term.Progress, v *view.View) func(done, total int64) {
	bytes := int64(0)
	for _, d := range v.Dumps {
		bytes += d.FileBytes
	}
	return func(done, total int64) {
		if total > 0 {
			p.Set(int64(float64(bytes)*min(float64(done)/float64(total), 1)), bytes, term.Count(done)+" series")
		}
	}
}

// changedHint adds what to do about an error.
func changedHint(err error) error {
	window, isWindow := errors.AsType[*changed.WindowError](err)
	base, isBase := errors.AsType[*changed.BaselineError](err)
	_, short := errors.AsType[*changed.ShortError](err)
	_, overlap := errors.AsType[*changed.OverlapError](err)
	switch {
	case isWindow:
		return &usageError{err, fmt.Sprintf("choose --window between %s and %s; times are UTC", term.Time(window.Data.From), term.Time(window.Data.To))}
	case isBase:
		return &usageError{err, fmt.Sprintf("name a time between %s and %s with --against, or a later --window",
			term.Time(base.Data.From), term.Time(base.Data.To))}
	case short:
		return &usageError{err, "a longer --window, or a longer baseline with --against: both need several samples"}
	case overlap:
		return &usageError{err, "name a time outside of the window with --against"}
	case errors.Is(err, changed.ErrNothingSelected):
		return hinted(err, "omit --match and --ignore to compare all series")
	}
	return err
}
