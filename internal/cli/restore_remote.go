package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/promdump/promdump/internal/restore"
	"github.com/promdump/promdump/internal/term"
	"github.com/promdump/promdump/internal/wire"
)

// RemoteTarget finds a data directory in a container that a dump is restored into.
type RemoteTarget interface {
	AddFlags(*pflag.FlagSet)
	Find(ctx context.Context, asked Asked) (FoundTarget, error)
}

// FoundTarget is what a [RemoteTarget] has found.
type FoundTarget struct {
	Remote
	Name      string        // for a person
	Retention time.Duration // of its server; 0: not known, negative: nothing is deleted by its age
	Version   string        // of its server; empty: not known
	Notes     []string
}

// Remote is a data directory in a container, with a server at work on it. It is for one
// restore. A replacement leaves what was there aside, until Discard.
type Remote interface {
	restore.Target

	// MayReplace returns what speaks against a replacement. If refused is false, that is
	// not known: the question failed.
	MayReplace(ctx context.Context, restart bool) (refused bool, err error)

	// Settle returns what became of a replacement whose answer was lost; nil: the data
	// directory is as it was.
	Settle(ctx context.Context) (*wire.Restored, error)

	// Restart restarts the server and waits until it is ready.
	Restart(ctx context.Context) error
	RestartCommand() string // for a person

	// Served waits until the server serves what is expected. The note is what a person
	// should know when that cannot be seen.
	Served(ctx context.Context, is Expected) (note string, err error)

	Discard(ctx context.Context) error
}

// Expected is what a server should serve, and what not.
type Expected struct {
	Added     []restore.PlannedBlock
	Gone      []string // ULIDs
	Series    uint64   // at least so many are in the head
	Restarted bool     // the server may not answer yet
}

// restoreRemoteCommand is restore for a data directory in a container. The dump is
// unpacked, verified and made into blocks on this machine.
func (a *app) restoreRemoteCommand() *cobra.Command {
	var f restoreFlags
	cmd := &cobra.Command{
		Use:   "restore [FILE]",
		Short: "Add a dump's blocks to a running Prometheus",
		Long: `Add a dump's blocks to the data directory of a running Prometheus. promdump unpacks and verifies the blocks on this machine and sends them; the
first one appears in the data directory when all have been received completely. The
server serves them within a minute, without a restart. Blocks that are there already
are skipped, so a restore can be repeated.

--replace replaces everything in the data directory, the head included, with the dump:
completely or not at all. The server still has the old files open and must be
restarted: --restart deletes its pod, waits until the next one serves what was
restored, and only then removes the old data. Without --restart the old data is
removed at once, and the server cannot open files until you restart it.`,
		Args: cobra.MaximumNArgs(1),
		RunE: a.run(func(ctx context.Context, args []string) error {
			if err := f.take(args); err != nil {
				return err
			}
			f.dir = "-" // another machine's
			c, err := f.compile()
			if err != nil {
				return err
			}
			c.wait = !f.noWait
			return a.restoreRemote(ctx, c, f.tempDir)
		}),
	}
	fs := cmd.Flags()
	fs.SortFlags = false
	a.Remote.AddFlags(fs)
	fs.StringVarP(&f.file, "dump-file", "t", "",
		"Path to the dump `file`, or - for stdin; can be given as an argument instead")
	fs.BoolVar(&f.dryRun, "dry-run", false,
		"If true, unpack and verify the dump, print what would be done and send nothing")
	fs.BoolVar(&f.replace, "replace", false, "If true, replace the contents of the data directory with the dump; "+
		"the server must be restarted afterwards")
	fs.BoolVar(&f.yes, "yes", false, "If true, do not ask for confirmation before --replace removes anything")
	fs.BoolVar(&f.restart, "restart", false, "If true, delete the pod after --replace, "+
		"so that its controller creates a new one, and wait until that serves the dump")
	fs.BoolVar(&f.noWait, "no-wait", false, "If true, do not wait until the server serves the blocks")
	fs.StringVar(&f.retention, "retention", "", "Retention of the server, a `duration` or none "+
		"(default: as the server or its flags report it, otherwise 15d)")
	fs.BoolVar(&f.ignoreRetention, "ignore-retention", false,
		"If true, restore blocks that the server's retention deletes at once")
	fs.BoolVar(&f.ignoreSpace, "ignore-space", false, "If true, restore even if too little free space remains on the disk")
	fs.BoolVar(&f.allowUpload, "allow-upload", false, "If true, restore even if a Thanos sidecar will upload the blocks")
	fs.StringVar(&f.tempDir, "temp-dir", "", "Path to the `dir`ectory to unpack the dump in (default: the system's)")
	return cmd
}

