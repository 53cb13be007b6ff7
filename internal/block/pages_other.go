//go:build !unix

package block

// dropPages does nothing on this system.
func dropPages([]byte, int, int) {}
