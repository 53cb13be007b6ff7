package cli

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/promdump/promdump/internal/query"
	"github.com/promdump/promdump/internal/term"
	"github.com/promdump/promdump/internal/view"
)

// queryFlags are the query command's flags as typed.
type queryFlags struct {
	view                 viewFlags
	at, start, end, step string
	output               string
}

// queryConfig is what they mean.
type queryConfig struct {
	view       viewConfig
	expr       string
	ranged     bool
	at         *time.Time // nil: the end of the dump
	start, end *time.Time // nil: those of the dump
	step       time.Duration
	times      func(*queryConfig, time.Time) error // sets at, start and end relative to now
	print      func(*app, asked) error
}

// asked is a question and what came of it.
type asked struct {
	query.Question
	query.Answer
}

func (f queryFlags) compile(args []string, data Data, everything bool, now time.Time) (c queryConfig, err error) {
	if len(args) == 0 {
		return c, usagef(`promdump query dump.tar.gz 'sum by (job) (up)'`, "no query is given")
	}
	args = queryLast(args)
	c.expr = args[len(args)-1]
	if c.view, err = f.view.compile(args[:len(args)-1], data, everything, now); err != nil {
		return c, err
	}
	switch f.output {
	case "table":
		c.print = (*app).printAnswerTable
	case "json":
		c.print = (*app).printAnswerJSON
	case "csv":
		c.print = (*app).printAnswerCSV
	case "graph":
		c.print = (*app).printAnswerGraph
	default:
		return c, usagef("table, json, csv or graph", "-o %q is not known", f.output)
	}
	c.ranged = f.start != "" || f.end != "" || f.step != "" || f.output == "graph"
	if c.ranged && f.at != "" {
		return c, usagef("--time asks for one moment, the others for a range", "--time cannot be combined with --start, --end, --step or -o graph")
	}
	c.times = f.times
	if err := c.times(&c, now); err != nil && !(len(c.view.files) > 0 && isEmptySpan(err)) {
		return c, err
	}
	if f.step != "" {
		if c.step, err = typedDuration("--step", f.step); err == nil && c.step < time.Millisecond {
			return c, usagef("samples have times in milliseconds", "--step %s is less than 1ms", f.step)
		}
	}
	return c, err
}

// times parses the times that are asked for.
func (f queryFlags) times(c *queryConfig, now time.Time) (err error) {
	for _, t := range []struct {
		flag, value string
		to          **time.Time
	}{{"--time", f.at, &c.at}, {"--start", f.start, &c.start}, {"--end", f.end, &c.end}} {
		if t.value == "" {
			continue
		}
		got, err := typedTime(typed{t.flag, t.value}, now)
		if err != nil {
			return err
		}
		*t.to = &got
	}
	if c.start != nil && c.end != nil && c.start.After(*c.end) {
		return usagef("the first time must not be after the last", "%w", emptySpanError{floorMs(*c.start), floorMs(*c.end)})
	}
	return nil
}

// queryLast swaps a query and the dump file after it. It does so only if the command
// cannot work as typed: its file does not exist, and its query is a file.
func queryLast(args []string) []string {
	last := len(args) - 1
	if last < 1 || !isFile(args[last]) {
		return args
	}
	wrong := -1
	for i, arg := range args[:last] {
		if _, err := os.Stat(arg); err == nil || arg == "-" {
			continue
		}
		if _, err := query.NewParser().ParseExpr(arg); err == nil {
			return queryBehind(args, i)
		}
		if wrong < 0 {
			wrong = i
		}
	}
	if wrong >= 0 { // its error is about the query, not about the name of the file
		return queryBehind(args, wrong)
	}
	return args
}

func queryBehind(args []string, i int) []string {
	return append(slices.Delete(slices.Clone(args), i, i+1), args[i])
}

