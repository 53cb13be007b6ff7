// Package cli is promdump's command line: flags become typed values, and these
// become calls of the packages that do the work.
//
// Each command has a file of its own and two structs with one border between
// them: the flags as a person typed them, all strings and booleans, and the
// compiled config, all typed, which can be trusted. Compiling needs no disk and
// no network; what is wrong with it is a [usage error] and exit 2, before
// anything is opened. Running takes the config and never looks at flags again.
//
// A [Program] names the command and says where its data comes from, so that the
// kubectl plugin has the same commands over another [Data].
//
// Exit codes are in one table, exit.go. Nothing here ends the process.
//
// What is not promised: the wording of messages and the columns of tables.
// Exit codes, flags and what -o json prints are.
//
// [usage error]: see usagef
package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/promdump/promdump/internal/fsutil"
	"github.com/promdump/promdump/internal/source"
	"github.com/promdump/promdump/internal/term"
)

// Program is a command line: promdump, or the kubectl plugin.
type Program struct {
	Name    string // as it is typed
	Short   string // one line, for its help
	Example string // of its help; empty: none
	Data    Data

	// Remote is where restore goes; nil: a data dir on this machine.
	Remote RemoteTarget

	// Now is the clock; nil: the machine's.
	Now func() time.Time
}

// Data is where a program's data comes from. Its flags are added to each command
// that reads, so it must not keep anything but what was typed.
type Data interface {
	AddFlags(*pflag.FlagSet)

	// Given reports whether the flags name something to read.
	Given() bool

	// Missing is the usage error of a command line that does not say enough to read
	// anything; nil: it does.
	Missing() error

	// Open finds what the flags name. It need not be closed: sources open what they
	// read when they read it.
	Open(ctx context.Context, asked Asked) (Opened, error)
}

// Lister is a Data that can look for what there is to read. It gets a command for
// that, list.
type Lister interface {
	AddListFlags(*pflag.FlagSet)
	List(ctx context.Context, asked Asked) (Listing, error)
}

// Listing is the table that list prints, and what a person should know to read it.
type Listing struct {
	Columns []term.Column
	Rows    [][]string
	Legend  []string
}

// Global is a Data with flags of all commands, also of those that read nothing.
type Global interface{ AddGlobalFlags(*pflag.FlagSet) }

// Asked is how a command wants to be told things.
type Asked struct {
	Logger  *slog.Logger
	Debug   bool
	Note    func(string) // what a person should know while it happens
	TempDir string       // for temporary files; empty: the system's

	// Terminal is set if stdout is a terminal.
	Terminal bool

	// Upload reports how much of an agent has been sent, in bytes; it may be nil.
	Upload func(done, total int64)
}

// Opened is a source that was found.
type Opened struct {
	Source source.Source
	Kind   string   // for the manifest: "local", "exec", …
	Dir    string   // the data dir if it is on this machine, absolute: nothing may be written into it
	Notes  []string // what a person should know of it

	// After looks at the source's server when a dump is complete; nil: nothing is
	// looked at. An error says what happened to it meanwhile.
	After func(context.Context) error
}

// kind is Kind, unless the source decides while it is read.
func (o Opened) kind() string {
	if k, ok := o.Source.(interface{ Kind() string }); ok {
		return k.Kind()
	}
	return o.Kind
}

// Main runs promdump with the arguments behind its name. It returns the exit
// code, see [ExitCode]. When ctx is done the command cleans up and ends.
func Main(ctx context.Context, args []string, streams term.Streams) int {
	return Run(ctx, Promdump(), args, streams)
}

// Promdump is the program for what is on this machine.
func Promdump() Program {
	return Program{
		Name:  "promdump",
		Short: "Dump a time range of a Prometheus data directory or server into a file, query it and restore it",
		Data:  &dirOrURL{},
	}
}

// Command is a program's command line as it is, for who describes it.
func Command(program Program) *cobra.Command { return (&app{Program: program}).root() }

// Run runs a program with the arguments behind its name.
func Run(ctx context.Context, program Program, args []string, streams term.Streams) int {
	if program.Now == nil {
		program.Now = time.Now
	}
	a := &app{Program: program, Streams: streams}
	root := a.root()
	a.quotedBash(root)
	root.SetArgs(args)
	root.SetIn(streams.In)
	root.SetOut(streams.Out)
	root.SetErr(streams.Err)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return int(Done)
	}
	if !a.running {
		// Whatever cobra refuses before a command runs was typed wrong.
		err = &usageError{err: err,
			hint: cmp.Or(a.correct(root, cmd, args, err), fmt.Sprintf("see %s --help", cmd.CommandPath()))}
	}
	code := codeOf(err)
	if code == Failed && a.readerGone(err) {
		code = Piped
	}
	if ctx.Err() != nil {
		// Whatever it is called on its way up: with a reader or a pipe in between it
		// need not be context.Canceled any more.
		code, err = Interrupted, errInterrupted(err)
	}
	hint := hintOf(err)
	if code == Usage && hint == "" {
		hint = fmt.Sprintf("see %s --help", cmd.CommandPath())
	}
	if code == Piped {
		return int(code) // as other programs end there, without a word
	}
	a.Fail(program.Name, err, hint)
	return int(code)
}

