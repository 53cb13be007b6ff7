package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/promdump/promdump/internal/query"
	"github.com/promdump/promdump/internal/term"
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
	at         time.Time // zero: the end of the dump
	start, end time.Time // zero: the dump's own
	step       time.Duration
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
	for _, t := range []struct {
		flag, value string
		to          *time.Time
	}{{"--time", f.at, &c.at}, {"--start", f.start, &c.start}, {"--end", f.end, &c.end}} {
		if t.value == "" {
			continue
		}
		if *t.to, err = typedTime(typed{t.flag, t.value}, now); err != nil {
			return c, err
		}
	}
	if !c.start.IsZero() && !c.end.IsZero() && c.start.After(c.end) {
		return c, usagef("the first time must not be after the last", "the range is empty: it begins at %s and ends at %s", term.Time(c.start.UnixMilli()), term.Time(c.end.UnixMilli()))
	}
	if f.step != "" {
		c.step, err = typedDuration("--step", f.step)
	}
	return c, err
}

func (a *app) queryCommand() *cobra.Command {
	var f queryFlags
	cmd := &cobra.Command{
		Use:   "query FILE… PROMQL",
		Short: "One answer out of dumps, without a server",
		Long: `Answer one PromQL query from a dump, or from several together, or with -d from a data
dir, as a Prometheus would that has this data and nothing else.

Without times it is asked for the dump's last moment; with --start, --end or --step
for a range, which is all of the dump where they say nothing.`,
		Example: `  promdump query dump.tar.gz 'sum by (job) (up)'
  promdump query dump.tar.gz 'rate(http_requests_total[5m])' -o graph
  promdump query dump.tar.gz up --start "2021-04-01 10:00" --end "2021-04-01 10:30" --step 1m -o csv`,
		RunE: a.run(func(ctx context.Context, args []string) error {
			c, err := f.compile(args, a.Data, a.Place == nil, a.Now())
			if err != nil {
				return err
			}
			return a.runQuery(ctx, c)
		}),
	}
	fs := cmd.Flags()
	fs.SortFlags = false
	a.Data.AddFlags(fs)
	fs.StringVar(&f.at, "time", "", "moment to ask for (default: the end of the dump); forms of a `time` as in dump")
	fs.StringVar(&f.start, "start", "", "first `time` of a range (default: that of the dump)")
	fs.StringVar(&f.end, "end", "", "last `time` of a range (default: that of the dump)")
	fs.StringVar(&f.step, "step", "", "`length` of time between two answers of a range (default: about 250 of them)")
	fs.StringVarP(&f.output, "output", "o", "table", "`table|json|csv|graph`; json is what Prometheus' API answers")
	f.view.add(fs)
	f.view.span.add(fs)
	fs.StringArrayVar(&f.view.match, "match", nil, "with -d: PromQL `selector` of the series to take; may be repeated")
	return cmd
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
	defer func() { err = errors.Join(err, v.Close()) }()
	if v.Empty() {
		return fmt.Errorf("there is no sample in it")
	}
	q := query.Question{Expr: c.expr, Start: c.start, End: c.end}
	switch {
	case !c.ranged:
		if q.End = c.at; q.End.IsZero() {
			q.End = time.UnixMilli(v.MaxTime)
		}
		q.Start = q.End
	default:
		if q.Start.IsZero() {
			q.Start = time.UnixMilli(v.MinTime)
		}
		if q.End.IsZero() {
			q.End = time.UnixMilli(v.MaxTime)
		}
		if q.Start.After(q.End) {
			return usagef("promdump meta FILE tells", "the dump has nothing there: it has samples from %s to %s", term.Time(v.MinTime), term.Time(v.MaxTime))
		}
		if q.Step = c.step; q.Step == 0 {
			q.Step = term.Step(q.End.Sub(q.Start))
		}
		if n := q.End.Sub(q.Start) / q.Step; n > maxPoints {
			return usagef("a longer --step, or a shorter range", "%d points for each series are more than %d", n, maxPoints)
		}
	}
	engine := query.NewEngine(c.view.limits, a.logger())
	defer func() { err = errors.Join(err, engine.Close()) }()
	answer, release, err := query.Ask(ctx, v, engine, q)
	if err != nil {
		return err
	}
	defer release()
	a.notes(answer.Warnings)
	a.notes(answer.Infos)
	return c.print(a, asked{q, answer})
}
