package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/promdump/promdump/internal/restore"
	"github.com/promdump/promdump/internal/term"
	"github.com/promdump/promdump/internal/wire"
)

// Place is a data dir on another machine that restore goes into.
type Place interface {
	AddFlags(*pflag.FlagSet)
	Find(ctx context.Context, asked Asked) (There, error)
}

// There is a Place that was found.
type There struct {
	Name      string // for a person
	Target    *wire.Target
	Retention time.Duration // of its server; 0: not known, negative: none by age
	Thanos    bool          // a sidecar beside its server uploads blocks
	Notes     []string

	// Send puts the blocks with these ULIDs, directories below dir, into it.
	Send func(ctx context.Context, dir string, ulids []string, progress func(bytes int64)) (*wire.Restored, error)

	// Wait waits until the server serves the blocks. It gives what a person should
	// know when that cannot be seen.
	Wait func(ctx context.Context, blocks []restore.PlannedBlock) (note string, err error)

	Replacing Replacing
}

// restoreThereCommand is restore for a data dir on another machine. The dump is
// unpacked, verified and made into blocks here, in the image of that data dir;
// what is sent is what that restore would publish.
func (a *app) restoreThereCommand() *cobra.Command {
	var f restoreFlags
	cmd := &cobra.Command{
		Use:   "restore [FILE]",
		Short: "Put a dump's blocks into a running Prometheus, beside what it has",
		Long: `Put a dump's blocks into the data dir of a running Prometheus, beside what is
there. They are unpacked and verified on this machine and sent; all of them are
there, whole, before the first of them appears. The server serves them within a
minute, without a restart. A block that is there already is skipped, so a restore
can be repeated.

--replace puts the dump in the place of all that the data dir holds, its head too,
and all of it or nothing. The server still has the old files open, so it must be
restarted then: --restart deletes its pod, waits until the next one serves what
was restored, and only then removes what was there. Without --restart what was
there is removed at once, and the server opens no file any more until you restart
it.`,
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
			return a.restoreThere(ctx, c, f.tempDir)
		}),
	}
	fs := cmd.Flags()
	fs.SortFlags = false
	a.Place.AddFlags(fs)
	fs.StringVarP(&f.file, "dump-file", "t", "",
		"Path to the dump `file`, or - for stdin; can be given as an argument instead")
	fs.BoolVar(&f.dryRun, "dry-run", false, "unpack, verify and print what would be done; nothing is sent")
	fs.BoolVar(&f.replace, "replace", false, "remove what the data dir holds; the server must be restarted then")
	fs.BoolVar(&f.yes, "yes", false, "do not ask before --replace removes anything")
	fs.BoolVar(&f.restart, "restart", false, "after --replace: delete the pod, so that its controller makes another one, and wait for that")
	fs.BoolVar(&f.noWait, "no-wait", false, "do not wait until the server serves the blocks")
	fs.StringVar(&f.retention, "retention", "", "the server's retention as a `length` of time, or none (default: as its flags say, else 15d)")
	fs.BoolVar(&f.ignoreRetention, "ignore-retention", false, "restore what retention deletes at once")
	fs.BoolVar(&f.ignoreSpace, "ignore-space", false, "use the last of the disk")
	fs.BoolVar(&f.allowUpload, "allow-upload", false, "let a Thanos sidecar upload the blocks")
	fs.StringVar(&f.tempDir, "temp-dir", "", "`dir` to unpack the dump in (default: the system's)")
	return cmd
}

