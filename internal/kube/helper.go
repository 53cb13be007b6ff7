package kube

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// DefaultImage is that of a helper: small, public, with a shell.
const DefaultImage = "busybox:1.37"

// HelperOptions say what a container of ours is like.
type HelperOptions struct {
	Image string       // has a shell and sleep, or is promdump's own; empty: DefaultImage
	User  *int64       // its uid; nil: that of the server
	Write bool         // may write into the data dir
	Tell  func(string) // what a person should know before it is done
}

// Helper is a container of ours that runs and has the data dir of a Prometheus.
// It ends with End, or by itself some ninety seconds after we are gone.
type Helper struct {
	Target Target // the helper: commands run in it, and it has the data dir there
	Agent  string // the agent that is in it already; empty: none

	kit kit

	client *Client
	let    context.CancelFunc // go
	held   sync.WaitGroup
	remove func(context.Context) error // nil: it cannot be removed
}

// HelperError says that a container of ours does not come to run.
type HelperError struct {
	What   string // it, with its place
	Reason string
	tip    string
}

func (e *HelperError) Error() string { return fmt.Sprintf("%s: %s", e.What, e.Reason) }

// ExitCode is that of the command.
func (e *HelperError) ExitCode() int { return codeNoAgent }

// Hint returns what to do about it.
func (e *HelperError) Hint() string { return e.tip }

// living is what a helper's container runs. Nobody can end it but itself, if we die
// or lose the cluster, so it looks whether it is held: whether a process sleep 31
// is there, which each of its clients has made by exec all the time. Without one
// it ends after a minute; where sleep 5 is there and one sleep 31 at most, at once.
//
// No signal: where the helper shares the PID namespace of the server, a mistake
// would end the server. No child outlives it: where the server is PID 1, that
// would become a zombie of the server's. read drops the zero bytes.
const living = `trap 'exit 0' TERM INT
n=0
while test "$n" -lt 60; do
  sleep 1
  n=$((n+1)) held=0 end=
  for p in /proc/[0-9]*; do
    c=
    { read -r c <"$p/cmdline"; } 2>/dev/null
    case $c in
    sleep31) held=$((held+1)) n=0 ;;
    sleep5) end=1 ;;
    esac
  done
  test -z "$end" || test "$held" -gt 1 || exit 0
done
`

// kit is how an image does what is asked of a helper.
type kit struct {
	live      []string // what its container runs
	hold, end []string
	owners    []string // of the paths that are added; of none it ends well
	agent     string
}

var (
	shell = kit{live: []string{"sh", "-c", living}, hold: []string{"sleep", "31"}, end: []string{"sleep", "5"}, owners: []string{"ls", "-ldn"}}
	// The agent does the same as the script.
	own = kit{live: []string{agentName, "live"}, hold: []string{agentName, "hold"}, end: []string{agentName, "end"}, owners: []string{agentName, "owners"}, agent: agentName}
)

const agentName = "promdump-agent"

// kitOf tells by an image's name: the cluster need not have it yet. Promdump's own
// has no shell, wherever it was copied to.
func kitOf(image string) kit {
	image, _, _ = strings.Cut(image, "@")
	name, _, _ := strings.Cut(path.Base(image), ":")
	if name == "promdump" {
		return own
	}
	return shell
}

// hold keeps a helper from ending until End.
func (c *Client) hold(ctx context.Context, h *Helper) {
	ctx, h.let = context.WithCancel(context.WithoutCancel(ctx))
	h.client = c
	h.held.Go(func() {
		for ctx.Err() == nil {
			err := c.Exec(ctx, h.Target, h.kit.hold, Streams{Out: io.Discard})
			if _, gone := errors.AsType[*GoneError](err); gone {
				return
			}
			if err == nil {
				continue
			}
			select {
			case <-ctx.Done():
			case <-time.After(c.times.poll):
			}
		}
	})
}

// End ends the helper. What remains of it is said by an error; it ends by itself
// then.
func (h *Helper) End(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*aside)
	defer cancel()
	var err error
	if h.remove != nil {
		err = h.remove(ctx)
	} else {
		// It ends with the container.
		err = h.client.Exec(ctx, h.Target, h.kit.end, Streams{Out: io.Discard})
		_, gone := errors.AsType[*GoneError](err)
		_, killed := errors.AsType[*ExitError](err)
		if gone || killed {
			err = nil
		}
	}
	h.let()
	h.held.Wait()
	if err != nil {
		return fmt.Errorf("end container %s of pod %s, which ends by itself within two minutes: %w", h.Target.Container, h.Target, err)
	}
	return nil
}

