//go:build !unix

package agentbin

const openFlags = 0