func (a *app) queryCommand() *cobra.Command {
	var f queryFlags
	cmd := &cobra.Command{
		Use:   "query FILE… PROMQL",
		Short: "Run one PromQL query against dump files",
		Long: `Evaluate one PromQL query against one or more dump files, a data directory or a
server, like a Prometheus that has these samples and no others.

Without times the query is evaluated at the end of the dump. With --start, --end or
--step it is evaluated over a range; --start and --end default to the first and the
last sample.

--since, --min-time, --max-time and --around select the samples that the query sees,
and --match the series, as they do for dump. The query is then evaluated at the end of
the selected range. For a dump file "now" is the time of its last sample, so --since 1h
selects its last hour; for a data directory or a server it is the clock of this machine.`,
		Example: `  promdump query dump.tar.gz 'sum by (job) (up)'
  promdump query dump.tar.gz 'rate(http_requests_total[5m])' -o graph
  promdump query dump.tar.gz up --start "2021-04-01 10:00" --end "2021-04-01 10:30" --step 1m -o csv`,
		RunE: a.run(func(ctx context.Context, args []string) error {
			c, err := f.compile(args, a.Data, a.Remote == nil, a.Now())
			if err != nil {
				return err
			}
			return a.runQuery(ctx, c)
		}),
	}
	fs := cmd.Flags()
	fs.SortFlags = false
	a.Data.AddFlags(fs)
	fs.StringVar(&f.at, "time", "", "Evaluation `time` (default: the end of the dump); same formats as in dump")
	fs.StringVar(&f.start, "start", "", "First `time` of a range query (default: that of the dump)")
	fs.StringVar(&f.end, "end", "", "Last `time` of a range query (default: that of the dump)")
	fs.StringVar(&f.step, "step", "", "Resolution of a range query, a `duration` (default: about 250 points)")
	fs.StringVarP(&f.output, "output", "o", "table",
		"Output format: `table|json|csv|graph`; json is the format of the Prometheus API")
	f.view.add(fs)
	f.view.span.add(fs)
	fs.StringArrayVar(&f.view.match, "match", nil, "PromQL `selector` of the series that the query sees; can be repeated")
	return cmd
}

// question builds the query for the engine. The end of the view is the default time,
// and the "now" of a dump file.
func (c queryConfig) question(v *view.View) (q query.Question, err error) {
	first, last := time.UnixMilli(v.MinTime), time.UnixMilli(v.MaxTime)
	if len(c.view.files) > 0 {
		if err := c.times(&c, last); err != nil {
			return q, err
		}
	}
	q = query.Question{Expr: c.expr, Start: first, End: last}
	if !c.ranged {
		if c.at != nil {
			q.End = *c.at
		}
		q.Start = q.End
		return q, inEngine(q)
	}
	if c.start != nil {
		q.Start = *c.start
	}
	if c.end != nil {
		q.End = *c.end
	}
	if q.Start.After(q.End) {
		return q, nothingThere(v.MinTime, v.MaxTime)
	}
	if err := inEngine(q); err != nil {
		return q, err
	}
	if q.Step = c.step; q.Step == 0 {
		q.Step = term.Step(q.End.Sub(q.Start))
	}
	// Computed in unsigned 64-bit milliseconds: a Duration has just 292 years.
	if n := uint64(q.End.UnixMilli()-q.Start.UnixMilli()) / uint64(max(q.Step.Milliseconds(), 1)); n > maxPoints {
		return q, usagef("a longer --step, or a shorter range", "%d points for each series are more than %d", n, maxPoints)
	}
	return q, nil
}

// inEngine refuses times beyond the range of Prometheus' engine: it counts nanoseconds
// in 64 bits, and would silently answer for a different time.
func inEngine(q query.Question) error {
	const first, last = math.MinInt64 / int64(time.Millisecond), math.MaxInt64 / int64(time.Millisecond)
	for _, t := range []time.Time{q.Start, q.End} {
		if ms := floorMs(t); ms < first || ms > last {
			return usagef(fmt.Sprintf("name moments from %s to %s with --time, or --start and --end; promdump open --export csv writes samples of any time",
				term.Time(first), term.Time(last)), "%s is beyond the times that PromQL can be asked for", term.Time(ms))
		}
	}
	return nil
}

// maxPoints of a range is Prometheus' own limit.
const maxPoints = 11_000

func (a *app) runQuery(ctx context.Context, c queryConfig) (err error) {
	// Before minutes of unpacking.
	if _, err := query.NewParser().ParseExpr(c.expr); err != nil {
		return query.Wrong(c.expr, err)
	}
	v, err := a.openView(ctx, c.view)
	if err != nil {
		return err
	}
	hangs := false
	defer func() {
		if hangs { // the output still blocks on a pipe that is not read
			err = errors.Join(err, v.Abandon())
			return
		}
		err = errors.Join(err, v.Close())
	}()
	if v.Empty() {
		return fmt.Errorf("there is no sample in it")
	}
	q, err := c.question(v)
	if err != nil {
		return err
	}
	engine := query.NewEngine(c.view.limits, a.logger())
	defer func() { err = errors.Join(err, engine.Close()) }()
	answer, release, err := engine.Ask(ctx, v, q)
	if err != nil {
		return err
	}
	a.notes(answer.Warnings)
	a.notes(answer.Infos)
	hangs, err = orGiveUp(ctx, true, func() (bool, error) { return false, c.print(a, asked{q, answer}) })
	if !hangs {
		release()
	}
	return err
}
