//go:build !unix

package cli

func isNoSpace(error) bool { return false }
