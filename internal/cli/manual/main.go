// Command manual writes the help of promdump and of kubectl promdump to files: the
// reference in docs/cli, and the man pages of the packages. It is a program of its own
// because the generators would make the released programs a quarter larger.
//
//	go run ./internal/cli/manual -markdown DIR   empties DIR first
//	go run ./internal/cli/manual -man DIR        too; the pages have the date SOURCE_DATE_EPOCH
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
	markdown := flag.String("markdown", "", "Path to the `dir`ectory for Markdown")
	man := flag.String("man", "", "Path to the `dir`ectory for man pages")
	flag.Parse()
	err := errors.New("give either -markdown DIR or -man DIR, and nothing else")
	if flag.NArg() == 0 && (*markdown == "") != (*man == "") {
		err = write(*markdown, *man)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "manual: %v\n", err)
		os.Exit(1)
	}
}

// write empties the directory whose name is not empty, and writes the files there.
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
		omitDate(cmd)
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

// omitDate omits the generation date from the Markdown of the command and its
// subcommands, so that the files change only with the help.
func omitDate(cmd *cobra.Command) {
	cmd.DisableAutoGenTag = true
	for _, c := range cmd.Commands() {
		omitDate(c)
	}
}
