// Command kubectl_complete-promdump tells kubectl what may be typed behind kubectl
// promdump: kubectl runs the program of this name with the words that are there. It
// asks kubectl-promdump beside it, or else the one in the PATH.
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
	// Its stderr says how it was decided, to who debugs it; here it would be written
	// over what a person types.
	cmd.Stdout = os.Stdout
	if cmd.Run() != nil {
		os.Exit(1)
	}
}