func (a *app) restoreThere(ctx context.Context, c restoreConfig, tempDir string) (err error) {
	if err := a.mayAsk(c, "the data dir"); err != nil {
		return err
	}
	begin := a.Now()
	in, shown, err := a.openDump(ctx, c.file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	there, err := a.Place.Find(ctx, a.asked(tempDir))
	if err != nil {
		return err
	}
	a.notes(append(there.Notes, asideNotes(there.Target)...))
	var no error // what --dry-run prints
	if c.spec.Replace {
		no = mayReplace(ctx, there, c.restart)
		if _, refused := errors.AsType[refusal](no); no != nil && (!c.dryRun || !refused) {
			return no
		}
	}
	return withTemp(tempDir, func(dir string) (err error) {
		image := filepath.Join(dir, "data")
		if err := sketchTarget(image, there); err != nil {
			return fmt.Errorf("make an image of %s: %w", there.Name, err)
		}
		progress := a.progress("unpacking")
		defer progress.Done()
		spec := c.spec
		spec.Dir, spec.Dump, spec.Logger = image, in, a.logger()
		spec.IgnoreSpace = true // that of this disk says nothing about the other
		if spec.Retention == 0 {
			spec.Retention = there.Retention
		}
		spec.Progress = func(p restore.Progress) {
			if p.Step == restore.Unpack {
				progress.Set(p.Done, p.Total, "")
			}
		}
		plan, err := restore.NewPlan(ctx, spec)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, plan.Close()) }()
		progress.Done()
		plan.Target.Dir, plan.Target.Free, plan.Target.HeadBytes = there.Name, there.Target.Free, there.Target.HeadBytes
		plan.Refusals = append(plan.Refusals, refuseThere(there.Target, plan.Bytes(), c.spec.IgnoreSpace)...)
		if c.spec.Replace {
			plan.Replaced = there.Target.Own
		}
		a.notes(append(dumpNotes(plan.Manifest), plan.Notes...))
		if c.dryRun && no != nil {
			plan.Refusals = append(plan.Refusals, restore.Refusal{Reason: no.Error()})
			return printRestore(a.Out, plan)
		}
		if c.dryRun {
			return errors.Join(printRestore(a.Out, plan), printRestart(a.Out, c, there))
		}
		if err := a.agree(ctx, c, plan); err != nil {
			return err
		}
		plan.Target.Dir = image
		report, err := plan.Run(ctx)
		if err != nil {
			return err
		}
		if c.spec.Replace {
			return a.replaceThere(ctx, replacement{c, there, image, report, shown, begin})
		}
		return a.sendThere(ctx, there, image, report, shown, begin, c.wait)
	})
}

func (a *app) sendThere(ctx context.Context, there There, image string, report *restore.Report, shown string, begin time.Time, wait bool) error {
	var ids []string
	for _, b := range report.Added {
		ids = append(ids, b.ULID)
	}
	if len(ids) > 0 {
		progress := a.progress("sending")
		defer progress.Done()
		done, err := there.Send(ctx, image, ids, func(n int64) { progress.Set(n, report.Bytes, "") })
		if err != nil {
			return err
		}
		progress.Done()
		if n := len(done.Skipped); n > 0 {
			a.notes([]string{fmt.Sprintf("%s there when the stream broke and it was sent again", term.Counted(n, "block was", "blocks were"))})
		}
		if wait {
			note, err := there.Wait(ctx, report.Added)
			if err != nil {
				return fmt.Errorf("%w (the blocks are in place, whole)", err)
			}
			if report.Served = note == ""; !report.Served {
				a.notes([]string{note})
			}
		}
	}
	a.restored(report, image, shown, there.Name, a.Now().Sub(begin))
	return nil
}

// refuseThere is what speaks against the other machine.
func refuseThere(t *wire.Target, bytes int64, ignoreSpace bool) (all []restore.Refusal) {
	if !t.Writable {
		all = append(all, restore.Refusal{
			Reason: fmt.Sprintf("%s belongs to uid %d, and commands run as uid %d, which may not write there", t.Dir, t.UID, t.AgentUID),
			Hint:   "name the container that Prometheus runs in with -c",
		})
	}
	reserve := min(256<<20, t.Size/20)
	if !ignoreSpace && bytes+reserve > t.Free {
		all = append(all, restore.Refusal{
			Reason: fmt.Sprintf("%s has %s free; the blocks need %s and a server %s for itself", t.Dir, term.Bytes(t.Free), term.Bytes(bytes), term.Bytes(reserve)),
			Flag:   "--ignore-space", Hint: "make room, or dump a smaller selection",
		})
	}
	return all
}

// sketchTarget makes a data dir that looks like the other one to a restore: its
// blocks without their data, and a head of its time.
func sketchTarget(dir string, there There) error {
	put := func(name, text string) error {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
		return os.WriteFile(path, []byte(text), 0o600)
	}
	// A server runs there: a raw head must become blocks, whatever it has yet.
	if err := put("wal/00000000", "a head"); err != nil {
		return err
	}
	if t := there.Target.HeadTime; t > 0 {
		when := time.UnixMilli(t)
		if err := os.Chtimes(filepath.Join(dir, "wal", "00000000"), when, when); err != nil {
			return err
		}
	}
	if there.Thanos || there.Target.Thanos {
		if err := put("thanos.shipper.json", "{}"); err != nil {
			return err
		}
	}
	for _, b := range there.Target.Blocks {
		if strings.ContainsAny(b.ULID, "/\\") || !json.Valid(b.Meta) && len(b.Meta) > 0 {
			return fmt.Errorf("it has a block named %q", b.ULID)
		}
		if err := put(b.ULID+"/meta.json", string(b.Meta)); err != nil {
			return err
		}
	}
	return nil
}