func (a *app) restoreRemote(ctx context.Context, c restoreConfig, tempDir string) (err error) {
	if err := a.mayAsk(c, "the data dir"); err != nil {
		return err
	}
	begin := a.Now()
	in, shown, err := a.openDump(ctx, c.file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	found, err := a.Remote.Find(ctx, a.asked(tempDir))
	if err != nil {
		return err
	}
	a.notes(found.Notes)
	var no error // what --dry-run prints
	if c.spec.Replace {
		var refused bool
		if refused, no = found.MayReplace(ctx, c.restart); no != nil && (!c.dryRun || !refused) {
			return no
		}
	}
	return withTemp(tempDir, func(dir string) (err error) {
		c.spec.Target, c.spec.Staging, c.spec.Version = found, dir, found.Version
		if c.spec.Retention == 0 {
			c.spec.Retention = found.Retention
		}
		p, done, err := a.prepare(ctx, c, in)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, done()) }()
		if no != nil {
			p.Refusals = append(p.Refusals, restore.Refusal{Kind: restore.MayNot, Reason: no.Error()})
		}
		if c.dryRun {
			err := printRestore(a.Out, p, found.Name)
			if no == nil {
				err = errors.Join(err, printRestart(a.Out, c, found))
			}
			return err
		}
		if err := a.agree(ctx, c, p, found.Name); err != nil {
			return err
		}
		if c.spec.Replace {
			return a.replaceRemote(ctx, replacement{c, found, p, shown, begin})
		}
		report, err := p.Run(ctx)
		if err != nil {
			return err
		}
		if report.Result != nil {
			if n := len(report.Result.Skipped); n > 0 {
				a.notes([]string{fmt.Sprintf("%s there when the stream broke and it was sent again", term.Counted(n, "block was", "blocks were"))})
			}
		}
		if c.wait && len(report.Added) > 0 {
			note, err := found.Served(ctx, Expected{Added: report.Added})
			if err != nil {
				return fmt.Errorf("%w (the blocks are in place, whole)", err)
			}
			if report.Served = note == ""; !report.Served {
				a.notes([]string{note})
			}
		}
		a.restored(report, shown, found.Name, a.Now().Sub(begin))
		return nil
	})
}

// prepare unpacks and verifies a dump, and tells what a person should know of it. What it
// returns must be called at the end.
func (a *app) prepare(ctx context.Context, c restoreConfig, in io.Reader) (*restore.Prepared, func() error, error) {
	unpacking, sending := a.progress("unpacking"), a.progress("sending")
	c.spec.Dump, c.spec.Logger = in, a.logger()
	c.spec.Progress = func(p restore.Progress) {
		switch p.Step {
		case restore.Unpack:
			unpacking.Set(p.Done, p.Total, "")
		case restore.Send:
			sending.Set(p.Done, p.Total, "")
			if p.Done == p.Total {
				sending.Done()
			}
		}
	}
	p, err := restore.Prepare(ctx, c.spec)
	unpacking.Done()
	if err != nil {
		return nil, nil, err
	}
	a.notes(dumpNotes(p.Manifest))
	a.notes(settledNotes(p.Target.Dir, p.Settled))
	a.notes(asideNotes(p.Target))
	a.notes(p.Notes)
	return p, func() error { sending.Done(); return p.Close() }, nil
}
