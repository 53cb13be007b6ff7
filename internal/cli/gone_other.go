//go:build !unix

package cli

func (a *app) readerGone(error) bool { return false }
