// Package term formats the output of promdump on a terminal. Its rules:
//
//   - stdout has data, stderr has messages. Data that another program may read (a dump, a
//     requested table) goes to Out. All messages, including the summary, go to Err.
//   - Binary data never goes to a terminal. Callers check [IsTerminal] first.
//   - An error is one line, "promdump: what failed: why". A second line, "hint: …", says
//     what to do, if that is known. There is no stack trace and no usage text.
//   - Progress is one line on Err, if Err is a terminal. It is redrawn at most five times a
//     second, never wraps, and is removed when the work is done.
//   - Times are UTC. Sizes use units of 1024 (KiB, MiB). Output for programs (JSON, YAML) has
//     milliseconds and bytes as numbers.
//   - Colours distinguish the lines of graphs and are used nowhere else, only on a terminal,
//     and not if NO_COLOR is set. There are no spinners. The only question is the one before
//     data would be lost, and only if a person can answer it.
//
// The layout is not stable: tables may gain columns. Programs should read JSON.
package term

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/term"
)

// Streams are the standard streams of a program.
type Streams struct {
	In  io.Reader
	Out io.Writer
	Err io.Writer
}

// IsTerminal reports whether stream is an *os.File that is a terminal.
func IsTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// Color reports whether stream is a terminal with colours and the user has not disabled them
// with NO_COLOR (https://no-color.org).
func Color(stream any) bool {
	return IsTerminal(stream) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}

// Height returns the number of rows of the terminal stream, or 24 if it is unknown.
func Height(stream any) int {
	if f, ok := stream.(*os.File); ok {
		if _, h, err := term.GetSize(int(f.Fd())); err == nil && h > 0 {
			return h
		}
	}
	return 24
}

// Width returns the number of columns of the terminal stream, or 80 if it is unknown.
func Width(stream any) int {
	if f, ok := stream.(*os.File); ok {
		if w, _, err := term.GetSize(int(f.Fd())); err == nil && w > 0 {
			return w
		}
	}
	return 80
}

// Fail prints an error on Err and, if it is not empty, a hint below it. It escapes control
// characters, because file names and archives are not trusted.
func (s Streams) Fail(program string, err error, hint string) {
	fmt.Fprintf(s.Err, "%s: %s\n", program, Printable(err.Error()))
	if hint != "" {
		fmt.Fprintf(s.Err, "hint: %s\n", Printable(hint))
	}
}

// Talk prints a message on Err as one line. It escapes control characters.
func (s Streams) Talk(format string, args ...any) {
	fmt.Fprintln(s.Err, Printable(fmt.Sprintf(format, args...)))
}
