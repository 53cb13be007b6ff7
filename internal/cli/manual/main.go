// Command manual writes the help of promdump and of kubectl promdump as files: the
// reference in docs/cli, and man pages for packages. It is part of no release: what
// it needs for that would make the programs a quarter bigger.
//
//	go run ./internal/cli/manual -markdown DIR   which is emptied first
//	go run ./internal/cli/manual -man DIR        the same; their date is SOURCE_DATE_EPOCH
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"github.com/promdump/promdump/internal/cli"
	"github.com/promdump/promdump/internal/cli/plugin"
)

func main() {
	markdown := flag.String("markdown", "", "directory for Markdown")
	man := flag.String("man", "", "directory for man pages")
	flag.Parse()
	err := errors.New("-markdown DIR or -man DIR, and nothing else")
	if flag.NArg() == 0 && (*markdown == "") != (*man == "") {
		err = write(*markdown, *man)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "manual: %v\n", err)
		os.Exit(1)
	}
}

func write(markdown, man string) error {
	dir := markdown + man
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	for _, p := range []cli.Program{cli.Promdump(), plugin.Program()} {
		cmd := cli.Command(p)
		plain(cmd)
		if man != "" {
			if err := doc.GenManTree(cmd, &doc.GenManHeader{Section: "1", Source: "promdump", Manual: "promdump"}, dir); err != nil {
				return err
			}
		} else if err := doc.GenMarkdownTree(cmd, dir); err != nil {
			return err
		}
	}
	return nil
}

// plain leaves the day out of what is written.
func plain(cmd *cobra.Command) {
	cmd.DisableAutoGenTag = true
	for _, c := range cmd.Commands() {
		plain(c)
	}
}
