// Package kube is all that promdump knows of Kubernetes: how a Prometheus is found
// among pods, how a command is run in its container, how one of its ports is
// reached, and what a cluster's rules allow. No other package imports client-go.
//
// A pod is told from its own spec: labels, the image, the command line. Nothing
// of a workload is read but its pods, so that whoever may get and list pods can
// name a Deployment too.
//
// Errors are typed. Those that have a place in the table of exit codes have an
// ExitCode() int, and those that a person can do something about have a
// Hint() string; where the cluster's rules are in the way, the hint holds the Role
// that grants what is missing. docs/access.md has the same Roles.
//
// What is not promised: that [Client.Exec] has seen all of a command's output when
// it returns without an error. Over both of its protocols a cut stream can look
// like a command that ended well, so the end must be told in the stream itself.
// And what was started in a container may go on after Exec has returned: it must
// end by itself when its stdin ends.
package kube
