package kube

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/util/exec"
)

// ended finds out why a command did not end well.
func (c *Client) ended(ctx context.Context, t Target, command string, tries *attempts, err error) error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[exec.CodeExitError](err); ok {
		if e.Code == 137 {
			if gone := c.gone(ctx, t); gone != nil {
				return gone
			}
		}
		return &ExitError{Command: command, Code: e.Code}
	}
	if reason := noCommand(err.Error()); reason != "" && expired(ctx) == nil {
		return &NoCommandError{Command: command, Reason: reason}
	}
	return c.explainStream(ctx, t, fmt.Sprintf("run %s in pod %s", command, t), tries, err, ToExec)
}

// What container runtimes say when a program cannot be started.
var cannotStart = []*regexp.Regexp{
	regexp.MustCompile(`exec: ".*?": (executable file not found in \$PATH|no such file or directory|permission denied|stat .*?: .+)`),
	regexp.MustCompile(`(executable file .*not found in \$PATH)`),                                               // crun
	regexp.MustCompile(`unable to start container process: .*?((?:stat|eaccess) \S+: \S.*|exec format error)$`), // runc
	regexp.MustCompile(`exec(?:ve)? .*: (exec format error|operation not permitted)`),
}

// noCommand is the reason why a program cannot be started, if that is what a
// runtime says.
func noCommand(text string) string {
	text = strings.TrimSuffix(text, ": unknown")
	for _, re := range cannotStart {
		if m := re.FindStringSubmatch(text); m != nil {
			return m[1]
		}
	}
	return ""
}

// What kubelets and runtimes say when a container has ended.
var noContainerNow = regexp.MustCompile(`container not found|pod does not exist|completed pod|container is not running|not created or running|no running task|cannot exec in a stopped|CONTAINER_EXITED|is not valid for pod|pods? ".*" not found`)

// gone asks whether the target is still what it was. What is not known is nil.
func (c *Client) gone(ctx context.Context, t Target) error {
	ctx, cancel := context.WithTimeout(quiet(ctx), aside) // it may be cancelled at any time
	defer cancel()
	e := &GoneError{Namespace: t.Namespace, Pod: t.Pod}
	p, err := c.podOnce(ctx, t)
	switch {
	case apierrors.IsNotFound(err):
		e.Reason, e.final = "it was deleted", !t.comesBack()
		return e
	case err != nil:
		return nil
	}
	s := stateOf(p, t.Container)
	last := life{string(p.UID), s.restarts}
	if s.phase == "" {
		s.phase, s.reason = podState(p)
	}
	was := c.lives.next(t, last)
	switch {
	case last.uid != was.uid:
		e.Reason = "another pod has its name now"
	case p.DeletionTimestamp != nil:
		e.Reason, e.final = "it is being deleted", !t.comesBack()
	case !s.running:
		e.Reason = fmt.Sprintf("its container %s does not run: %s", t.Container, join(s.phase, s.reason))
		e.final = over(p) && !t.comesBack() // evicted, for one
	case last.restarts != was.restarts:
		e.Reason = fmt.Sprintf("its container %s was restarted", t.Container)
		for _, s := range p.Status.ContainerStatuses {
			if end := s.LastTerminationState.Terminated; s.Name == t.Container && end != nil {
				phase, code := endOf(end)
				e.Reason += fmt.Sprintf(" after it ended with %s, %s", phase, code)
			}
		}
	default:
		return nil
	}
	return e
}

// comesBack reports whether a pod of the same name follows when this one has gone. Most
// controllers give the next one another name.
func (t Target) comesBack() bool {
	kind, _, _ := strings.Cut(t.Owner, "/")
	return !slices.Contains([]string{"", "ReplicaSet", "ReplicationController", "DaemonSet", "Job"}, kind)
}

// life is from one start of a container to the next.
type life struct {
	uid      string
	restarts int32
}

// lives remembers for each container the life that was seen last: that it ended is
// told once, not again with every later error.
type lives struct {
	mu   sync.Mutex
	seen map[string]life
}

// next gives the life before this one.
func (l *lives) next(t Target, now life) life {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := t.String() + "/" + t.Container
	was, ok := l.seen[key]
	if !ok {
		was = life{t.UID, t.RestartCount}
	}
	if l.seen == nil {
		l.seen = map[string]life{}
	}
	l.seen[key] = now
	return was
}
