package cli

import (
	"context"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/tsdb/index"
	"github.com/spf13/cobra"

	"github.com/promdump/promdump/internal/view"
)

// completeTime limits how long completion reads a dump.
const completeTime = 2 * time.Second

// place is the kind of word that may come at the end of a PromQL expression.
type place int

const (
	atMetric place = iota // a metric, a function or an aggregation
	atLabel               // the name of a label
	atValue               // the value of a label, within quotes
)

// labelLists are the keywords that a list of labels follows.
var labelLists = []string{"by", "without", "on", "ignoring", "group_left", "group_right"}

// promQLEnd returns the place at the end of an incomplete expression, and the word that
// begins there. For atValue, label is the label whose value is typed.
func promQLEnd(text string) (at place, word, label string) {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_:."
	var (
		quote  byte
		braces bool
		parens []bool // of labels
		begin  int    // of the word or of the quoted text
		last   string // word before
	)
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case quote != 0:
			if c == '\\' && quote != '`' {
				i++
			} else if c == quote {
				quote, begin = 0, i+1
			}
			continue
		case strings.IndexByte(letters, c) >= 0:
			continue
		}
		if w := text[begin:i]; w != "" {
			last = w
		}
		begin = i + 1
		switch c {
		case '"', '\'', '`':
			quote = c
		case '{':
			braces = true
		case '}':
			braces = false
		case '(':
			parens = append(parens, slices.Contains(labelLists, strings.ToLower(last)))
			last = ""
		case ')':
			parens = parens[:max(len(parens)-1, 0)]
		}
	}
	word = text[min(begin, len(text)):]
	switch {
	case quote != 0 && braces:
		return atValue, word, last
	case quote != 0:
		return atValue, word, ""
	case braces, len(parens) > 0 && parens[len(parens)-1]:
		return atLabel, word, ""
	}
	return atMetric, word, ""
}

// completeQuery offers dump files, and after the first of them metrics, labels, values
// and functions of PromQL.
func (a *app) completeQuery(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	found := a.indexesOf(cmd, args)
	if len(found) == 0 {
		return dumpFiles(cmd, args, typed)
	}
	offers, directive := offerPromQL(cmd.Context(), found, typed)
	if len(args) > 0 && !strings.ContainsAny(typed, `({"`) {
		offers = append(offers, dumpNames(typed)...) // a second dump
	}
	return offers, directive
}

// completeMatch offers metrics, labels and values for a selector.
func (a *app) completeMatch(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	return offerPromQL(cmd.Context(), a.indexesOf(cmd, args), typed)
}

// indexes reads the indexes of a dump file or a data dir.
type indexes func(ctx context.Context, f func(*index.Reader) error) error

func (a *app) indexesOf(cmd *cobra.Command, args []string) (all []indexes) {
	cache := viewConfig{}.cacheDirOf()
	if f := cmd.Flags().Lookup("cache-dir"); f != nil && f.Value.String() != "" {
		cache = f.Value.String()
	}
	for _, file := range args {
		if isFile(file) {
			all = append(all, func(ctx context.Context, f func(*index.Reader) error) error {
				return view.EachIndex(ctx, cache, file, f)
			})
		}
	}
	if d, ok := a.Data.(*dirOrURL); ok && d.dir.path != "" {
		all = append(all, func(ctx context.Context, f func(*index.Reader) error) error {
			return view.EachIndexOfDir(ctx, d.dir.path, f)
		})
	}
	return all
}

func offerPromQL(ctx context.Context, found []indexes, typed string) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(ctx, completeTime)
	defer cancel()
	at, word, label := promQLEnd(typed)
	names := map[string]bool{}
	offer := func(all []string) {
		for _, s := range all {
			if strings.HasPrefix(s, word) {
				names[strings.Clone(s)] = true // closing an index unmaps its strings
			}
		}
	}
	after := ""
	for _, each := range found {
		err := each(ctx, func(x *index.Reader) error {
			all, err := labelsOf(ctx, x, at, label)
			offer(all)
			return err
		})
		if err != nil {
			cobra.CompDebugln(err.Error(), false)
		}
	}
	prefix := strings.TrimSuffix(typed, word)
	switch at {
	case atValue:
		after = prefix[len(prefix)-1:]
	case atMetric:
		offer(functions())
	}
	var offers []string
	for _, name := range slices.Sorted(maps.Keys(names)) {
		offers = append(offers, prefix+name+after)
	}
	return offers, cobra.ShellCompDirectiveNoSpace | cobra.ShellCompDirectiveNoFileComp
}

func labelsOf(ctx context.Context, x *index.Reader, at place, label string) ([]string, error) {
	switch {
	case at == atLabel:
		return x.LabelNames(ctx)
	case at == atMetric:
		all, err := x.SortedLabelValues(ctx, model.MetricNameLabel, nil)
		// Names that need quotes cannot be offered there.
		return slices.DeleteFunc(all, func(s string) bool { return !model.LegacyValidation.IsValidMetricName(s) }), err
	case label != "":
		return x.SortedLabelValues(ctx, label, nil)
	}
	return nil, io.EOF
}

// functions returns PromQL's functions and aggregations, with the opening parenthesis.
func functions() (all []string) {
	for name := range parser.Functions {
		all = append(all, name+"(")
	}
	for item, name := range parser.ItemTypeStr {
		if item.IsAggregator() {
			all = append(all, name+"(")
		}
	}
	return all
}

// dumpNames returns the dump files whose names begin with typed.
func dumpNames(typed string) (all []string) {
	files, _ := filepath.Glob(typed + "*") // a bad pattern matches nothing
	for _, file := range files {
		if fi, err := os.Stat(file); err != nil || fi.IsDir() {
			continue
		}
		if slices.Contains(dumpEndings, strings.TrimPrefix(filepath.Ext(file), ".")) {
			all = append(all, file)
		}
	}
	return all
}
