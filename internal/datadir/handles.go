package datadir

import (
	"math"
	"os"
)

// spareHandles is the number of open files that is reserved for the rest of the process.
const spareHandles = 64

// freeHandles returns how many more files this package may open. Where /proc does not
// list the open files of the process, it does not subtract them.
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
