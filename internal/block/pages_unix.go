//go:build unix

package block

import (
	"os"

	"golang.org/x/sys/unix"
)

// dropPages tells the kernel that b[from:to] of a mapped file need not stay in
// memory. They are read again if they are used again.
func dropPages(b []byte, from, to int) {
	page := os.Getpagesize()
	from, to = (from+page-1)/page*page, to/page*page
	if from < to {
		_ = unix.Madvise(b[from:to], unix.MADV_DONTNEED) // advice: nothing is lost without it
	}
}
