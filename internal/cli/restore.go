package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/promdump/promdump/internal/block"
	"github.com/promdump/promdump/internal/restore"
	"github.com/promdump/promdump/internal/term"
)

// restoreFlags are the restore command's flags as typed.
type restoreFlags struct {
	dir, file, tempDir           string
	dryRun, replace, yes         bool
	restart, noWait              bool // of a remote target
	wait, waitTimeout, retention string
	ignoreRetention, ignoreSpace bool
	allowUpload                  bool
	remote                       RemoteFlags // how the server at wait is asked
}

// restoreConfig is what they mean.
type restoreConfig struct {
	spec   restore.Spec // without its reader, logger and progress
	file   string       // "-": stdin
	dryRun bool
	yes    bool

	restart, wait bool // of a remote target
}

// take sets the dump file from an argument, as in other commands.
func (f *restoreFlags) take(args []string) error {
	switch {
	case len(args) == 0:
		return nil
	case f.file != "" && f.file != args[0]:
		return usagef("name one of them", "two dump files are given, %s and %s", f.file, args[0])
	}
	f.file = args[0]
	return nil
}

func (f restoreFlags) compile() (restoreConfig, error) {
	c := restoreConfig{file: f.file, dryRun: f.dryRun, yes: f.yes, restart: f.restart}
	switch {
	case f.dir == "":
		return c, usagef("-d DIR names the data dir to restore into", "no data dir is given")
	case f.file == "":
		return c, usagef("-t FILE names it, -t - is stdin", "no dump file is given")
	case f.replace && f.wait != "":
		return c, usagef("stop the server, restore with --replace, start it again", "--replace needs a stopped server, so there is none to --wait for")
	case f.restart && !f.replace:
		return c, usagef("blocks that are put beside a server's own are served without one", "--restart is for --replace, which is not given")
	case f.restart && f.noWait:
		return c, usagef("", "--restart waits until the server serves what was restored, so it cannot be had with --no-wait")
	case f.yes && !f.replace:
		return c, usagef("", "--yes answers --replace, which is not given")
	case f.waitTimeout != "" && f.wait == "":
		return c, usagef("--wait URL names the server", "--wait-timeout needs --wait")
	case f.remote.Given() && f.wait == "":
		return c, usagef("--wait URL names the server", "flags for a server are given, and no --wait")
	}
	c.spec = restore.Spec{
		Dir: f.dir, Staging: f.tempDir, Replace: f.replace, IgnoreRetention: f.ignoreRetention,
		IgnoreSpace: f.ignoreSpace, AllowUpload: f.allowUpload, WaitURL: f.wait,
	}
	var err error
	if f.remote.Given() {
		conf, err := f.remote.Compile()
		if err != nil {
			return c, err
		}
		if c.spec.Client, err = conf.Client(); err != nil {
			return c, err
		}
	}
	if f.waitTimeout != "" {
		if c.spec.WaitTimeout, err = typedDuration("--wait-timeout", f.waitTimeout); err != nil {
			return c, err
		}
	}
	switch f.retention {
	case "":
	case "none":
		c.spec.Retention = -1
	default:
		if c.spec.Retention, err = typedDuration("--retention", f.retention); err != nil {
			return c, err
		}
	}
	return c, nil
}

