//go:build unix

package agentbin

import "syscall"

// In a directory that everyone may write to a name can be a pipe, at which an
// open would wait for ever, or a link to what is none of ours.
const openFlags = syscall.O_NOFOLLOW | syscall.O_NONBLOCK
