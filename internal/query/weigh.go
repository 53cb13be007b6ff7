package query

import (
	"cmp"
	"regexp"
	"strconv"
	"strings"

	"github.com/prometheus/prometheus/promql/parser"
)

// A query is untrusted text, and a short one can need much memory before the first
// sample is read: the parser, the engine and the formatter recurse into each level, a
// counted repetition in a regular expression is compiled that many times, and each
// nested label_replace can double a label.

// Limits of the text. Prometheus has none; queries that people and dashboards write
// have a few hundred tokens and ten levels.
const (
	maxTokens  = 50_000
	maxDepth   = 1000
	maxNesting = 4 * maxDepth // operators and parentheses: the parser needs time with the square of its levels
	tokenBytes = 1 << 10      // of a token: its node, twice, and the stack that descends to it
)

// weigh returns the memory needed to parse a query, in bytes.
func weigh(text string) (int64, error) {
	var item parser.Item
	weight := int64(len(text))
	lexer := parser.Lex(text)
	for n, nesting := 0, 0; ; n++ {
		if n > maxTokens || nesting > maxNesting {
			return 0, &LimitError{Limit: LimitText, Max: maxTokens}
		}
		lexer.NextItem(&item)
		if item.Typ == parser.EOF || item.Typ == parser.ERROR {
			return weight + int64(n)*tokenBytes, nil
		}
		switch {
		case item.Typ == parser.STRING:
			weight += repetitions(item.Val)
		case item.Typ == parser.LEFT_PAREN, item.Typ.IsOperator():
			nesting++
		}
	}
}

var counted = regexp.MustCompile(`\{(\d*),?(\d*)\}`)

// repetitions returns the memory of a compiled regular expression. Go limits the
// product of nested counts to 1000, and all of it to 128 MiB.
func repetitions(expr string) int64 {
	times := 1
	for _, m := range counted.FindAllStringSubmatch(expr, -1) {
		for _, digits := range m[1:] {
			if n, err := strconv.Atoi(digits); err == nil {
				times = min(1000, times*max(n, 1))
			}
		}
	}
	return min(int64(len(expr))*int64(times)*100, 300<<20)
}

// checkDepth refuses queries that are nested too deeply for the engine, which needs
// more for each level than the parser.
func checkDepth(expr parser.Expr) error {
	level, depth := []parser.Node{expr}, 0
	for ; len(level) > 0; depth++ {
		if depth > maxDepth {
			return &LimitError{Limit: LimitText, Max: maxTokens}
		}
		var next []parser.Node
		for _, node := range level {
			for child := range parser.ChildrenIter(node) {
				next = append(next, child)
			}
		}
		level = next
	}
	return nil
}

// growth returns the factor by which the labels of a series may grow in a query, at
// most: 0 if it changes none. label_replace may repeat its match, and label_join may
// repeat a label.
func growth(expr parser.Node) float64 {
	g := 0.0
	sum := 0.0
	for child := range parser.ChildrenIter(expr) {
		c := growth(child)
		g = max(g, c)
		sum += c
	}
	switch e := expr.(type) {
	case *parser.BinaryExpr:
		return sum // group_left copies labels
	case *parser.AggregateExpr:
		if e.Op == parser.COUNT_VALUES {
			return max(g, 1)
		}
	case *parser.Call:
		switch e.Func.Name {
		case "label_replace":
			return max(g, 1) * (1 + float64(strings.Count(e.Args[2].String(), "$"))) // it may be nothing but $1
		case "label_join":
			return max(g, 1) * float64(len(e.Args))
		case "info":
			return max(g, 1)
		}
	}
	return g
}

// subqueries returns the memory that the engine allocates for the steps of subqueries
// whether or not they select a series, in bytes. The steps of an outer subquery are held
// while an inner one runs; span is the time between the first and the last step of the
// query around the node, in seconds.
func subqueries(node parser.Node, span float64) (most float64) {
	own := 0.0
	switch n := node.(type) {
	case *parser.StepInvariantExpr:
		span = 0
	case *parser.SubqueryExpr:
		span += n.Range.Seconds()
		own = (span/cmp.Or(n.Step, subqueryInterval).Seconds() + 1) * stepBytes
	}
	for child := range parser.ChildrenIter(node) {
		most = max(most, subqueries(child, span))
	}
	return own + most
}

// stepBytes is the memory of a subquery's step: two counters of samples.
const stepBytes = 16

// literals returns the bytes of text that the functions that change labels write.
func literals(expr parser.Expr) (n int64) {
	parser.Inspect(expr, func(node parser.Node, _ []parser.Node) error {
		if call, ok := node.(*parser.Call); ok && strings.HasPrefix(call.Func.Name, "label_") {
			for _, arg := range call.Args {
				if s, ok := arg.(*parser.StringLiteral); ok {
					n += int64(len(s.Val))
				}
			}
		}
		return nil
	})
	return n
}
