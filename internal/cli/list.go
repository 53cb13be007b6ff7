package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/promdump/promdump/internal/term"
)

func (a *app) listCommand(l Lister) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the Prometheus pods and how each can be accessed",
		Args:  noArgs,
		RunE: a.run(func(ctx context.Context, _ []string) error {
			all, err := l.List(ctx, a.asked(""))
			if err != nil {
				return err
			}
			if err := term.Table(a.Out, all.Columns, all.Rows); err != nil {
				return err
			}
			a.notes(all.Legend)
			return nil
		}),
	}
	fs := cmd.Flags()
	fs.SortFlags = false
	l.AddListFlags(fs)
	return cmd
}
