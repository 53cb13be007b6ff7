package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/promdump/promdump/internal/archive"
	"github.com/promdump/promdump/internal/dump"
	"github.com/promdump/promdump/internal/term"
	"github.com/promdump/promdump/internal/wire"
)

// dumpFlags are the dump command's flags as typed.
type dumpFlags struct {
	span        spanFlags
	match       []string
	head        string
	wholeBlocks bool
	compression string
	file        string
	tempDir     string
	dryRun      bool
	resume      bool
	force       bool
	strict      bool
}

// dumpConfig is what they mean.
type dumpConfig struct {
	request     wire.Request
	selectors   []string
	compression archive.Compression
	file        string // "-": stdout
	tempDir     string // empty: the system's
	dryRun      bool
	resume      bool
	force       bool // replace an existing file
	strict      bool // end with an error if data could not be read
	given       func(flag string) bool
	kept        *dump.Kept // with resume
	now         time.Time
}

func (f dumpFlags) compile(now time.Time) (dumpConfig, error) {
	c := dumpConfig{
		selectors: f.match, file: f.file, tempDir: f.tempDir, dryRun: f.dryRun,
		resume: f.resume, force: f.force, strict: f.strict, now: now,
	}
	if f.resume && (f.dryRun || f.file == "-" || f.file == "" || f.span != (spanFlags{}) || len(f.match) > 0) {
		return c, usagef("--resume -t FILE alone: what was asked for stands in FILE.partial", "--resume takes -t FILE, and neither times nor --match nor --dry-run")
	}
	s, err := f.span.compile(now)
	if err != nil {
		return c, err
	}
	matchers, err := compileMatch(f.match)
	if err != nil {
		return c, err
	}
	head := wire.HeadMode(f.head)
	switch head {
	case wire.HeadBlock, wire.HeadRaw, wire.HeadNone:
	default:
		return c, usagef("block makes blocks of the head, raw takes its files, none leaves it out", "--head %q is not block, raw or none", f.head)
	}
	if f.file == "" {
		return c, usagef("name a file, or - for stdout", "-t is empty")
	}
	if c.compression = compressionOf(f.file); f.compression != "" {
		if c.compression, err = archive.ParseCompression(f.compression); err != nil {
			return c, &usageError{err: fmt.Errorf("--compression: %w", err)}
		}
	}
	c.request = wire.Request{
		Version:     wire.Version,
		Selection:   wire.Selection{MinTime: s.minMs, MaxTime: s.maxMs, Matchers: matchers},
		Head:        head,
		WholeBlocks: f.wholeBlocks,
	}
	return c, nil
}

