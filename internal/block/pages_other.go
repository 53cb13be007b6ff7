//go:build !unix

package block

func dropPages([]byte, int, int) {}
