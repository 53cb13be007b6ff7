package cli

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/promdump/promdump/internal/suggest"
)

// correct returns a hint with a command to run in place of one that cobra refuses. It
// is empty if no command is similar.
func (a *app) correct(root, cmd *cobra.Command, args []string, err error) string {
	if flag := longFlag(cmd, args); flag >= 0 {
		return a.instead(args, flag, "-"+args[flag])
	}
	if e, ok := errors.AsType[*pflag.NotExistError](err); ok {
		return a.correctFlag(cmd, args, e)
	}
	if e, ok := errors.AsType[*extraError](err); ok {
		return a.correctExtra(cmd, args, e.arg)
	}
	return a.correctCommand(root, args)
}

// instead returns the hint with one argument replaced; none is replaced if with is
// empty. Headers may be secrets, so that they are not repeated.
func (a *app) instead(args []string, at int, with ...string) string {
	for _, arg := range args {
		if strings.Contains(arg, "header") {
			return "did you mean " + shellWords(with) + "?"
		}
	}
	words := append([]string{}, args[:at]...)
	words = append(append(words, with...), args[at+1:]...)
	return "did you mean: " + a.Name + " " + shellWords(words)
}

// longFlag finds a long flag with one dash, like -since: pflag parses it as several
// short flags.
func longFlag(cmd *cobra.Command, args []string) int {
	return slices.IndexFunc(args, func(arg string) bool {
		name, _, _ := strings.Cut(strings.TrimPrefix(arg, "-"), "=")
		return len(name) > 1 && strings.HasPrefix(arg, "-") && cmd.Flags().Lookup(name) != nil
	})
}

func (a *app) correctFlag(cmd *cobra.Command, args []string, e *pflag.NotExistError) string {
	typed := "--" + e.GetSpecifiedName()
	if short := e.GetSpecifiedShortnames(); short != "" {
		typed = "-" + short
	}
	at := slices.IndexFunc(args, func(arg string) bool { return arg == typed || strings.HasPrefix(arg, typed+"=") })
	if at < 0 {
		return ""
	}
	// dump and restore take a dump file with -t, other commands as an argument.
	if (typed == "-t" || typed == "--dump-file") && strings.Contains(cmd.Use, "FILE") {
		return a.instead(args, at)
	}
	var names []string
	visit := func(f *pflag.Flag) {
		if !f.Hidden {
			names = append(names, f.Name)
		}
	}
	cmd.Flags().VisitAll(visit)
	cmd.InheritedFlags().VisitAll(visit)
	near := suggest.Nearest(strings.TrimLeft(typed, "-"), names)
	if len(near) == 0 || len(typed) < 3 {
		return a.elsewhere(cmd, typed)
	}
	return a.instead(args, at, "--"+near[0]+strings.TrimPrefix(args[at], typed))
}

// elsewhere names the commands that have a flag which this command lacks.
func (a *app) elsewhere(cmd *cobra.Command, typed string) string {
	var have []string
	for _, c := range cmd.Root().Commands() {
		f := c.Flags().Lookup(strings.TrimPrefix(typed, "--"))
		if len(typed) == 2 {
			f = c.Flags().ShorthandLookup(typed[1:])
		}
		if f != nil && c != cmd {
			have = append(have, c.CommandPath())
		}
	}
	if len(have) == 0 {
		return ""
	}
	return fmt.Sprintf("%s is a flag of %s", typed, strings.Join(have, ", "))
}

// correctCommand returns the hint for an unknown word in place of a command.
func (a *app) correctCommand(root *cobra.Command, args []string) string {
	word := ""
	rest, _, err := root.Find(args)
	if err == nil && rest != root {
		return ""
	}
	_ = root.ParseFlags(args) // an error in the flags is not the one to explain
	if left := root.Flags().Args(); len(left) > 0 {
		word = left[0]
	}
	at := slices.Index(args, word)
	if word == "" || at < 0 {
		return ""
	}
	var names []string
	for _, c := range root.Commands() {
		if c.IsAvailableCommand() && c.Name() != "help" {
			names = append(names, c.Name())
		}
	}
	if hint := a.correctExtra(root, args, word); hint != "" {
		return hint
	}
	if near := suggest.Nearest(word, names); len(near) > 0 {
		return a.instead(args, at, near[0])
	}
	return ""
}

// correctExtra returns the hint for an argument of a command that takes none. The kind
// of argument decides which flag is proposed.
func (a *app) correctExtra(cmd *cobra.Command, args []string, word string) string {
	at := slices.Index(args, word)
	if at < 0 {
		return ""
	}
	fi, err := os.Stat(word)
	_, local := a.Data.(*dirOrURL)
	given := func(flag string) bool { f := cmd.Flags().Lookup(flag); return f == nil || f.Changed }
	switch {
	case err == nil && fi.IsDir() && local && !given("data-dir"):
		return a.instead(args, at, "-d", word)
	case err == nil && !fi.IsDir() && cmd == cmd.Root():
		return fmt.Sprintf("to inspect a dump file, run: %s meta %s, or open, verify, query", a.Name, shellWord(word))
	case strings.Contains(word, ".") && !given("dump-file"):
		return a.instead(args, at, "-t", word)
	}
	return ""
}

// extraError reports an argument to a command that takes none.
type extraError struct{ path, arg string }

func (e *extraError) Error() string {
	return fmt.Sprintf("%s takes no argument %q", e.path, e.arg)
}

// noArgs is cobra.NoArgs with a better error: an extra argument is not an unknown
// command.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if cmd == cmd.Root() {
		return fmt.Errorf("unknown command %q for %q", args[0], cmd.CommandPath())
	}
	return &extraError{cmd.CommandPath(), args[0]}
}