func (a *app) dumpCommand() *cobra.Command {
	var f dumpFlags
	var given func(flag string) bool
	cmd := &cobra.Command{
		Use:   "dump",
		Short: "Write a time range of a Prometheus into a dump file",
		Long: `Write the samples of a time range, of all series or of those that --match selects,
into one verified file. The data directory is only read, and may belong to a running
Prometheus.

Blocks inside the range are copied byte for byte; other blocks are cut to the range.
Samples that are not in a block yet (the head) become blocks too; see --head. A block
that Prometheus cannot load is left out, and a note names it; with --strict the exit
code is then 4.

By remote read, promdump reads a running server instead of its data directory: the
server sends the selected chunks of its blocks and its head as it stores them, in
windows of two hours. promdump removes the server's external labels from the series.

Both ends of the range are included, to the millisecond. A time is
"2021-04-01 10:00:00" (UTC), a date (its midnight), RFC 3339 with any zone, Unix
seconds, Unix milliseconds (from 100000000000 on), or now. The default is the last
hour; with --max-time alone, the hour that ends there; with --min-time alone,
everything from there to now. --min-time 0 selects everything until now.`,
		Example: `  promdump dump -d /prometheus --since 2h -t dump.tar.gz
  promdump dump -d /prometheus --around "2021-04-01 10:00:00" --window 30m --match '{namespace="shop"}' -t dump.tar.zst
  promdump dump -d /prometheus --min-time 2021-04-01 --max-time 2021-04-02 --dry-run`,
		Args: noArgs,
		RunE: a.run(func(ctx context.Context, _ []string) error {
			if err := a.Data.Missing(); err != nil {
				return err
			}
			c, err := f.compile(a.Now())
			if err != nil {
				return err
			}
			c.given = given
			return a.runDump(ctx, c)
		}),
	}
	fs := cmd.Flags()
	fs.SortFlags = false
	given = fs.Changed
	a.Data.AddFlags(fs)
	f.span.add(fs)
	fs.StringArrayVar(&f.match, "match", nil, "PromQL `selector` of the series to dump; can be repeated, "+
		"and selects each series that matches any of them")
	fs.StringVar(&f.head, "head", string(wire.HeadBlock), "How to dump the head: `block|raw|none`; "+
		"block makes blocks of the selected samples, raw copies the files of the whole head, none leaves the head out")
	fs.BoolVar(&f.wholeBlocks, "whole-blocks", false,
		"If true, copy blocks that overlap the range unchanged, regardless of --match")
	fs.StringVar(&f.compression, "compression", "", "Compression of the dump file: `gzip|zstd|none` "+
		"(default: by the extension .tar.gz, .tar.zst or .tar, otherwise gzip)")
	fs.StringVarP(&f.file, "dump-file", "t", "-",
		"Path to the `file` to write, or - for stdout; the file appears when it is complete")
	fs.StringVar(&f.tempDir, "temp-dir", "", "Path to the `dir`ectory for temporary files: "+
		"cut blocks, and blocks made of the head (default: the system's)")
	fs.BoolVar(&f.strict, "strict", false, "If true, exit with 4 if the dump lacks data that could not be read, "+
		"such as a block that Prometheus cannot load; the dump is still written")
	fs.BoolVar(&f.dryRun, "dry-run", false, "If true, print what would be dumped and write nothing")
	addForceFlag(fs, &f.force)
	fs.BoolVar(&f.resume, "resume", false, "If true, resume the interrupted dump in FILE.partial, "+
		"with the selection of that dump; the source must be the same")
	return cmd
}

func (a *app) runDump(ctx context.Context, c dumpConfig) (err error) {
	var out *output
	if !c.dryRun {
		if err := a.checkOutput(c.file, c.force); err != nil {
			return err
		}
		if c.resume {
			if out, err = a.openResumed(&c); err != nil {
				return err
			}
			defer func() { err = errors.Join(err, out.release()) }()
		} else if err := a.checkPartial(c.file, c.force); err != nil {
			return err
		}
	}
	from, err := a.Data.Open(ctx, a.asked(c.tempDir))
	if err != nil {
		return err
	}
	a.notes(from.Notes)
	if c.dryRun {
		return a.dryRun(ctx, from, c)
	}
	temp := c.tempDir
	if temp == "" {
		temp = os.TempDir()
	}
	if err := outside(from.Dir, temp, "--temp-dir names a place outside of the data dir"); err != nil {
		return err
	}
	if out == nil {
		if out, err = a.openOutput(c.file, from.Dir, c.force); err != nil {
			return err
		}
	} else if err := outside(from.Dir, filepath.Dir(out.final), "-t names a file outside of the data dir"); err != nil {
		return err
	}
	report, err := a.writeDump(ctx, from, c, temp, out)
	if err != nil {
		return a.dumpFailed(ctx, err, report, out, from.kind(), emptiness{c.request, c.selectors})
	}
	if err := out.commit(); err != nil {
		if out.stream() {
			return incompleteOutput(err, out.name)
		}
		return err
	}
	a.dumped(c, report, out)
	if from.After != nil {
		if err := from.After(ctx); err != nil {
			return complete(err, out.name)
		}
	}
	if c.strict {
		return report.Loss()
	}
	return nil
}

func (a *app) dryRun(ctx context.Context, from Opened, c dumpConfig) error {
	plan, err := dump.ReadPlan(ctx, from.Source, c.request)
	if err != nil {
		return err
	}
	a.leftOut(plan.LeftOut)
	a.notes(plan.Notes)
	a.notes(dump.DamageNotes(plan.Head.Damage, 0, plan.Head.Mode == wire.HeadRaw))
	if err := printPlan(a.Out, plan, c); err != nil || !c.strict {
		return err
	}
	return dump.Report{Plan: plan}.Loss()
}

