package cli

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/prometheus/prometheus/promql/parser"
	"github.com/spf13/pflag"

	"github.com/promdump/promdump/internal/archive"
	"github.com/promdump/promdump/internal/query"
	"github.com/promdump/promdump/internal/term"
	"github.com/promdump/promdump/internal/view"
)

// exportFlags are the flags of open that write samples, as typed.
type exportFlags struct {
	format, file string
	force        bool
}

// exportConfig is what they mean.
type exportConfig struct {
	format query.Format
	file   string // "-": stdout
	force  bool
}

func (f *exportFlags) add(fs *pflag.FlagSet) {
	fs.StringVar(&f.format, "export", "", "Write the samples as `openmetrics|csv|parquet` and serve nothing")
	fs.StringVarP(&f.file, "to", "t", "", "Path to the `file` to write the samples to, or - for stdout; "+
		"the file appears when it is complete (default -)")
	addForceFlag(fs, &f.force)
}

func (f exportFlags) compile() (*exportConfig, error) {
	if f.format == "" {
		if f.file != "" {
			return nil, usagef("--export openmetrics|csv|parquet", "-t is for --export")
		}
		if f.force {
			return nil, usagef("--export openmetrics|csv|parquet", "--force is for --export")
		}
		return nil, nil
	}
	c := &exportConfig{format: query.Format(f.format), file: f.file, force: f.force}
	if c.file == "" {
		c.file = "-"
	}
	switch c.format {
	case query.OpenMetrics, query.CSV, query.Parquet:
		return c, nil
	}
	return nil, usagef("openmetrics, csv or parquet", "--export %q is not known", f.format)
}

func (a *app) runExport(ctx context.Context, c openConfig) (err error) {
	if c.export.file != "-" || c.export.format == query.Parquet {
		if c.export.file == "-" && term.IsTerminal(a.Out) {
			return usagef("name a file with -t samples.parquet, or send stdout to a file or a pipe", "Parquet is binary and stdout is a terminal")
		}
		if err := a.checkOutput(c.export.file, c.export.force); err != nil {
			return err
		}
	}
	x := query.Export{Format: c.export.format, MinTime: math.MinInt64, MaxTime: math.MaxInt64}
	for _, s := range c.view.selectors {
		list, err := parser.NewParser(parser.Options{}).ParseMetricSelector(s)
		if err != nil {
			return usagef("", "--match %s: %w", s, err)
		}
		x.Matchers = append(x.Matchers, list)
	}
	begin := time.Now()
	v, err := a.openView(ctx, c.view)
	if err != nil {
		return err
	}
	hangs := false
	defer func() {
		if hangs { // what reads the blocks still does, into a pipe that nobody reads
			err = errors.Join(err, v.Abandon())
			return
		}
		err = errors.Join(err, v.Close())
	}()
	// What a killed export has left is of no use.
	if err := a.checkDumpLeft(c.export.file, c.export.force); err != nil && !errors.Is(err, archive.ErrNotDump) {
		return err
	}
	out, err := a.openOutput(c.export.file, "", c.export.force)
	if err != nil {
		return err
	}
	type result struct {
		query.Exported
		hangs bool
	}
	done, err := orGiveUp(ctx, result{hangs: true}, func() (result, error) {
		done, err := x.Write(ctx, v, out)
		return result{Exported: done}, err
	})
	hangs = done.hangs
	if err == nil && done.Samples == 0 {
		err = nothingExported(v, c.view)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("export: %w", err), out.abort())
	}
	if err := out.commit(); err != nil {
		return err
	}
	a.notes(leftOut(done.Exported, c.export.format))
	a.summary("exported %s of %s in %s → %s", term.Counted(done.Samples, "sample", "samples"), term.Counted(done.Series, "series", "series"),
		term.Duration(time.Since(begin)), out.name)
	return nil
}

func nothingExported(v *view.View, c viewConfig) error {
	if v.Empty() {
		return errors.New("nothing is selected: there is no sample in it")
	}
	if len(c.selectors) > 0 {
		return hinted(fmt.Errorf("nothing is selected: the dump has samples from %s to %s, and no series of them matches %s",
			term.Time(v.MinTime), term.Time(v.MaxTime), strings.Join(c.selectors, " or ")),
			"omit --match to export all series")
	}
	return fmt.Errorf("nothing is selected: the dump has no sample from %s to %s",
		term.Time(v.MinTime), term.Time(v.MaxTime))
}

// leftOut says what is not in the file, and why.
func leftOut(x query.Exported, format query.Format) (notes []string) {
	if x.NoHistograms > 0 {
		notes = append(notes, fmt.Sprintf("%s of native histograms are left out, %s has none: csv and parquet have them", term.Counted(x.NoHistograms, "sample", "samples"), format))
	}
	if x.NoName > 0 {
		notes = append(notes, fmt.Sprintf("%s of series without a name are left out, %s cannot hold them", term.Counted(x.NoName, "sample", "samples"), format))
	}
	if x.Stale > 0 {
		notes = append(notes, fmt.Sprintf("%s are left out: they say that a series ended, and are no values", term.Counted(x.Stale, "staleness mark", "staleness marks")))
	}
	return notes
}
