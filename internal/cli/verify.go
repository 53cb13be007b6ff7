package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/promdump/promdump/internal/archive"
	"github.com/promdump/promdump/internal/block"
	"github.com/promdump/promdump/internal/datadir"
	"github.com/promdump/promdump/internal/dump"
	"github.com/promdump/promdump/internal/term"
	"github.com/promdump/promdump/internal/wire"
)

// verifyFlags are the verify command's flags as typed.
type verifyFlags struct{ tempDir string }

// verifyConfig is what they mean.
type verifyConfig struct {
	file    string // "-": stdin
	tempDir string
}

func (f verifyFlags) compile(args []string) (verifyConfig, error) {
	if len(args) != 1 {
		return verifyConfig{}, usagef("promdump verify dump.tar.gz", "one dump file must be named")
	}
	return verifyConfig{file: args[0], tempDir: f.tempDir}, nil
}

func (a *app) verifyCommand() *cobra.Command {
	var f verifyFlags
	cmd := &cobra.Command{
		Use:   "verify FILE",
		Short: "Check that a dump file is complete and that Prometheus can read all of it",
		Long: `Check a dump file (FILE, or - for stdin): that it is complete, that all checksums
match, that Prometheus can read every block down to its samples, and that the logs of
a raw head can be read to their end.

Each error is listed on stdout with its place. What is odd, but Prometheus serves it,
is listed on stderr as a warning and changes neither the result nor the exit code.
promdump unpacks the dump into a temporary directory for this.`,
		Example: "  promdump verify dump.tar.gz",
		RunE: a.run(func(ctx context.Context, args []string) error {
			c, err := f.compile(args)
			if err != nil {
				return err
			}
			return a.runVerify(ctx, c)
		}),
	}
	cmd.Flags().StringVar(&f.tempDir, "temp-dir", "",
		"Path to the `dir`ectory to unpack the dump in (default: the system's)")
	return cmd
}

func (a *app) runVerify(ctx context.Context, c verifyConfig) (err error) {
	in, shown, err := a.openDump(ctx, c.file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	return withTemp(c.tempDir, func(dir string) error {
		v := &verification{app: a, shown: shown, series: block.NewSeriesCounter()}
		if err := v.unpack(ctx, in, dir); err != nil {
			return err
		}
		if err := v.dir(ctx, dir); err != nil {
			return err
		}
		if v.findings > 0 {
			return &codedError{Unverified,
				fmt.Errorf("%s is not valid: %s", shown, term.Counted(v.findings, "finding", "findings"))}
		}
		if a.quiet {
			return nil
		}
		_, err := fmt.Fprintf(a.Out, "%s is complete and valid: %s, %s, %s%s\n", term.Printable(shown),
			term.Counted(v.blocks, "block", "blocks"), distinctOf(v.series, v.stats.Series, v.blocks),
			term.Counted(v.stats.Samples, "sample", "samples"), v.rest())
		return err
	})
}

type verification struct {
	*app
	shown    string
	findings int
	blocks   int
	stats    block.Stats
	series   *block.SeriesCounter
	records  uint64
	raw      bool
}

// distinctOf formats the number of distinct series of a counter, or else the sum over
// the blocks.
func distinctOf(c *block.SeriesCounter, sum uint64, blocks int) string {
	n, exact := c.Count()
	if !exact {
		n = sum
	}
	return seriesOf(n, !exact, blocks)
}

func (v *verification) rest() string {
	s := ""
	if v.raw {
		s += ", and a raw head of " + term.Counted(v.records, "record", "records")
	}
	if v.stats.Unknown > 0 {
		s += fmt.Sprintf(" (%s of an encoding that this promdump does not know were not decoded)",
			term.Counted(v.stats.Unknown, "chunk", "chunks"))
	}
	return s
}

func (v *verification) found(place, problem string) {
	v.findings++
	fmt.Fprintln(v.Out, term.Printable(place+": "+problem))
}

// block reports a finding of a block. An odd finding is a warning.
func (v *verification) block(f block.Finding) {
	if f.Level != block.Odd {
		v.found(f.Block+": "+f.Place, f.Problem)
		v.findings += block.Count([]block.Finding{f}) - 1
		return
	}
	if !v.quiet {
		v.Talk("warning: %s: %s (odd, but Prometheus serves it)",
			term.Printable(f.Block+": "+f.Place), term.Printable(f.Problem))
	}
}

func (v *verification) unpack(ctx context.Context, in io.Reader, dir string) error {
	progress := v.progress("unpacking")
	defer progress.Done()
	total := int64(0)
	if f, ok := in.(*os.File); ok {
		if st, err := f.Stat(); err == nil && st.Mode().IsRegular() {
			total = st.Size()
		}
	}
	r := &counting{ctx: ctx, r: in, tell: func(n int64) { progress.Set(n, total, "") }}
	m, _, err := archive.Extract(ctx, r, dir, nil)
	if err == nil {
		v.notes(dumpNotes(m))
		return nil
	}
	// A dump that is damaged in several places has an error for each.
	for _, damage := range damages(err) {
		place := damage.Entry
		if place == "" {
			place = v.shown
		}
		v.found(place, damage.Reason)
	}
	return fmt.Errorf("verify %s: %w", v.shown, err)
}

func damages(err error) []*archive.DamageError {
	var many interface{ Unwrap() []error }
	if errors.As(err, &many) {
		var all []*archive.DamageError
		for _, e := range many.Unwrap() {
			all = append(all, damages(e)...)
		}
		return all
	}
	if d, ok := errors.AsType[*archive.DamageError](err); ok {
		return []*archive.DamageError{d}
	}
	return nil
}

func (v *verification) dir(ctx context.Context, dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("list the unpacked dump: %w", err)
	}
	for _, e := range entries {
		switch e.Name() {
		case "wal", "wbl":
			v.raw = true
			continue
		case "chunks_head":
			continue
		}
		v.blocks++
		stats, err := block.Verify(ctx, filepath.Join(dir, e.Name()), v.block)
		if err != nil {
			return err
		}
		if err := v.series.Block(filepath.Join(dir, e.Name()), stats.Series); err != nil {
			v.logger().Debug("series cannot be counted", "block", e.Name(), "error", err)
		}
		v.stats.Series += stats.Series
		v.stats.Samples += stats.Samples
		v.stats.Chunks += stats.Chunks
		v.stats.Unknown += stats.Unknown
	}
	if !v.raw {
		return nil
	}
	return v.rawHead(ctx, dir)
}

