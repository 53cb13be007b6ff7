// Command mkimage makes container images from local files: one tar with an OCI
// layout that "ctr images import" takes, no registry needed. It reads what to
// make from stdin, a word list per line:
//
//	layer NAME                    what follows is in this layer
//	file SOURCE PATH [MODE]       a copy of a file of this machine; default 755
//	dir PATH [MODE [UID]]
//	link TARGET PATH
//	image REF LAYER,… [KEY=VALUE…]   user, dir, entry and cmd (words joined by commas)
//
// Layers that images share are stored and unpacked once if they come first. The
// result is the same for the same input.
package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"
)

func main() {
	if err := run(os.Args[1:], os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, "mkimage:", err)
		os.Exit(1)
	}
}

func run(args []string, spec io.Reader) (err error) {
	if len(args) != 1 {
		return fmt.Errorf("usage: mkimage OUT.tar < SPEC")
	}
	out, err := os.Create(args[0])
	if err != nil {
		return err
	}
	defer func() {
		if e := out.Close(); err == nil {
			err = e
		}
	}()
	layout, layers := newLayout(out), map[string]*layer{}
	var current *layer
	lines := bufio.NewScanner(spec)
	for n := 1; lines.Scan(); n++ {
		words := strings.Fields(lines.Text())
		if len(words) == 0 {
			continue
		}
		var err error
		switch {
		case words[0] == "layer" && len(words) == 2:
			current = newLayer()
			layers[words[1]] = current
		case words[0] == "image" && len(words) > 2:
			err = layout.image(words[1], layers, strings.Split(words[2], ","), words[3:])
		case current == nil:
			err = fmt.Errorf("no layer yet")
		default:
			err = current.add(words)
		}
		if err != nil {
			return fmt.Errorf("line %d, %q: %w", n, lines.Text(), err)
		}
	}
	if err := lines.Err(); err != nil {
		return err
	}
	return layout.close()
}
