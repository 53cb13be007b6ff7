// Package term is what a person sees of promdump. Its rules:
//
//   - stdout is data, stderr is talk. What another program may read (a dump, a
//     table that was asked for) goes to Out; everything else, the summary
//     included, goes to Err, so that a pipe is never spoiled by a sentence.
//   - Binary never goes to a terminal. Who writes binary asks [IsTerminal] first.
//   - An error is one line, "promdump: what failed: why". If we know what to do
//     about it, a second line says so: "hint: …". No stack, no usage text below.
//   - Progress is one line on Err, and only where Err is a terminal. It is redrawn
//     at most five times a second, never wraps, and is gone when the work is done.
//   - Times are UTC. Sizes are powers of 1024 and say so (KiB, MiB). What is meant
//     for programs (JSON, YAML) has milliseconds and bytes as plain numbers.
//   - Colours only in graphs, where they tell lines apart, and only on a terminal
//     whose owner has not set NO_COLOR. No spinners, nothing that asks for a key. A
//     question is asked in one place only, where data would be lost, and never when
//     nobody can answer.
//
// The package promises no layout: tables may gain columns. Programs read JSON.
package term

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/term"
)

// Streams are the three ends of a program.
type Streams struct {
	In  io.Reader
	Out io.Writer
	Err io.Writer
}

// IsTerminal reports whether an end of a program (an *os.File, in practice) is a
// terminal.
func IsTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// Color reports whether stream is a terminal that shows colours, and the user has not
// disabled them with NO_COLOR (https://no-color.org).
func Color(stream any) bool {
	return IsTerminal(stream) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}

// Height returns the number of rows of the terminal behind stream, 24 if it is unknown.
func Height(stream any) int {
	if f, ok := stream.(*os.File); ok {
		if _, h, err := term.GetSize(int(f.Fd())); err == nil && h > 0 {
			return h
		}
	}
	return 24
}

// Width is the width in columns of the terminal behind stream, 80 where it
// cannot be told.
func Width(stream any) int {
	if f, ok := stream.(*os.File); ok {
		if w, _, err := term.GetSize(int(f.Fd())); err == nil && w > 0 {
			return w
		}
	}
	return 80
}

// Fail tells of an error on Err, and below it what to do about it if hint is not
// empty. Control characters in them are shown, not obeyed: file names and
// archives come from strangers.
func (s Streams) Fail(program string, err error, hint string) {
	fmt.Fprintf(s.Err, "%s: %s\n", program, Printable(err.Error()))
	if hint != "" {
		fmt.Fprintf(s.Err, "hint: %s\n", Printable(hint))
	}
}

// Talk prints one line on Err.
func (s Streams) Talk(format string, args ...any) {
	fmt.Fprintln(s.Err, Printable(fmt.Sprintf(format, args...)))
}
