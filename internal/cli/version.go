package cli

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/promdump/promdump/internal/archive"
)

// Version is what version says, for others.
func Version() string { return version() }

// version is what the Go command recorded: a tag, or the commit.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "(unknown)"
	}
	return info.Main.Version
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: a.run(func(context.Context, []string) error {
			_, err := fmt.Fprintf(a.Out, "%s %s\ndump format %d\n%s %s/%s\n", a.Name, version(), archive.Format, runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		}),
	}
}
