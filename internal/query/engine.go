package query

import (
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
)

// Limits of a query, so that one does not take the machine. Zero fields mean
// Prometheus' own defaults.
type Limits struct {
	Samples     int           // that a query holds at once; default 50,000,000
	Timeout     time.Duration // default 2 minutes
	Concurrency int           // queries at once; default 20
	Lookback    time.Duration // how old a sample may be that stands for a moment; default 5 minutes
}

func (l Limits) withDefaults() Limits {
	if l.Samples == 0 {
		l.Samples = 50_000_000
	}
	if l.Timeout == 0 {
		l.Timeout = 2 * time.Minute
	}
	if l.Concurrency == 0 {
		l.Concurrency = 20
	}
	if l.Lookback == 0 {
		l.Lookback = 5 * time.Minute
	}
	return l
}

// NewParser is PromQL with everything that Prometheus has a feature flag for: who
// reads a dump cannot restart the server that it is from with another flag. No
// query that is valid without them means something else with them.
func NewParser() parser.Parser {
	return parser.NewParser(parser.Options{
		EnableExperimentalFunctions: true, ExperimentalDurationExpr: true,
		EnableExtendedRangeSelectors: true, EnableBinopFillModifiers: true,
	})
}

// NewEngine makes Prometheus' engine as a server makes it. It must be closed.
func NewEngine(limits Limits, logger *slog.Logger) *promql.Engine {
	return newEngine(limits, logger, nil)
}

func newEngine(limits Limits, logger *slog.Logger, reg prometheus.Registerer) *promql.Engine {
	l := limits.withDefaults()
	return promql.NewEngine(promql.EngineOpts{
		Logger: logger, Reg: reg, MaxSamples: l.Samples, Timeout: l.Timeout, LookbackDelta: l.Lookback,
		ActiveQueryTracker:       make(slots, l.Concurrency),
		NoStepSubqueryIntervalFn: func(int64) int64 { return time.Minute.Milliseconds() }, // the default evaluation interval
		EnableAtModifier:         true, EnableNegativeOffset: true, Parser: NewParser(),
	})
}

// slots bound how many queries run at once. Prometheus' own tracker writes a file.
type slots chan struct{}

func (s slots) GetMaxConcurrent() int { return cap(s) }

func (s slots) Insert(ctx context.Context, _ string) (int, error) {
	select {
	case s <- struct{}{}:
		return 0, nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

func (s slots) Delete(int) { <-s }

func (s slots) Close() error { return nil }
