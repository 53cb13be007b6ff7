package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
)

// way is one way to do a task.
type way struct {
	name string
	run  func(ctx context.Context) (cost, error)
	once bool // too slow to be repeated
	took []cost
}

// task is what several ways do, in turn, several times over.
type task struct {
	name  string
	ways  []*way // the first one is what the others are compared with
	apart bool   // the ways do different things: there is no ratio
	setup func(ctx context.Context) error
	judge func(t *task) []verdict
}

// verdict is a bar and whether it is met.
type verdict struct {
	Task, Bar, Got string
	Met            bool
}

func (t *task) way(name string) *way {
	for _, w := range t.ways {
		if w.name == name {
			return w
		}
	}
	panic("no way " + name)
}

func (w *way) median(of func(cost) float64) float64 {
	var all []float64
	for _, c := range w.took {
		all = append(all, of(c))
	}
	return median(all)
}

func (w *way) wall() float64 { return w.median(func(c cost) float64 { return c.Wall }) }
func (w *way) cpu() float64  { return w.median(func(c cost) float64 { return c.CPU }) }
func (w *way) rss() float64 {
	return w.median(func(c cost) float64 { return float64(c.RSS) }) / (1 << 20)
}
func (w *way) heap() float64 {
	return w.median(func(c cost) float64 { return float64(c.Heap) }) / (1 << 20)
}
func (w *way) out() float64 { return w.median(func(c cost) float64 { return float64(c.Out) }) / 1e6 }

// ratio of the walls, run by run: a machine that is slow for a while is slow for
// both.
func (w *way) ratio(to *way) float64 {
	if len(w.took) != len(to.took) {
		return w.wall() / to.wall()
	}
	var all []float64
	for i := range w.took {
		all = append(all, w.took[i].Wall/to.took[i].Wall)
	}
	return median(all)
}

// run takes the ways in turn, so that all of them have the same weather.
func (t *task) run(ctx context.Context, runs int, log io.Writer) error {
	if t.setup != nil {
		if err := t.setup(ctx); err != nil {
			return fmt.Errorf("%s: %w", t.name, err)
		}
	}
	for i := range runs {
		for _, w := range t.ways {
			if w.once && i > 0 {
				continue
			}
			c, err := w.run(ctx)
			if err != nil {
				return fmt.Errorf("%s: %s: %w", t.name, w.name, err)
			}
			w.took = append(w.took, c)
			fmt.Fprintf(log, "%s: %s: %.2f s, %.0f MiB\n", t.name, w.name, c.Wall, float64(c.RSS)/(1<<20))
		}
	}
	return nil
}

// tables writes the tables of all tasks that have run.
func tables(out io.Writer, tasks []*task) {
	fmt.Fprintln(out, "\n| task | way | wall s | ratio | CPU s | peak RSS MiB | Go heap MiB | output MB |")
	fmt.Fprintln(out, "|---|---|---:|---:|---:|---:|---:|---:|")
	for _, t := range tasks {
		for i, w := range t.ways {
			name := t.name
			if i > 0 {
				name = ""
			}
			ratio := ""
			if !t.apart {
				ratio = fmt.Sprintf("%.2f", w.ratio(t.ways[0]))
			}
			fmt.Fprintf(out, "| %s | %s | %.3f | %s | %.2f | %.0f | %s | %s |\n", name, w.name, w.wall(), ratio, w.cpu(), w.rss(), optional(w.heap()), optional(w.out()))
		}
	}
	fmt.Fprintln(out, "\n| task | bar | measured | |")
	fmt.Fprintln(out, "|---|---|---:|---|")
	for _, v := range verdicts(tasks) {
		met := "met"
		if !v.Met {
			met = "**missed**"
		}
		fmt.Fprintf(out, "| %s | %s | %s | %s |\n", v.Task, v.Bar, v.Got, met)
	}
}

func optional(f float64) string {
	if f == 0 {
		return ""
	}
	return fmt.Sprintf("%.1f", f)
}

func verdicts(tasks []*task) (all []verdict) {
	for _, t := range tasks {
		if t.judge == nil {
			continue
		}
		for _, v := range t.judge(t) {
			v.Task = t.name
			all = append(all, v)
		}
	}
	return all
}

// atMost judges a number that should be small.
func atMost(bar float64, got float64, what string) verdict {
	return verdict{Bar: strings.ReplaceAll(what, "#", fmt.Sprintf("≤ %.3g", bar)), Got: fmt.Sprintf("%.3g", got), Met: got <= bar}
}

// atLeast judges a number that should be large.
func atLeast(bar float64, got float64, what string) verdict {
	return verdict{Bar: strings.ReplaceAll(what, "#", fmt.Sprintf("≥ %.3g", bar)), Got: fmt.Sprintf("%.3g", got), Met: got >= bar}
}

// save writes all that was measured, every run of it.
func save(path string, tasks []*task) error {
	type result struct {
		Task, Way string
		Runs      []cost
	}
	var doc struct {
		Results  []result
		Verdicts []verdict
	}
	for _, t := range tasks {
		for _, w := range t.ways {
			doc.Results = append(doc.Results, result{t.name, w.name, w.took})
		}
	}
	doc.Verdicts = verdicts(tasks)
	b, err := json.MarshalIndent(doc, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o666)
}
