package kube

import (
	"fmt"
	"strings"

	"github.com/promdump/promdump/internal/suggest"
)

// Exit codes of the errors of this package, see docs/exit-codes.md.
const (
	codeFailed       = 1
	codeUsage        = 2
	codeNoTarget     = 10
	codeNotPermitted = 11
	codeNoAgent      = 12
)

// ConfigError says that no cluster is known, or that what is known of it is
// unusable.
type ConfigError struct {
	Err error
	tip string
}

func (e *ConfigError) Error() string { return e.Err.Error() }
func (e *ConfigError) Unwrap() error { return e.Err }
func (e *ConfigError) ExitCode() int { return codeFailed }
func (e *ConfigError) Hint() string  { return e.tip }

// ContextError says that the kubeconfig has no such context.
type ContextError struct {
	Name  string
	Known []string
}

func (e *ContextError) Error() string {
	return fmt.Sprintf("the kubeconfig has no context %q", e.Name)
}
func (e *ContextError) ExitCode() int { return codeNoTarget }
func (e *ContextError) Hint() string {
	if len(e.Known) == 0 {
		return "the kubeconfig has no context at all: --kubeconfig FILE takes another one"
	}
	if near := suggest.Nearest(e.Name, e.Known); len(near) > 0 {
		return "did you mean " + strings.Join(near, " or ") + "? (--context)"
	}
	return "it has: " + strings.Join(e.Known, ", ")
}

// QueryError says that what was asked for cannot be asked so.
type QueryError struct {
	Reason string
	tip    string
}

func (e *QueryError) Error() string { return e.Reason }
func (e *QueryError) ExitCode() int { return codeUsage }
func (e *QueryError) Hint() string  { return e.tip }

// NotFoundError says that what was asked for is not there.
type NotFoundError struct {
	What      string   // "pod x", "namespace x", "Prometheus"
	Namespace string   // where it was looked for; empty: everywhere
	Near      []string // names of what is there and sounds alike
	Elsewhere []string // NAMESPACE/POD of what would have been taken there
	Usual     bool     // it was looked for by what Prometheus pods usually have
}

func (e *NotFoundError) Error() string {
	if e.Namespace == "" {
		return fmt.Sprintf("no %s found", e.What)
	}
	return fmt.Sprintf("no %s found in namespace %s", e.What, e.Namespace)
}

func (e *NotFoundError) ExitCode() int { return codeNoTarget }

func (e *NotFoundError) Hint() string {
	var tips []string
	if len(e.Near) > 0 {
		tips = append(tips, "did you mean "+strings.Join(e.Near, " or ")+"?")
	}
	switch len(e.Elsewhere) {
	case 0:
	case 1:
		ns, _, _ := strings.Cut(e.Elsewhere[0], "/")
		tips = append(tips, fmt.Sprintf("there is %s: -n %s", e.Elsewhere[0], ns))
	default:
		tips = append(tips, "in other namespaces there are: "+strings.Join(e.Elsewhere, ", ")+" (choose with -n)")
	}
	switch {
	case len(tips) > 0:
		return strings.Join(tips, "; ")
	case e.Namespace == "":
		return "name a pod with -n NAMESPACE -p POD"
	case e.Usual:
		return "-n takes another namespace, -A looks in all; -p POD names a pod that does not look like a Prometheus"
	}
	return fmt.Sprintf("what is there is shown by: kubectl get pods -n %s", e.Namespace)
}

// SeveralError says that more than one pod is meant.
type SeveralError struct{ Targets []Target }

func (e *SeveralError) Error() string {
	return fmt.Sprintf("%d pods are meant, choose one", len(e.Targets))
}
func (e *SeveralError) ExitCode() int { return codeUsage }
func (e *SeveralError) Hint() string {
	if len(e.Targets) == 0 {
		return ""
	}
	t := e.Targets[0]
	return fmt.Sprintf("for example: -n %s -p %s", t.Namespace, t.Pod)
}

// NotRunningError says that there is nothing to talk to in the container now.
type NotRunningError struct {
	Target Target // its Phase and Reason say more
}

func (e *NotRunningError) Error() string {
	t := e.Target
	what := "pod " + t.String()
	if t.Container != "" {
		what = fmt.Sprintf("container %s of pod %s", t.Container, t)
	}
	return fmt.Sprintf("%s is not running: %s", what, join(t.Phase, t.Reason))
}
func (e *NotRunningError) ExitCode() int { return codeNoTarget }
func (e *NotRunningError) Hint() string {
	t := e.Target
	if t.RestartCount > 0 {
		return fmt.Sprintf("its last log lines: kubectl logs -n %s %s -c %s --previous", t.Namespace, t.Pod, t.Container)
	}
	return fmt.Sprintf("why: kubectl describe pod -n %s %s", t.Namespace, t.Pod)
}

// ContainerError says that the pod has no such container, or that it cannot be
// told which of them is the Prometheus.
type ContainerError struct {
	Namespace, Pod string
	Container      string // as asked for, may be empty
	Containers     []string
}

func (e *ContainerError) Error() string {
	if e.Container == "" {
		return fmt.Sprintf("which container of pod %s/%s is the Prometheus cannot be told", e.Namespace, e.Pod)
	}
	return fmt.Sprintf("pod %s/%s has no container %q", e.Namespace, e.Pod, e.Container)
}
func (e *ContainerError) ExitCode() int { return codeNoTarget }
func (e *ContainerError) Hint() string {
	return "choose with -c: " + strings.Join(e.Containers, ", ")
}

// ExitError says that a command in the container ended with a code.
type ExitError struct {
	Command string
	Code    int
}

func (e *ExitError) Error() string {
	if e.Code == 137 {
		return fmt.Sprintf("%s was killed in the container (exit code 137: out of memory, or the pod ends)", e.Command)
	}
	return fmt.Sprintf("%s ended with exit code %d in the container", e.Command, e.Code)
}

// NoCommandError says that the container has no such program, or that it cannot
// be run there.
type NoCommandError struct {
	Command string
	Reason  string
}

func (e *NoCommandError) Error() string {
	return fmt.Sprintf("the container cannot run %s: %s", e.Command, e.Reason)
}

// GoneError says that the pod or its container is not there any more.
type GoneError struct {
	Namespace, Pod string
	Reason         string

	final bool
}

// Final tells that nothing brings it back, so that there is nothing to wait for.
func (e *GoneError) Final() bool { return e.final }

func (e *GoneError) Error() string {
	return fmt.Sprintf("pod %s/%s went away: %s", e.Namespace, e.Pod, e.Reason)
}
func (e *GoneError) ExitCode() int { return codeNoTarget }
func (e *GoneError) Hint() string {
	return fmt.Sprintf("what is there now: kubectl get pods -n %s", e.Namespace)
}

// RestartError says that a pod is better not deleted, or that none came back.
type RestartError struct {
	Target Target
	Reason string
	tip    string
}

func (e *RestartError) Error() string {
	return fmt.Sprintf("restart pod %s: %s", e.Target, e.Reason)
}
func (e *RestartError) Hint() string { return e.tip }
