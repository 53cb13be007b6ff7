package query

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	v1 "github.com/prometheus/prometheus/web/api/v1"

	"github.com/promdump/promdump/internal/view"
)

// Question is a PromQL query: a range query if Step is not zero, else an instant query.
type Question struct {
	Expr       string
	Start, End time.Time // equal for an instant query
	Step       time.Duration
}

// Answer is the result of a query.
type Answer struct {
	Value    parser.Value
	Warnings []string
	Infos    []string
}

// Ask runs one query within the engine's limits. The answer must not be used after
// release is called; release is nil if there is an error.
func (e *Engine) Ask(ctx context.Context, v *view.View, q Question) (_ Answer, release func(), err error) {
	if _, err := weigh(q.Expr); err != nil {
		return Answer{}, nil, err
	}
	ctx, a, err := e.budget.enter(ctx, len(e.levels)-1)
	if err != nil {
		return Answer{}, nil, err
	}
	v.Held = held
	answer, closeQuery, err := e.ask(ctx, &meter{view: v}, q)
	if err != nil {
		if failed := a.failed(); failed != nil {
			err = fmt.Errorf("query: %w", failed)
		}
		a.close()
		return Answer{}, nil, err
	}
	return answer, func() {
		closeQuery()
		a.close()
	}, nil
}

// ask is Ask for a request that has an account.
func (e *Engine) ask(ctx context.Context, m *meter, q Question) (_ Answer, release func(), err error) {
	var query promql.Query
	if q.Step > 0 {
		query, err = e.NewRangeQuery(ctx, m, nil, q.Expr, q.Start, q.End, q.Step)
	} else {
		query, err = e.NewInstantQuery(ctx, m, nil, q.Expr, q.End)
	}
	if err != nil {
		return Answer{}, nil, Wrong(q.Expr, err)
	}
	result := query.Exec(ctx)
	if result.Err != nil {
		query.Close()
		return Answer{}, nil, fmt.Errorf("query: %w", result.Err)
	}
	a := Answer{Value: result.Value}
	a.Warnings, a.Infos = result.Warnings.AsStrings(q.Expr, 10, 10)
	return a, query.Close, nil
}

// Wrong returns the error of a query that is not valid PromQL, with a marker at the place.
func Wrong(expr string, err error) error {
	e := &view.Error{Err: err, Code: 2, Tip: "PromQL is described at https://prometheus.io/docs/prometheus/latest/querying/basics/"}
	many, ok := errors.AsType[parser.ParseErrors](err)
	if !ok || len(many) == 0 {
		return e
	}
	at := int(many[0].PositionRange.Start)
	if at < 0 || at > len(expr) {
		return e
	}
	begin := strings.LastIndexByte(expr[:at], '\n') + 1
	end := len(expr)
	if i := strings.IndexByte(expr[at:], '\n'); i >= 0 {
		end = at + i
	}
	e.Err = fmt.Errorf("%w\n  %s\n  %s^", err, expr[begin:end], strings.Repeat(" ", len([]rune(expr[begin:at]))))
	return e
}

// WriteJSON writes the answer in the format of the Prometheus API, piece by piece.
func (a Answer) WriteJSON(w io.Writer) error {
	err := encode(w, &v1.Response{
		Status: "success", Data: &v1.QueryData{ResultType: a.Value.Type(), Result: a.Value}, Warnings: a.Warnings, Infos: a.Infos,
	})
	if err == nil {
		_, err = w.Write([]byte{'\n'})
	}
	return err
}