// rawHead reads the whole head. Damage that keeps a server from starting is a finding;
// damage that it repairs is a note.
func (v *verification) rawHead(ctx context.Context, dir string) (err error) {
	d, err := datadir.Open(ctx, dir, datadir.Options{
		Head: datadir.RawHead, Wanted: func(datadir.Meta) bool { return false }, Logger: v.logger(),
	})
	if err != nil {
		if ctx.Err() != nil {
			return err
		}
		v.found("head", strings.TrimPrefix(err.Error(), dir+"/"))
		return nil
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	var repairs []wire.HeadDamage
	for _, damage := range d.Head.Damage() {
		if damage.Fatal {
			v.found(damage.File, damage.Err.Error()+"; Prometheus does not start on it")
			continue
		}
		repairs = append(repairs, wire.HeadDamage{
			File: damage.File, Offset: damage.Offset, Bytes: damage.Bytes, Reason: damage.Err.Error(),
		})
	}
	v.notes(dump.DamageNotes(repairs, 0, true))
	ignore := func(datadir.Damage) {} // it was reported above
	for _, records := range []iter.Seq2[[]byte, error]{d.Head.Records(ctx, ignore), d.Head.OutOfOrderRecords(ctx, ignore)} {
		for _, err := range records {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil {
				return fmt.Errorf("verify the head's logs: %w", err)
			}
			v.records++
		}
	}
	for _, files := range [][]*datadir.File{d.Head.WAL, d.Head.WBL, d.Head.Chunks} {
		for _, f := range files {
			fi, err := os.Stat(filepath.Join(dir, filepath.FromSlash(f.Name)))
			if err != nil {
				return fmt.Errorf("verify the head's files: %w", err)
			}
			if fi.Size() > f.Size {
				v.notes([]string{fmt.Sprintf("%s: %d bytes behind its last record, at byte %d; Prometheus will drop them when it starts",
					f.Name, fi.Size()-f.Size, f.Size)})
			}
		}
	}
	return nil
}