func (a *app) restoreCommand() *cobra.Command {
	var f restoreFlags
	cmd := &cobra.Command{
		Use:   "restore [FILE]",
		Short: "Add a dump's blocks to a data directory",
		Long: `Add a dump's blocks to a data directory. promdump unpacks and
verifies all blocks before the first one appears. A running Prometheus serves them
within a minute, without a restart. Blocks that are there already are skipped, so a
restore can be repeated.

--replace replaces everything in the data directory with the dump. The server must be
stopped for that.`,
		Example: `  promdump restore -d /prometheus -t dump.tar.gz --dry-run
  promdump restore -d /prometheus -t dump.tar.gz --wait http://localhost:9090`,
		Args: cobra.MaximumNArgs(1),
		RunE: a.run(func(ctx context.Context, args []string) error {
			if err := f.take(args); err != nil {
				return err
			}
			c, err := f.compile()
			if err != nil {
				return err
			}
			return a.runRestore(ctx, c)
		}),
	}
	fs := cmd.Flags()
	fs.SortFlags = false
	fs.StringVarP(&f.dir, "data-dir", "d", "", "Path to the data `dir`ectory to restore into; "+
		"it is created if its parent exists")
	fs.StringVarP(&f.file, "dump-file", "t", "",
		"Path to the dump `file`, or - for stdin; can be given as an argument instead")
	fs.BoolVar(&f.dryRun, "dry-run", false, "If true, unpack and verify the dump and print what would be done, "+
		"but leave the contents of the data directory unchanged")
	fs.BoolVar(&f.replace, "replace", false, "If true, replace the contents of the data directory with the dump")
	fs.BoolVar(&f.yes, "yes", false, "If true, do not ask for confirmation before --replace removes anything")
	fs.StringVar(&f.wait, "wait", "",
		"`URL` of the server on the data directory; restore waits until it serves the blocks")
	fs.StringVar(&f.waitTimeout, "wait-timeout", "", "Maximum `duration` of --wait (default 3m)")
	f.remote.AddWhoFlags(fs, "")
	fs.StringVar(&f.retention, "retention", "", "Retention of the server, a `duration` or none "+
		"(default: as the server at --wait reports it, otherwise 15d)")
	fs.BoolVar(&f.ignoreRetention, "ignore-retention", false,
		"If true, restore blocks that the server's retention deletes at once")
	fs.BoolVar(&f.ignoreSpace, "ignore-space", false, "If true, restore even if too little free space remains on the disk")
	fs.BoolVar(&f.allowUpload, "allow-upload", false, "If true, restore even if a Thanos sidecar will upload the blocks")
	fs.StringVar(&f.tempDir, "temp-dir", "", "Path to the `dir`ectory to unpack the dump in "+
		"(default: inside the data directory, so that blocks are not copied again)")
	return cmd
}

// mayAsk refuses a --replace that nobody has agreed to and nobody can.
func (a *app) mayAsk(c restoreConfig, dir string) error {
	if c.spec.Replace && !c.yes && !c.dryRun && !a.canAsk(c.file) {
		return usagef("--yes if that is meant, --dry-run to see what would go", "--replace removes what %s holds, and there is nobody to ask", dir)
	}
	return nil
}

// agree asks before something is removed from the target with that name.
func (a *app) agree(ctx context.Context, c restoreConfig, p *restore.Prepared, name string) error {
	if len(p.Replaced) == 0 || len(p.Refusals) > 0 || c.yes {
		return nil
	}
	return a.ask(ctx, fmt.Sprintf("%s of %s will be removed. Go on? [y/N] ", strings.Join(p.Replaced, ", "), name))
}

