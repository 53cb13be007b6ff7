package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// dump is the command line of promdump for a dump of a range.
func (b *bench) dump(from, to time.Time, more ...string) []string {
	return append([]string{"dump", "-q", "-d", b.data, "--min-time", ms(from), "--max-time", ms(to)}, more...)
}

// everything is that of a dump of all there is.
func (b *bench) everything(more ...string) []string {
	return b.dump(time.UnixMilli(0), b.end.AddDate(1, 0, 0), more...)
}

func ms(t time.Time) string { return fmt.Sprint(t.UnixMilli()) }

// window is half an hour of one block, not at its border.
func (b *bench) window() (from, to time.Time) {
	from = b.end.Add(-3*time.Hour + 10*time.Minute)
	return from, from.Add(30 * time.Minute)
}

// pipe is a way whose output goes into a pipe.
func pipe(name, command string, args ...string) *way {
	return &way{name: name, run: func(ctx context.Context) (cost, error) { return piped(ctx, command, args...) }}
}

func (b *bench) whole() []*task {
	const ours, cat, tar = "promdump, head as it is", "cat", "tar cf -"
	return []*task{{
		name: "1 whole, uncompressed",
		ways: []*way{
			pipe(cat, "cat", b.files...),
			pipe(tar, "tar", "cf", "-", "-C", b.data, "."),
			pipe(ours, b.promdump, b.everything("--head", "raw", "--compression", "none")...),
		},
		judge: func(t *task) []verdict {
			return []verdict{
				atMost(1.1, t.way(ours).ratio(t.way(cat)), "# × cat"),
				atMost(1, t.way(ours).ratio(t.way(tar)), "# × tar cf -"),
				atMost(74, t.way(ours).rss(), "# MiB (1/40 of the first promdump)"),
			}
		},
	}}
}

func (b *bench) compressed() []*task {
	const gz, zst, def, tar = "promdump gzip", "promdump zstd", "promdump gzip, head as blocks (default)", "tar czf -"
	return []*task{{
		name: "2 whole, compressed",
		ways: []*way{
			pipe(tar, "tar", "czf", "-", "-C", b.data, "."),
			pipe(gz, b.promdump, b.everything("--head", "raw", "--compression", "gzip")...),
			pipe(zst, b.promdump, b.everything("--head", "raw", "--compression", "zstd")...),
			pipe(def, b.promdump, b.everything()...),
		},
		judge: func(t *task) []verdict {
			tar := t.way(tar)
			return []verdict{
				atLeast(10, 1/t.way(gz).ratio(tar), "gzip # × as fast as tar czf -"),
				atMost(1.12, t.way(gz).out()/tar.out(), "gzip # × the size of tar czf -"),
				atLeast(12, 1/t.way(zst).ratio(tar), "zstd # × as fast as tar czf -"),
				atMost(1, t.way(zst).out()/tar.out(), "zstd # × the size of tar czf -"),
				atLeast(7.5, 1/t.way(def).ratio(tar), "default # × as fast as tar czf - (15 × the first promdump, which took twice tar's time)"),
				atMost(74, max(t.way(gz).rss(), t.way(zst).rss()), "# MiB (1/40 of the first promdump)"),
			}
		},
	}}
}

func (b *bench) slice() []*task {
	from, to := b.window()
	const tool, ours = "promtool: dump-openmetrics, create-blocks-from", "promdump: dump, restore"
	return []*task{{
		name: "3 30 minutes of all series to a loadable block",
		ways: []*way{
			{name: tool, once: true, run: func(ctx context.Context) (_ cost, err error) {
				text, sandbox := filepath.Join(b.scratch, "slice.om"), filepath.Join(b.scratch, "sandbox")
				defer func() { err = errors.Join(err, os.Remove(text)) }()
				first, err := into(ctx, text, b.promtool, "tsdb", "dump-openmetrics", "--sandbox-dir-root="+sandbox, "--min-time="+ms(from), "--max-time="+ms(to), b.data)
				if err != nil {
					return first, err
				}
				target, err := b.fresh("restored")
				if err != nil {
					return first, err
				}
				second, err := quiet(ctx, b.promtool, "tsdb", "create-blocks-from", "openmetrics", text, target)
				if err != nil {
					return second, err
				}
				second.Out, err = size(target)
				return first.and(second), err
			}},
			{name: ours, run: func(ctx context.Context) (cost, error) {
				file := filepath.Join(b.scratch, "slice.tar")
				first, err := quiet(ctx, b.promdump, b.dump(from, to, "--head", "none", "--force", "-t", file)...)
				if err != nil {
					return first, err
				}
				second, err := b.unpack(ctx, file)
				return first.and(second), err
			}},
		},
		setup: func(context.Context) error { return os.MkdirAll(filepath.Join(b.scratch, "sandbox"), 0o777) },
		judge: func(t *task) []verdict {
			return []verdict{
				atLeast(50, 1/t.way(ours).ratio(t.way(tool)), "# × as fast as promtool"),
				atMost(0.05, t.way(ours).rss()/t.way(tool).rss(), "# × promtool's memory"),
			}
		},
	}}
}

// unpack restores a dump into an empty data dir.
func (b *bench) unpack(ctx context.Context, file string) (cost, error) {
	target, err := b.fresh("restored")
	if err != nil {
		return cost{}, err
	}
	// Our data is of a day long ago.
	c, err := quiet(ctx, b.promdump, "restore", "-q", "-d", target, "-t", file, "--retention", "none")
	if err != nil {
		return c, err
	}
	c.Out, err = size(target)
	return c, err
}

const aNamespace = "namespace-07"

func (b *bench) namespace() []*task {
	match := []string{"--head", "none", "--match", `{namespace="` + aNamespace + `"}`}
	const all, part, allGz, partGz = "whole dump, uncompressed", "one namespace, uncompressed", "whole dump, gzip", "one namespace, gzip"
	const bytes, agent = "pread of the same bytes", "agent"
	return []*task{{
		name: "4 one namespace of 50",
		ways: []*way{
			pipe(allGz, b.promdump, b.everything("--head", "none")...),
			pipe(partGz, b.promdump, b.everything(match...)...),
			pipe(all, b.promdump, b.everything("--head", "none", "--compression", "none")...),
			pipe(part, b.promdump, b.everything(slices.Concat(match, []string{"--compression", "none"})...)...),
		},
		judge: func(t *task) []verdict {
			return []verdict{
				atMost(0.125, t.way(partGz).ratio(t.way(allGz)), "# × the whole dump (gzip)"),
				atMost(0.125, t.way(part).ratio(t.way(all)), "# × the whole dump (uncompressed)"),
			}
		},
	}, {
		name: "4 one namespace of 50, the agent's part",
		ways: []*way{
			b.timed(bytes, b.library, "pread", b.data, aNamespace),
			b.timed(agent, b.agent, "-dir", b.data, "-namespace", aNamespace),
		},
		judge: func(t *task) []verdict {
			return []verdict{atMost(2, t.way(agent).ratio(t.way(bytes)), "# × pread of what is needed")}
		},
	}}
}

// timed is a way in one of our helpers, which says how long the work itself took.
func (b *bench) timed(name, command string, args ...string) *way {
	return &way{name: name, run: func(ctx context.Context) (cost, error) {
		c, _, err := helper(ctx, command, args...)
		return c, err
	}}
}