// user is whom a server runs as.
type user struct {
	uid, gid *int64
	guessed  bool
}

// userOf finds it in the pod: as it must be, or as it is. Else the image alone
// knows; those of Prometheus are known.
func userOf(p *corev1.Pod, c *corev1.Container, status *corev1.ContainerStatus) user {
	pod, own := p.Spec.SecurityContext, c.SecurityContext
	if pod == nil {
		pod = &corev1.PodSecurityContext{}
	}
	if own == nil {
		own = &corev1.SecurityContext{}
	}
	u := user{uid: cmp.Or(own.RunAsUser, pod.RunAsUser), gid: cmp.Or(own.RunAsGroup, pod.RunAsGroup)}
	if u.uid != nil {
		return u
	}
	if status != nil && status.User != nil && status.User.Linux != nil {
		l := status.User.Linux
		return user{uid: &l.UID, gid: &l.GID}
	}
	uid := int64(65534)
	if isDistroless(c.Image) {
		uid = 65532
	}
	return user{uid: &uid, guessed: true}
}

// restricted is a security context that every Pod Security level allows, unless
// the server is root: then it has what the server has, for else it could not look
// into the server's files.
func restricted(server *corev1.SecurityContext, u user) *corev1.SecurityContext {
	if server == nil {
		server = &corev1.SecurityContext{}
	}
	no, yes := false, true
	s := &corev1.SecurityContext{
		RunAsUser: u.uid, RunAsGroup: u.gid, SELinuxOptions: server.SELinuxOptions,
		AllowPrivilegeEscalation: &no,
		SeccompProfile:           &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	}
	if *u.uid == 0 {
		s.Capabilities = server.Capabilities
		return s
	}
	s.RunAsNonRoot = &yes
	s.Capabilities = &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}
	return s
}

// startFailed is why a container will not start; empty: it may.
func startFailed(s *corev1.ContainerStatus) (reason, tip string) {
	if s.State.Terminated != nil {
		phase, code := endOf(s.State.Terminated)
		return join(fmt.Sprintf("it ended at once with %s, %s", phase, code), firstLine(s.State.Terminated.Message)),
			"its image must have sh and sleep, or be promdump's own and have its name: --image takes another"
	}
	if s.State.Waiting == nil {
		return "", ""
	}
	w := s.State.Waiting
	reason = join(w.Reason, firstLine(w.Message))
	switch w.Reason {
	case "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName":
		return reason, fmt.Sprintf("--image takes one that the cluster has or can get; it needs a shell, or is promdump's own (default: %s)", DefaultImage)
	case "CreateContainerConfigError", "CreateContainerError", "RunContainerError":
		return reason, "--image takes another image, --run-as-user another user"
	}
	return "", ""
}

// await looks at a pod until the container of ours in it runs.
func (c *Client) await(ctx context.Context, what, container string, look func(context.Context) (*corev1.Pod, *corev1.ContainerStatus, error)) (*corev1.Pod, error) {
	late := time.NewTimer(c.times.start)
	defer late.Stop()
	tick := time.NewTicker(c.times.poll / 2)
	defer tick.Stop()
	seen, tip := "it is not there yet", ""
	for {
		p, s, err := look(ctx)
		_, denied := errors.AsType[*PermissionError](err)
		_, gone := errors.AsType[*GoneError](err)
		switch {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case denied, gone:
			return nil, err
		case err != nil:
			seen = err.Error()
		case s != nil && s.State.Running != nil:
			return p, nil
		case over(p):
			phase, reason := podState(p)
			return nil, &HelperError{What: what, Reason: join(phase, reason), tip: fmt.Sprintf("why: kubectl describe pod -n %s %s", p.Namespace, p.Name)}
		default:
			if s != nil {
				if reason, tip := startFailed(s); reason != "" {
					return nil, &HelperError{What: what, Reason: reason, tip: tip}
				}
				if s.State.Waiting != nil {
					seen = join(s.State.Waiting.Reason, firstLine(s.State.Waiting.Message))
				}
			} else if phase, reason := podState(p); phase != "" {
				seen = join(phase, reason)
			}
			tip = fmt.Sprintf("why: kubectl describe pod -n %s %s", p.Namespace, p.Name)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-late.C:
			return nil, &HelperError{What: what, Reason: fmt.Sprintf("it does not run after %v: %s", c.times.start, join(seen, c.trouble(ctx, p, container))), tip: tip}
		case <-tick.C:
		}
	}
}
