//go:build unix

package block

import (
	"os"

	"golang.org/x/sys/unix"
)

// dropPages frees the memory of b[from:to] of a mapped file. The kernel reads the pages again
// when they are used again.
func dropPages(b []byte, from, to int) {
	page := os.Getpagesize()
	from, to = (from+page-1)/page*page, to/page*page
	if from < to {
		_ = unix.Madvise(b[from:to], unix.MADV_DONTNEED) // optional: only saves memory
	}
}
