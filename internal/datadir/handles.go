package datadir

import (
	"math"
	"os"
)

// spareHandles is the number of files left to the rest of the process.
const spareHandles = 64

// freeHandles returns how many more files the process may hold open.
func freeHandles() int {
	limit := openFilesLimit()
	if limit > math.MaxInt32 {
		return math.MaxInt32
	}
	open := spareHandles
	if entries, err := os.ReadDir("/proc/self/fd"); err == nil {
		open += len(entries)
	}
	return max(0, int(limit)-open)
}
