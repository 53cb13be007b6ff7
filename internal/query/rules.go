package query

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/rules"

	"github.com/promdump/promdump/internal/term"
	"github.com/promdump/promdump/internal/view"
)

// Rules are the alerting rules of a rule file, to be evaluated over a view by Prometheus'
// own code. Recording rules are not evaluated: a dump contains what they recorded.
type Rules struct {
	file   string
	groups []rulefmt.RuleGroup

	turn chan struct{}              // held by the request that evaluates
	done map[*rulefmt.Rule]ruleView // rules that were evaluated to their end
	kept int64                      // bytes of done
}

// evalInterval is the interval of groups without one: Prometheus' default.
const evalInterval = time.Minute

// ReadRules reads a rule file. A file without alerting rules is an error.
func ReadRules(file string) (*Rules, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("read rules: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(f)
	if err != nil {
		return nil, fmt.Errorf("read rules: %w", err)
	}
	groups, errs := rulefmt.Parse(text, false, model.UTF8Validation, NewParser(), slog.New(slog.DiscardHandler))
	if len(errs) > 0 {
		return nil, &view.Error{
			Err:  fmt.Errorf("rule file %s: %w", file, errors.Join(distinct(errs)...)),
			Code: 1, Tip: "check it with: promtool check rules " + file,
		}
	}
	r := &Rules{file: file, groups: groups.Groups, turn: make(chan struct{}, 1), done: map[*rulefmt.Rule]ruleView{}}
	for _, g := range r.groups {
		for _, rule := range g.Rules {
			if rule.Alert != "" {
				return r, nil
			}
		}
	}
	return nil, &view.Error{
		Err:  fmt.Errorf("rule file %s has no alerting rules", file),
		Code: 1, Tip: "recording rules are not evaluated: a dump contains what they recorded",
	}
}

// distinct removes repeated errors: the parser reads the file twice.
func distinct(errs []error) (some []error) {
	said := map[string]bool{}
	for _, err := range errs {
		if !said[err.Error()] {
			said[err.Error()] = true
			some = append(some, err)
		}
	}
	return some
}

// alertsView is the answer of /api/promdump/v1/alerts. Times are Unix
// milliseconds.
type alertsView struct {
	File   string      `json:"file,omitempty"`
	Groups []groupView `json:"groups"`
}

type groupView struct {
	Name     string     `json:"name"`
	Interval float64    `json:"interval"` // seconds
	Rules    []ruleView `json:"rules"`
}

type ruleView struct {
	Alert         string            `json:"alert"`
	Expr          string            `json:"expr"`
	For           float64           `json:"for"`           // seconds
	KeepFiringFor float64           `json:"keepFiringFor"` // seconds
	Labels        map[string]string `json:"labels"`
	Annotations   map[string]string `json:"annotations"`
	Error         string            `json:"error,omitempty"` // why it could not be evaluated to its end
	Instances     []*instanceView   `json:"instances"`
}

// instanceView is one alert: a set of labels that was pending or firing. An interval is
// from the first evaluation in the state to the first one after it.
type instanceView struct {
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"` // of the last evaluation
	Pending     [][2]int64        `json:"pending"`
	Firing      [][2]int64        `json:"firing"`

	state rules.AlertState // in the previous evaluation
}

func (s *Server) alerts(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	if s.config.Rules == nil {
		answer(w, alertsView{Groups: []groupView{}})
		return
	}
	v, err := s.config.Rules.evaluate(r.Context(), s)
	if err != nil {
		accountOf(r.Context()).fail(err)
		return
	}
	answer(w, v)
}

// evaluate returns the state of all rules. Rules that were evaluated before are not
// evaluated again, so that the request after an interrupted one continues where that
// one ended.
func (r *Rules) evaluate(ctx context.Context, s *Server) (*alertsView, error) {
	select {
	case r.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	defer func() { <-r.turn }()
	v := &alertsView{File: r.file, Groups: []groupView{}}
	for _, g := range r.groups {
		interval := time.Duration(g.Interval)
		if interval == 0 {
			interval = evalInterval
		}
		group := groupView{Name: g.Name, Interval: interval.Seconds(), Rules: []ruleView{}}
		for i := range g.Rules {
			rule := &g.Rules[i]
			if rule.Alert == "" {
				continue
			}
			evaluated, ok := r.done[rule]
			if !ok {
				var err error
				e := &evaluation{server: s, group: g, rule: *rule, interval: interval}
				if evaluated, err = e.run(ctx); err != nil {
					if limit, ok := errors.AsType[*LimitError](err); ok && limit != errOutgrown {
						// Record the failure, so that the next request does not fail at
						// the same rule.
						evaluated.Error, evaluated.Instances = err.Error(), []*instanceView{}
						r.done[rule] = evaluated
					}
					return nil, err
				}
				evaluated = r.keep(evaluated, e.base-e.begin, s.engine.budget.max/keptPart)
				r.done[rule] = evaluated
			}
			group.Rules = append(group.Rules, evaluated)
		}
		if len(group.Rules) > 0 {
			v.Groups = append(v.Groups, group)
		}
	}
	return v, nil
}

// keptPart is the part of Limits.Memory that evaluated rules may hold permanently.
const keptPart = 16

// keep charges the memory of an evaluated rule. Beyond the limit its alerts are
// dropped.
func (r *Rules) keep(v ruleView, bytes, limit int64) ruleView {
	if r.kept+bytes > limit {
		v.Error, v.Instances = "the alerts need more memory than the limit", []*instanceView{}
		return v
	}
	r.kept += bytes
	return v
}

// evaluation evaluates one rule over the whole view.
type evaluation struct {
	server   *Server
	group    rulefmt.RuleGroup
	rule     rulefmt.Rule
	interval time.Duration

	view      *ruleView
	instances map[uint64]*instanceView
	ahead     map[int64]promql.Vector // results of the rule's expression by time
	until     int64                   // end of the times in ahead
	oneByOne  bool                    // set after a range query failed: instant queries follow

	account *account // of the request
	begin   int64    // held when the evaluation began
	base    int64    // the same, plus the instances
	bytes   int64    // of instances, not charged yet
}

// Bytes of what an evaluation holds.
const (
	aheadBytes    = 96   // a sample of ahead
	instanceBytes = 2048 // an alert, without its labels
	pieceBytes    = 64   // an interval
)

// chunkSteps is the number of evaluations that one range query covers.
const chunkSteps = 500

func (e *evaluation) run(ctx context.Context) (ruleView, error) {
	e.view = &ruleView{
		Alert: e.rule.Alert, Expr: e.rule.Expr, For: time.Duration(e.rule.For).Seconds(), KeepFiringFor: time.Duration(e.rule.KeepFiringFor).Seconds(),
		Labels: rules.FromMaps(e.group.Labels, e.rule.Labels).Map(), Annotations: e.rule.Annotations, Instances: []*instanceView{},
	}
	if e.view.Annotations == nil {
		e.view.Annotations = map[string]string{}
	}
	e.instances = map[uint64]*instanceView{}
	e.account = accountOf(ctx)
	e.begin = e.account.mark()
	e.base = e.begin
	all := e.server.config.View
	if all.Empty() {
		return *e.view, nil
	}
	expr, err := NewParser().ParseExpr(e.rule.Expr)
	if err != nil {
		return *e.view, err // it was parsed when the file was read
	}
	alert := rules.NewAlertingRule(e.rule.Alert, expr, time.Duration(e.rule.For), time.Duration(e.rule.KeepFiringFor),
		rules.FromMaps(e.group.Labels, e.rule.Labels), labels.FromMap(e.rule.Annotations), labels.EmptyLabels(), "", true, e.server.config.Logger)
	var offset time.Duration
	if e.group.QueryOffset != nil {
		offset = time.Duration(*e.group.QueryOffset)
	}
	own := expr.String()
	query := func(ctx context.Context, q string, at time.Time) (promql.Vector, error) {
		if q != own || e.oneByOne || !steady(own) {
			return e.single(ctx, q, at) // of a template
		}
		return e.lookAhead(ctx, own, at)
	}
	step := e.interval.Milliseconds()
	first := (all.MinTime + step - 1) / step * step
	last := first
	for at := first; at <= all.MaxTime+offset.Milliseconds(); at += step {
		if ctx.Err() != nil {
			return *e.view, context.Cause(ctx)
		}
		if _, err := alert.Eval(ctx, offset, time.UnixMilli(at).UTC(), query, &url.URL{}, e.group.Limit); err != nil {
			if err := e.mustEnd(ctx); err != nil {
				return *e.view, err
			}
			// A server continues with the next evaluation; keep the first reason.
			if e.view.Error == "" {
				e.view.Error = fmt.Sprintf("at %s: %v", term.Time(at), err)
			}
		}
		e.see(alert, at)
		if err := e.hold(); err != nil {
			if err := e.mustEnd(ctx); err != nil {
				return *e.view, err
			}
			e.view.Error, e.view.Instances = "the alerts need more memory than the limit", []*instanceView{}
			return *e.view, nil
		}
		last = at
	}
	e.end(last)
	return *e.view, nil
}

// mustEnd returns why the evaluation cannot continue: the request has ended, or must
// start again with more memory. On the last level, a query that needs too much memory
// ends only itself, as in a server.
func (e *evaluation) mustEnd(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return e.account.forgive(e.base)
}

// single runs an instant query.
func (e *evaluation) single(ctx context.Context, expr string, at time.Time) (promql.Vector, error) {
	return rules.EngineQueryFunc(e.server.engine, e.server.meter)(ctx, expr, at)
}

// hold charges for the instances that are new since the last call.
func (e *evaluation) hold() error {
	n := e.bytes
	e.bytes = 0
	e.base += n
	return e.account.charge(n)
}

// steady reports whether a range query returns the same as instant queries at its steps.
func steady(expr string) bool {
	for _, f := range []string{"start()", "end()", "range()", "step()"} {
		if strings.Contains(expr, f) {
			return false
		}
	}
	return true
}

// lookAhead evaluates the expression at many times at once, and returns the results one
// by one.
func (e *evaluation) lookAhead(ctx context.Context, expr string, at time.Time) (promql.Vector, error) {
	ms := at.UnixMilli()
	if e.ahead == nil || ms > e.until {
		e.ahead = nil
		e.account.reset(e.base)
		end := at.Add(chunkSteps * e.interval)
		ask := Question{Expr: expr, Start: at, End: end, Step: e.interval}
		a, release, err := e.server.engine.ask(ctx, e.server.meter, ask)
		if err != nil {
			if err := e.mustEnd(ctx); err != nil {
				return nil, err
			}
			e.oneByOne = true
			return e.single(ctx, expr, at)
		}
		var size int64
		defer func() {
			release()
			_ = e.account.charge(size) // it was charged beside what is released
		}()
		matrix, ok := a.Value.(promql.Matrix)
		if !ok {
			return nil, fmt.Errorf("the rule gives a %s, not a vector", a.Value.Type())
		}
		size = int64(matrix.TotalSamples()) * aheadBytes
		if err := e.account.charge(size); err != nil {
			size = 0
			return nil, err
		}
		e.ahead = map[int64]promql.Vector{}
		for _, s := range matrix {
			for _, p := range s.Floats {
				e.ahead[p.T] = append(e.ahead[p.T], promql.Sample{Metric: s.Metric, T: p.T, F: p.F})
			}
			for _, p := range s.Histograms {
				e.ahead[p.T] = append(e.ahead[p.T], promql.Sample{Metric: s.Metric, T: p.T, H: p.H.Copy()})
			}
		}
		e.until = end.UnixMilli()
	}
	return e.ahead[ms], nil
}

// see records which alerts are pending and firing after an evaluation.
func (e *evaluation) see(alert *rules.AlertingRule, at int64) {
	active := map[uint64]bool{}
	for _, a := range alert.ActiveAlerts() {
		if a.State != rules.StatePending && a.State != rules.StateFiring {
			continue
		}
		key := a.Labels.Hash()
		active[key] = true
		i := e.instances[key]
		if i == nil {
			i = &instanceView{Labels: a.Labels.Map(), Pending: [][2]int64{}, Firing: [][2]int64{}}
			e.instances[key] = i
			e.bytes += instanceBytes + 2*int64(a.Labels.ByteSize()+a.Annotations.ByteSize())
			e.view.Instances = append(e.view.Instances, i)
		}
		i.Annotations = a.Annotations.Map()
		e.bytes += i.become(a.State, at)
	}
	for key, i := range e.instances {
		if !active[key] {
			e.bytes += i.become(rules.StateInactive, at)
		}
	}
}

// become ends the interval of the previous state, and begins another. It returns the
// bytes of the new one.
func (i *instanceView) become(state rules.AlertState, at int64) (bytes int64) {
	if list := i.list(i.state); list != nil {
		(*list)[len(*list)-1][1] = at
	}
	if list := i.list(state); list != nil && state != i.state {
		*list = append(*list, [2]int64{at, at})
		bytes = pieceBytes
	}
	i.state = state
	return bytes
}

func (i *instanceView) list(state rules.AlertState) *[][2]int64 {
	switch state {
	case rules.StatePending:
		return &i.Pending
	case rules.StateFiring:
		return &i.Firing
	}
	return nil
}

func (e *evaluation) end(at int64) {
	for _, i := range e.instances {
		if list := i.list(i.state); list != nil {
			(*list)[len(*list)-1][1] = at
		}
	}
}
