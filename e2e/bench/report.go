package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// way is one way to do a task.
type way struct {
	name  string
	group string // of the ways that do the same thing, in a task that is several
	run   func(ctx context.Context) (cost, error)
	once  bool // too slow to be repeated
	took  []cost
}

// task is what several ways do, in turn, several times over.
type task struct {
	name  string
	ways  []*way // the first one is what the others are compared with
	apart bool   // the ways do different things: there is no ratio
	setup func(ctx context.Context) error
	judge func(t *task) []verdict
	table func(out io.Writer, t *task) // its own, after the others

	cleanup func() error
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

func (w *way) title() string {
	if w.group == "" {
		return w.name
	}
	return w.group + ": " + w.name
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
func (t *task) run(ctx context.Context, runs int, log io.Writer) (err error) {
	if t.cleanup != nil {
		defer func() { err = errors.Join(err, t.cleanup()) }()
	}
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
				return fmt.Errorf("%s: %s: %w", t.name, w.title(), err)
			}
			w.took = append(w.took, c)
			fmt.Fprintf(log, "%s: %s: %.2f s, %.0f MiB\n", t.name, w.title(), c.Wall, float64(c.RSS)/(1<<20))
		}
	}
	return nil
}

// tables writes the tables of all tasks that have run.
func tables(out io.Writer, tasks []*task) {
	apart := slices.DeleteFunc(slices.Clone(tasks), func(t *task) bool { return t.table == nil })
	if tasks = slices.DeleteFunc(slices.Clone(tasks), func(t *task) bool { return t.table != nil }); len(tasks) > 0 {
		ratios(out, tasks)
	}
	for _, t := range apart {
		t.table(out, t)
	}
}

func ratios(out io.Writer, tasks []*task) {
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

// containerTable is of what each way takes of a server's container: there counts
// what the server takes more than before, and what runs beside it.
func containerTable(out io.Writer, t *task) {
	fmt.Fprintln(out, "\n| task | way | wall s | server CPU s | server RSS + MiB | process in the container, CPU s | its peak RSS MiB | client elsewhere, CPU s | its peak RSS MiB | output MB |")
	fmt.Fprintln(out, "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|")
	var groups []string
	for _, w := range t.ways {
		name := ""
		if !slices.Contains(groups, w.group) {
			groups = append(groups, w.group)
			name = t.name + ", " + w.group
		}
		own := fmt.Sprintf("%.2f | %.0f", w.cpu(), w.rss())
		inside, outside := own, " | "
		if w.elsewhere() {
			inside, outside = outside, inside
		}
		fmt.Fprintf(out, "| %s | %s | %.3f | %.2f | %.1f | %s | %s | %s |\n", name, w.name, w.wall(), w.serverCPU(), w.serverRSS(), inside, outside, optional(w.out()))
	}
	fmt.Fprintln(out)
	for _, g := range groups {
		fmt.Fprintln(out, leastHarm(g, t.ways))
	}
}

// leastHarm names the way of a group that takes the least of the container, or
// one for its CPU and one for its memory.
func leastHarm(group string, ways []*way) string {
	var cpu, memory *way
	for _, w := range ways {
		if w.group != group {
			continue
		}
		if cpu == nil || w.containerCPU() < cpu.containerCPU() {
			cpu = w
		}
		if memory == nil || w.containerMemory() < memory.containerMemory() {
			memory = w
		}
	}
	takes := func(w *way) string {
		return fmt.Sprintf("%s (%.2f s of CPU, %.0f MiB in the container)", w.name, w.containerCPU(), w.containerMemory())
	}
	if cpu == memory {
		return fmt.Sprintf("Least harm, %s: %s.", group, takes(cpu))
	}
	return fmt.Sprintf("Least harm, %s: to CPU by %s, to memory by %s.", group, takes(cpu), takes(memory))
}

func (w *way) elsewhere() bool    { return len(w.took) > 0 && w.took[0].Elsewhere }
func (w *way) serverCPU() float64 { return w.median(func(c cost) float64 { return c.ServerCPU }) }
func (w *way) serverRSS() float64 {
	return w.median(func(c cost) float64 { return float64(c.ServerRSS) }) / (1 << 20)
}

func (w *way) containerCPU() float64 {
	if w.elsewhere() {
		return w.serverCPU()
	}
	return w.serverCPU() + w.cpu()
}

func (w *way) containerMemory() float64 {
	if w.elsewhere() {
		return w.serverRSS()
	}
	return w.serverRSS() + w.rss()
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
			doc.Results = append(doc.Results, result{t.name, w.title(), w.took})
		}
	}
	doc.Verdicts = verdicts(tasks)
	b, err := json.MarshalIndent(doc, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o666)
}
