package cli

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Completer is a Data that knows what may be typed for its flags.
type Completer interface {
	// Complete registers completions for those flags that the command has.
	Complete(*cobra.Command)
}

// dumpEndings are of files that may be dumps.
var dumpEndings = []string{"gz", "tgz", "zst", "tar", "partial"}

// complete says for all commands what a shell may offer. What a flag takes stands in
// its usage: a file, a dir, one of a|b|c; of anything else nothing can be known.
func (a *app) complete(cmd *cobra.Command) {
	if c, ok := a.Data.(Completer); ok {
		c.Complete(cmd)
	}
	each := func(f *pflag.Flag) {
		if _, ok := cmd.GetFlagCompletionFunc(f.Name); ok {
			return
		}
		name, _ := pflag.UnquoteUsage(f)
		offer := cobra.NoFileCompletions
		switch {
		case f.Name == "match", f.Name == "ignore":
			offer = a.completeMatch
		case f.Name == "dump-file":
			offer = dumpFiles
		case name == "file":
			offer = cobra.FixedCompletions(nil, cobra.ShellCompDirectiveDefault)
		case name == "dir":
			offer = cobra.FixedCompletions(nil, cobra.ShellCompDirectiveFilterDirs)
		case strings.Contains(name, "|"):
			offer = cobra.FixedCompletions(strings.Split(name, "|"), cobra.ShellCompDirectiveNoFileComp)
		}
		// It fails for a flag that is not there.
		_ = cmd.RegisterFlagCompletionFunc(f.Name, offer)
	}
	cmd.LocalFlags().VisitAll(each)
	if cmd.ValidArgsFunction == nil {
		cmd.ValidArgsFunction = cobra.NoFileCompletions
		if cmd.Name() == "query" {
			cmd.ValidArgsFunction = a.completeQuery
		} else if strings.Contains(cmd.Use, "FILE") {
			cmd.ValidArgsFunction = dumpFiles
		}
	}
	for _, c := range cmd.Commands() {
		a.complete(c)
	}
}

func dumpFiles(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return slices.Clone(dumpEndings), cobra.ShellCompDirectiveFilterFileExt
}
