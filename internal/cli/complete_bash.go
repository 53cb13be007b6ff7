package cli

import (
	"bytes"
	"context"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

// quotedBash makes "promdump completion bash" print a script that completes within an
// open quote, where PromQL is typed. Cobra's script evaluates the words as typed, which
// fails within a quote, and escapes what it inserts, which is wrong there.
func (a *app) quotedBash(root *cobra.Command) {
	root.InitDefaultCompletionCmd()
	cmd, _, err := root.Find([]string{"completion", "bash"})
	if err != nil || cmd.Name() != "bash" {
		return // kubectl completes plugins itself
	}
	cmd.RunE = a.run(func(context.Context, []string) error {
		var script bytes.Buffer
		f := cmd.Flags().Lookup("no-descriptions")
		describe := f == nil || f.Value.String() != "true"
		if err := root.GenBashCompletionV2(&script, describe); err != nil {
			return err
		}
		_, err := io.WriteString(a.Out, openQuotes(script.String(), root.Name()))
		return err
	})
}

func openQuotes(script, name string) string {
	quote := "__" + name + "_quote"
	for _, change := range []struct{ at, to string }{
		{"    lastParam=${words[", `    # An open quote is closed, so that the words can be evaluated.
    ` + quote + `=""
    if [[ ${cur} == [\'\"]* && ${cur:1} != *"${cur:0:1}" ]]; then
        ` + quote + `=${cur:0:1}
        requestComp="${requestComp}${` + quote + `}"
    fi

    lastParam=${words[`},
		{
			"        if (( ${#COMPREPLY[@]} == 1 )); then",
			"        if (( ${#COMPREPLY[@]} == 1 )) && [[ -z ${" + quote + "} ]]; then",
		},
	} {
		script = strings.Replace(script, change.at, change.to, 1)
	}
	return script
}
