// Package docs runs what the documentation shows: README.md, CONTRIBUTING.md and
// docs/*.md. What is a command there is a command here, and what it is said to
// print is what it prints.
//
// A fenced block says what it is by its language. Of the languages, console and sh
// hold commands, and have a comment on the line before that says what is to be done
// with them:
//
//	<!-- test: local -->          run here, with promdump, prometheus and promtool
//	<!-- test: local, serves -->  its last command runs on until the page ends
//	<!-- test: cluster -->        run by the tests of e2e/kube, in a real Kubernetes
//	<!-- not run: REASON -->
//
// In a console block a line that begins with "$ " is a command, with the lines that
// it is continued on by a backslash; what follows is what it prints, on stdout and
// stderr. An sh block is all commands. Each command must exit 0. The blocks of a
// page are run one after the other in one directory, and those of one block in one
// shell.
//
// What cannot be the same each time does not count, see [Like]; "…" in a line
// stands for any text, and alone in a line for any lines.
package docs

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// Block is a fenced block.
type Block struct {
	File string // as it was given to Read
	Line int    // of its first line within the fence
	Lang string
	Mark string // the comment before it, without its marks
	Text []string
}

// Commands are the languages whose blocks are run, or say why not.
var Commands = []string{"console", "sh"}

var comment = regexp.MustCompile(`^<!-- (.*) -->$`)

// Read gives the blocks of a page.
func Read(file string) ([]Block, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var all []Block
	lines := strings.Split(string(b), "\n")
	for i := 0; i < len(lines); i++ {
		lang, fence := strings.CutPrefix(lines[i], "```")
		if !fence {
			continue
		}
		block := Block{File: file, Line: i + 2, Lang: lang}
		if m := comment.FindStringSubmatch(lines[max(i-1, 0)]); m != nil {
			block.Mark = m[1]
		}
		for i++; ; i++ {
			if i == len(lines) {
				return nil, fmt.Errorf("%s:%d: a block without an end", file, block.Line)
			}
			if lines[i] == "```" {
				break
			}
			block.Text = append(block.Text, lines[i])
		}
		all = append(all, block)
	}
	return all, nil
}

// Pages are the pages below the root of the module, without those that a program
// makes.
func Pages(root string) ([]string, error) {
	pages, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil {
		return nil, err
	}
	top, err := filepath.Glob(filepath.Join(root, "*.md"))
	return append(top, pages...), err
}

// Where is what Mark says of where the block is run: local, cluster, or nothing.
func (b Block) Where() (where string, serves bool) {
	where, _ = strings.CutPrefix(b.Mark, "test: ")
	if where == b.Mark {
		return "", false
	}
	return strings.CutSuffix(where, ", serves")
}

// Place is where the block stands.
func (b Block) Place() string { return fmt.Sprintf("%s:%d", b.File, b.Line) }

// Command is one command, and what it is said to print.
type Command struct {
	Line int // of its output, in the file
	Text string
	Want []string
}

// Commands are those of the block.
func (b Block) Commands() ([]Command, error) {
	if b.Lang == "sh" {
		return []Command{{Line: b.Line, Text: strings.Join(b.Text, "\n")}}, nil
	}
	var all []Command
	for i := 0; i < len(b.Text); i++ {
		text, is := strings.CutPrefix(b.Text[i], "$ ")
		if !is {
			if len(all) == 0 {
				return nil, fmt.Errorf("%s: output before the first command", b.Place())
			}
			last := &all[len(all)-1]
			last.Want = append(last.Want, b.Text[i])
			continue
		}
		for ; strings.HasSuffix(text, `\`) && i+1 < len(b.Text); i++ {
			text += "\n" + b.Text[i+1]
		}
		all = append(all, Command{Line: b.Line + i + 1, Text: text})
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s: no command begins with %q", b.Place(), "$ ")
	}
	return all, nil
}