func (a *app) runRestore(ctx context.Context, c restoreConfig) (err error) {
	if err := a.mayAsk(c, c.spec.Dir); err != nil {
		return err
	}
	begin := a.Now()
	in, shown, err := a.openDump(ctx, c.file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	p, done, err := a.prepare(ctx, c, in)
	if _, refused := errors.AsType[*restore.RequestError](err); refused {
		return hinted(err, "how it wants to be asked: by http:// or https://; --basic-auth-user with --basic-auth-password-file, --bearer-token-file or --header; --tls-ca-file with --tls-server-name")
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	if c.dryRun {
		return printRestore(a.Out, p, p.Target.Dir)
	}
	if err := a.agree(ctx, c, p, p.Target.Dir); err != nil {
		return err
	}
	report, err := p.Run(ctx)
	if err != nil {
		if report != nil && len(report.Added) > 0 {
			err = fmt.Errorf("%w (%s are in place already, whole; the same command goes on)", err, term.Counted(len(report.Added), "block", "blocks"))
		}
		return err
	}
	a.restored(report, shown, p.Target.Dir, a.Now().Sub(begin))
	return nil
}

// restored prints the summary.
func (a *app) restored(r *restore.Report, from, to string, took time.Duration) {
	var series, samples uint64
	distinct := block.NewSeriesCounter()
	for _, b := range r.Added {
		series += b.Series
		samples += b.Samples
		if err := distinct.Block(b.Dir, b.Series); err != nil {
			a.logger().Debug("series cannot be counted", "block", b.ULID, "error", err)
		}
	}
	more := ""
	if r.Head == restore.HeadRaw {
		more += ", the head's files"
	}
	if n := len(r.Skipped); n > 0 {
		more += ", " + term.Counted(n, "block was", "blocks were") + " there already"
	}
	if r.Served {
		more += ", the server serves them"
	}
	a.summary("restored %s, %s, %s%s, %s in %s: %s → %s",
		term.Counted(len(r.Added), "block", "blocks"), distinctOf(distinct, series, len(r.Added)),
		term.Counted(samples, "sample", "samples"),
		more, term.Bytes(r.Bytes), term.Duration(took), from, to)
}

// canAsk tells whether somebody sees a question and can answer it.
func (a *app) canAsk(file string) bool {
	return file != "-" && term.IsTerminal(a.In) && term.IsTerminal(a.Err)
}

func (a *app) ask(ctx context.Context, question string) error {
	fmt.Fprint(a.Err, term.Printable(question))
	answer, err := bufio.NewReader(newInterruptible(ctx, a.In)).ReadString('\n')
	if err != nil && err != io.EOF {
		return fmt.Errorf("read the answer: %w", err)
	}
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return nil
	}
	return errors.New("nothing was changed: the answer was not yes")
}

// printRestore is what --dry-run prints. What speaks against the restore is an
// error of the restore itself, not of looking.
func printRestore(w io.Writer, p *restore.Prepared, name string) error {
	t := p.Target
	state := fmt.Sprintf("%s, head of %s", term.Counted(len(t.Blocks), "block", "blocks"), term.Bytes(t.HeadBytes))
	switch {
	case !t.Exists:
		state = "does not exist, will be made"
	case t.Empty():
		state = "empty"
	}
	if t.Live {
		state += ", a server runs on it"
	}
	facts := []term.Fact{{Name: "Target:", Value: name}, {Name: "Holds:", Value: state}}
	if t.Free >= 0 {
		facts = append(facts, term.Fact{Name: "Free space:", Value: term.Bytes(t.Free)})
	}
	facts = append(facts, term.Fact{Name: "To publish:", Value: term.Bytes(p.Bytes)})
	if len(p.Replaced) > 0 {
		facts = append(facts, term.Fact{Name: "To remove:", Value: strings.Join(p.Replaced, ", ")})
	}
	switch p.Head {
	case restore.HeadRaw:
		facts = append(facts, term.Fact{Name: "Head:", Value: "its files are put in place as they are"})
	case restore.HeadBlocks:
		facts = append(facts, term.Fact{Name: "Head:", Value: "becomes blocks"})
	}
	if err := term.Facts(w, "Restore", facts); err != nil {
		return err
	}
	var rows [][]string
	for _, b := range p.Blocks {
		rows = append(rows, []string{
			b.ULID, term.Time(b.MinTime.UnixMilli()), term.Time(b.MaxTime.UnixMilli()), string(b.Action),
			term.Bytes(b.Bytes), term.Count(b.Series), term.Count(b.Samples), b.Reason,
		})
	}
	if len(rows) > 0 {
		fmt.Fprintln(w)
		columns := []term.Column{
			{Name: "BLOCK"}, {Name: "FROM"}, {Name: "UNTIL"}, {Name: "ACTION"}, {Name: "SIZE", Right: true},
			{Name: "SERIES", Right: true}, {Name: "SAMPLES", Right: true}, {Name: "REASON"},
		}
		if err := term.Table(w, columns, rows); err != nil {
			return err
		}
	}
	for _, r := range p.Refusals {
		line := "\nWill be refused: " + r.Reason
		if flag := refusals[r.Kind].flag; flag != "" {
			line += " (to go on all the same: " + flag + ")"
		}
		if _, err := fmt.Fprintln(w, term.Printable(line)); err != nil {
			return err
		}
	}
	return nil
}
