package main

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"time"
)

// agentMemory is what an agent takes of the container's memory.
func (b *bench) agentMemory() []*task { return []*task{b.agentTask("5 agent", b.data, 24)} }

// large is the same at sizes that must not matter: one block of 2 h, a scrape a
// minute, 20 minutes of head.
func (b *bench) large(dir string) []*task {
	var tasks []*task
	for _, size := range []struct {
		series int
		name   string
		head   float64 // MiB of heap that a filtered head may take; 0: nobody has said
	}{{500_000, "5 agent, 500,000 series", 64}, {2_000_000, "5 agent, 2,000,000 series", 0}} {
		data := filepath.Join(dir, "not made yet")
		t := b.agentTask(size.name, data, size.head)
		t.setup = func(ctx context.Context) error {
			made, err := b.make(ctx, dir, size.series, 2, 20*time.Minute, time.Minute)
			if err != nil {
				return err
			}
			t.ways = b.agentTask(size.name, made, size.head).ways
			return warm(made)
		}
		tasks = append(tasks, t)
	}
	return tasks
}

func (b *bench) agentTask(name, data string, headBar float64) *task {
	read := func(name string, args ...string) *way {
		return b.timed(name, b.agent, append([]string{"-dir", data}, args...)...)
	}
	from, to := b.end.Add(-40*time.Minute), b.end.Add(-10*time.Minute)
	const headPart, headAll = "head, one namespace", "head, all"
	t := &task{name: name, apart: true, ways: []*way{
		read("whole", "-head", "raw"),
		read("30 minutes", "-min", ms(from), "-max", ms(to)),
		read("one namespace", "-namespace", aNamespace),
		read(headPart, "-min", ms(b.end), "-head", "block", "-namespace", aNamespace),
		read(headAll, "-min", ms(b.end), "-head", "block"),
	}}
	t.judge = func(t *task) (all []verdict) {
		for _, w := range t.ways {
			heap := 32.0
			if w.name == headPart || w.name == headAll {
				heap = headBar
			}
			all = append(all, atMost(64, w.rss(), w.name+": RSS # MiB"))
			if heap > 0 {
				all = append(all, atMost(heap, w.heap(), w.name+": heap # MiB"))
			}
		}
		return all
	}
	return t
}

func (b *bench) head() []*task {
	const library, ours = "tsdb.Open, CompactHead", "promdump --head block"
	return []*task{{
		name: "6 head as blocks",
		ways: []*way{
			{name: library, run: func(ctx context.Context) (_ cost, err error) {
				// It writes into the data dir that it opens.
				dir, err := b.fresh("opened")
				if err != nil {
					return cost{}, err
				}
				defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
				if err := os.CopyFS(filepath.Join(dir, "wal"), os.DirFS(filepath.Join(b.data, "wal"))); err != nil {
					return cost{}, err
				}
				c, _, err := helper(ctx, b.library, "head", dir)
				return c, err
			}},
			pipe(ours, b.promdump, b.dump(b.end, b.end.AddDate(0, 0, 1), "--head", "block", "--compression", "none")...),
		},
		judge: func(t *task) []verdict {
			return []verdict{atMost(0.6, t.way(ours).ratio(t.way(library)), "# × the library")}
		},
	}}
}

// restore is of all there is, the head as blocks.
func (b *bench) restore() []*task {
	var tasks []*task
	for _, kind := range []struct{ name, ending, tar string }{{"7 restore of a .tar.gz", ".tar.gz", "xzf"}, {"7 restore of a .tar", ".tar", "xf"}} {
		file := filepath.Join(b.scratch, "whole"+kind.ending)
		tar, ours := "tar "+kind.tar, "promdump restore, verified"
		untar := func(ctx context.Context, command string, args ...string) (cost, error) {
			target, err := b.fresh("restored")
			if err != nil {
				return cost{}, err
			}
			c, err := quiet(ctx, command, append(args, target)...)
			if err != nil {
				return c, err
			}
			c.Out, err = size(target)
			return c, err
		}
		ways := []*way{
			{name: tar, run: func(ctx context.Context) (cost, error) {
				return untar(ctx, "tar", kind.tar, file, "-C")
			}},
			{name: tar + ", then sync", run: func(ctx context.Context) (cost, error) {
				return untar(ctx, "sh", "-c", `tar "$0" "$1" -C "$2" && sync -f "$2"`, kind.tar, file)
			}},
			{name: ours, run: func(ctx context.Context) (cost, error) { return b.unpack(ctx, file) }},
			{name: "promdump verify", run: func(ctx context.Context) (cost, error) {
				return quiet(ctx, b.promdump, "verify", "-q", "--temp-dir", b.scratch, file)
			}},
		}
		tasks = append(tasks, &task{
			name: kind.name, ways: ways,
			setup: func(ctx context.Context) error {
				_, err := quiet(ctx, b.promdump, b.everything("--force", "-t", file)...)
				return errors.Join(err, warmFile(file))
			},
			judge: func(t *task) []verdict {
				return []verdict{atMost(1.5, t.way(ours).ratio(t.way(tar)), "# × "+tar)}
			},
		})
	}
	return tasks
}

func warmFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(io.Discard, f)
	return err
}
