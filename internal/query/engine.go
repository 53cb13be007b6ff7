package query

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
)

// NewParser returns a PromQL parser with all features that Prometheus has behind feature
// flags, because a user of a dump cannot restart the server with another flag. The
// features do not change the meaning of a query that is valid without them.
func NewParser() parser.Parser {
	return parser.NewParser(parser.Options{
		EnableExperimentalFunctions: true, ExperimentalDurationExpr: true,
		EnableExtendedRangeSelectors: true, EnableBinopFillModifiers: true,
	})
}

// Engine runs Prometheus' engine within Limits. It must be closed.
type Engine struct {
	limits Limits
	budget *budget
	levels []*promql.Engine // one for each level of the budget
}

// NewEngine returns an engine for one query at a time, which may use all memory that the
// limits give to queries. The caller must close it.
func NewEngine(limits Limits, logger *slog.Logger) *Engine {
	limits = limits.withDefaults()
	return newEngine(limits, newBudget(limits, true), logger, nil)
}

func newEngine(l Limits, b *budget, logger *slog.Logger, reg prometheus.Registerer) *Engine {
	e := &Engine{limits: l, budget: b}
	for i, level := range e.budget.levels {
		own := reg
		if reg != nil {
			own = prometheus.WrapRegistererWith(prometheus.Labels{"level": strconv.Itoa(i)}, reg)
		}
		e.levels = append(e.levels, promql.NewEngine(promql.EngineOpts{
			Logger: logger, Reg: own, MaxSamples: min(l.Samples, samplesIn(level.bytes)),
			Timeout: l.Timeout, LookbackDelta: l.Lookback,
			NoStepSubqueryIntervalFn: func(int64) int64 { return subqueryInterval.Milliseconds() },
			EnableAtModifier:         true, EnableNegativeOffset: true, Parser: NewParser(),
		}))
	}
	return e
}

// subqueryInterval is the default step of subqueries: Prometheus' default evaluation
// interval.
const subqueryInterval = time.Minute

// samplesIn returns how many samples a query with so much memory may hold. The rest of
// the memory is for series.
func samplesIn(bytes int64) int { return int(bytes / 4 * 3 / pointBytes) }

// Close waits for running queries.
func (e *Engine) Close() error {
	e.budget.close()
	var err error
	for _, engine := range e.levels {
		err = errors.Join(err, engine.Close())
	}
	return err
}

// NewInstantQuery implements promql.QueryEngine.
func (e *Engine) NewInstantQuery(
	ctx context.Context, q storage.Queryable, opts promql.QueryOpts, qs string, ts time.Time,
) (promql.Query, error) {
	return e.limited(ctx, qs, steps{ts, ts, 0}, func(on *promql.Engine) (promql.Query, error) {
		return on.NewInstantQuery(ctx, q, opts, qs, ts)
	})
}

// NewRangeQuery implements promql.QueryEngine.
func (e *Engine) NewRangeQuery(
	ctx context.Context, q storage.Queryable, opts promql.QueryOpts, qs string,
	start, end time.Time, interval time.Duration,
) (promql.Query, error) {
	return e.limited(ctx, qs, steps{start, end, interval}, func(on *promql.Engine) (promql.Query, error) {
		return on.NewRangeQuery(ctx, q, opts, qs, start, end, interval)
	})
}

// steps are the times at which a query is evaluated.
type steps struct {
	start, end time.Time
	interval   time.Duration
}

func (e *Engine) limited(
	ctx context.Context, text string, at steps, on func(*promql.Engine) (promql.Query, error),
) (promql.Query, error) {
	a, level := accountOf(ctx), len(e.levels)-1
	mark := a.mark()
	if a != nil {
		level = a.level
	}
	// These checks come before the engine, which needs seconds for a deeply nested query,
	// and allocates for the steps of a subquery at once. The engine refuses queries that
	// cannot be parsed.
	if expr, err := NewParser().ParseExpr(text); err == nil {
		if err := e.expect(a, level, expr, at); err != nil {
			a.fail(err)
			return nil, err
		}
	}
	q, err := on(e.levels[level])
	if err != nil {
		return nil, err
	}
	return &limitedQuery{Query: q, engine: e, level: level, account: a, mark: mark}, nil
}

// expect refuses a query that needs too much before it reads a series. In the account,
// which may be nil, it records how the query uses the series that it selects.
func (e *Engine) expect(a *account, level int, expr parser.Expr, at steps) error {
	if err := checkDepth(expr); err != nil {
		return err
	}
	need := 0.0
	if a != nil {
		a.growth, a.text, a.matrix = growth(expr), literals(expr), expr.Type() == parser.ValueTypeMatrix
		need = a.growth * float64(a.text)
	}
	// This resolves durations such as [step()*5:1s]. The engine refuses what fails here.
	if expr, err := promql.PreprocessExpr(expr, at.start, at.end, at.interval); err == nil {
		need += subqueries(expr, at.end.Sub(at.start).Seconds())
	}
	if a == nil {
		if most := e.budget.levels[level].bytes; need > float64(most) {
			return &LimitError{Limit: LimitMemory, Max: most}
		}
		return nil
	}
	return a.charge(int64(min(need, 1<<50)))
}

// limitedQuery is a query whose error names the exceeded limit, and which releases its
// memory when it is closed.
type limitedQuery struct {
	promql.Query
	engine  *Engine
	level   int
	account *account
	mark    int64
}

func (q *limitedQuery) Exec(ctx context.Context) *promql.Result {
	result := q.Query.Exec(ctx)
	if _, ok := errors.AsType[promql.ErrTooManySamples](result.Err); ok {
		result.Err = q.tooMany()
		q.account.fail(result.Err)
	}
	return result
}

// tooMany returns the error of a query that needs more samples than it may hold.
func (q *limitedQuery) tooMany() error {
	bytes := q.engine.budget.levels[q.level].bytes
	switch samples := q.engine.limits.Samples; {
	case samples <= samplesIn(bytes):
		return &LimitError{Limit: LimitSamples, Max: int64(samples)}
	case q.account != nil:
		return q.account.outgrown()
	default:
		return &LimitError{Limit: LimitMemory, Max: bytes}
	}
}

func (q *limitedQuery) Close() {
	q.Query.Close()
	q.account.reset(q.mark)
}
