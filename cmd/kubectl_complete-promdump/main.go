// Command kubectl_complete-promdump prints the shell completions of kubectl promdump. kubectl runs
// the program of this name with the words of the command line. It runs kubectl-promdump in its own
// directory, or the one in PATH.
package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
)

func main() {
	name := "kubectl-promdump"
	if self, err := os.Executable(); err == nil {
		beside := filepath.Join(filepath.Dir(self), name)
		if runtime.GOOS == "windows" {
			beside += ".exe"
		}
		if _, err := os.Stat(beside); err == nil {
			name = beside
		}
	}
	cmd := exec.Command(name, append([]string{"__complete"}, os.Args[1:]...)...)
	// stderr has debugging messages of the completion. The shell would print them over the
	// command line.
	cmd.Stdout = os.Stdout
	if cmd.Run() != nil {
		os.Exit(1)
	}
}