// writeDump reads the source and writes the dump to out, with temporary files in temp.
func (a *app) writeDump(ctx context.Context, from Opened, c dumpConfig, temp string, out *output) (report dump.Report, err error) {
	err = withTemp(temp, func(staging string) error {
		progress := a.progress("reading")
		defer progress.Done()
		spec := dump.Spec{
			Request: c.request, Source: archive.Source{Kind: from.Kind, Name: from.Source.String()},
			Selectors: c.selectors, Compression: c.compression, Staging: staging,
			Tool: "promdump " + version(), Now: c.now, Logger: a.logger(),
			Lasting: !out.stream(), Kept: c.kept,
			Progress: func(p dump.Progress) {
				tail := term.Bytes(p.Written) + " written"
				if from.kind() == remoteKind {
					tail = fmt.Sprintf("%d of %s, %s", p.Part, term.Counted(p.Parts, "window", "windows"), tail)
				}
				progress.Set(p.Read, p.Total, tail)
			},
		}
		report, err = orGiveUp(ctx, dump.Report{BytesWritten: 1}, func() (dump.Report, error) {
			return dump.Write(ctx, from.Source, spec, out.writer())
		})
		return err
	})
	return report, err
}

// dumped says what was dumped.
func (a *app) dumped(c dumpConfig, report dump.Report, out *output) {
	a.leftOut(report.Plan.LeftOut)
	a.notes(report.Notes())
	if report.RawHead && len(report.Plan.Head.Damage) > 0 {
		a.notes([]string{"with --head block, which is the default, a dump has all that can be read of a damaged head"})
	}
	raw := ""
	if report.RawHead {
		raw = ", the head's files"
	}
	a.resumed(c, report)
	a.summary("dumped %s, %s, %s%s, %s in %s → %s",
		term.Counted(report.Blocks, "block", "blocks"), seriesOf(report.Series, report.SeriesSummed, report.Blocks),
		term.Counted(report.Samples, "sample", "samples"), raw, term.Bytes(report.BytesWritten), term.Duration(report.Elapsed), out.name)
}

// complete reports a dump that is complete although something happened to its server. The
// exit code is not that of an incomplete one.
func complete(err error, name string) error {
	return &codedError{Failed, hinted(fmt.Errorf("%w; the dump in %s is complete", err, name), "%s", hintOf(err))}
}

// seriesOf formats the number of distinct series, or a sum over blocks, marked as such.
func seriesOf(n uint64, summed bool, blocks int) string {
	if summed && blocks > 1 {
		return fmt.Sprintf("%s (summed over %s blocks)", term.Counted(n, "series", "series"), term.Count(blocks))
	}
	return term.Counted(n, "series", "series")
}

// patience is how long a write may hang after an interrupt before we end
// without it. A pipe that nobody reads hangs for ever.
const patience = 2 * time.Second

// orGiveUp gives givenUp when f does not end in spite of ctx.
func orGiveUp[R any](ctx context.Context, givenUp R, f func() (R, error)) (R, error) {
	type result struct {
		report R
		err    error
	}
	done := make(chan result, 1)
	go func() {
		report, err := f()
		done <- result{report, err}
	}()
	select {
	case r := <-done:
		return r.report, r.err
	case <-ctx.Done():
	}
	select {
	case r := <-done:
		return r.report, r.err
	case <-time.After(patience):
		return givenUp, ctx.Err()
	}
}

func incompleteOutput(err error, name string) error {
	return &codedError{Incomplete, hinted(fmt.Errorf("the dump on %s is incomplete: %w", name, err), "throw away what was written; promdump verify tells")}
}

func (a *app) dumpFailed(ctx context.Context, err error, report dump.Report, out *output, kind string, asked emptiness) error {
	if empty, ok := errors.AsType[*dump.EmptyError](err); ok {
		return errors.Join(a.explainEmpty(empty, kind, asked), out.abort())
	}
	if out.stream() {
		if report.BytesWritten > 0 {
			err = incompleteOutput(err, out.name)
		}
		return errors.Join(err, out.abort())
	}
	if out.resume && !out.began && codeOf(err) != Incomplete {
		return errors.Join(err, out.abort()) // as if it had not been resumed
	}
	// Ctrl-C takes back what this command has begun.
	if ctx.Err() == nil && (out.resume || out.began && report.BytesWritten > 0) {
		return errors.Join(unfinished(err, out, missing(report)), out.keep())
	}
	return errors.Join(err, out.abort())
}