// app is one run of a program.
type app struct {
	Program
	term.Streams
	quiet, debug bool
	given        *os.File // that the shell has opened for -t /dev/fd/N
	running      bool     // a command has begun: errors are its own, not cobra's
}

func (a *app) root() *cobra.Command {
	cmd := a.dumpCommand()
	cmd.Use = a.Name
	cmd.Short = a.Short
	cmd.Long = a.Short + ".\n\nWithout a command it runs dump: the flags below are those of dump."
	cmd.Example = a.Example
	if name, _, two := strings.Cut(a.Name, " "); two {
		cmd.Use = name
		cmd.Annotations = map[string]string{cobra.CommandDisplayNameAnnotation: a.Name}
		cmd.CompletionOptions.DisableDefaultCmd = true // kubectl asks cmd/kubectl_complete-promdump
	}
	cmd.Version = version()
	cmd.SetVersionTemplate("{{.Name}} {{.Version}}\n")
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.PersistentFlags().BoolVarP(&a.quiet, "quiet", "q", false, "If true, print no summary, no progress and no notes")
	cmd.PersistentFlags().BoolVar(&a.debug, "debug", false, "If true, log each decision and its reason to stderr")
	if g, ok := a.Data.(Global); ok {
		g.AddGlobalFlags(cmd.PersistentFlags())
	}
	restore := a.restoreCommand
	if a.Remote != nil {
		restore = a.restoreRemoteCommand
	}
	cmd.AddCommand(a.dumpCommand(), a.metaCommand(), a.verifyCommand(), restore(), a.openCommand(), a.queryCommand(), a.changedCommand(), a.versionCommand(), exitCodesTopic())
	if l, ok := a.Data.(Lister); ok {
		cmd.AddCommand(a.listCommand(l))
	}
	for _, c := range cmd.Commands() {
		c.Example = strings.ReplaceAll(c.Example, "  promdump ", "  "+a.Name+" ")
	}
	a.complete(cmd)
	return cmd
}

// run makes what cobra calls of f.
func (a *app) run(f func(ctx context.Context, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		a.running = true
		return f(cmd.Context(), args)
	}
}

// logger tells what is decided, with --debug. Without it there is silence: what a
// person must know comes as notes and errors.
func (a *app) logger() *slog.Logger {
	if !a.debug {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(a.Err, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// progress is nil, which shows nothing, beside --debug: two writers on one line
// would spoil both.
func (a *app) progress(verb string) *term.Progress {
	if a.quiet || a.debug {
		return nil
	}
	return a.Progress(verb)
}

// asked is for a command that uses the directory for its temporary files.
func (a *app) asked(tempDir string) Asked {
	return Asked{
		Logger: a.logger(), Debug: a.debug, TempDir: tempDir, Note: func(s string) { a.notes([]string{s}) },
		Terminal: term.IsTerminal(a.Out), Upload: a.uploads(),
	}
}

// uploads shows an upload in a line of its own while it goes on.
func (a *app) uploads() func(done, total int64) {
	var line *term.Progress
	return func(done, total int64) {
		if done == 0 {
			line = a.progress("uploading the agent")
		}
		line.Set(done, total, "")
		if done == total {
			line.Done()
		}
	}
}

func (a *app) notes(notes []string) {
	if a.quiet {
		return
	}
	for _, n := range notes {
		a.Talk("note: %s", n)
	}
}

func (a *app) summary(format string, args ...any) {
	if !a.quiet {
		a.Talk(format, args...)
	}
}

// withTemp gives f a private directory below parent (empty: the system's), which
// is gone afterwards, at the latest when another command has a directory there.
func withTemp(parent string, f func(dir string) error) (err error) {
	dir, err := fsutil.MkdirTemp(parent, "")
	if err != nil {
		if parent == "" {
			parent = os.TempDir()
		}
		return hinted(fmt.Errorf("make temporary directory in %s: %w", parent, unnamed(err)),
			"name another directory with --temp-dir")
	}
	defer func() {
		err = errors.Join(err, dir.Remove())
	}()
	return f(dir.Path)
}
