package plugin

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/promdump/promdump/internal/kube"
	"github.com/promdump/promdump/internal/source/pod"
)

// guard looks after the server's container: before something is uploaded into it,
// whether its memory is enough, and while a command reads, whether it is still the one
// that was found.
type guard struct {
	cluster cluster
	target  kube.Target
	exec    pod.Exec // into the server's container
	logger  *slog.Logger
	others  []via  // methods of this command that run nothing in the server's container
	during  string // "the dump": what the command does; empty: it only looks

	mu     sync.Mutex
	begin  time.Time
	looked bool // the memory was read in the container at least once
	kills  int64
	inside via // the method that has run something in the container; empty: none yet
	last   *shortError
	blind  bool // the memory could not be checked
}

// cluster is as much of [kube.Client] as a guard needs.
type cluster interface {
	Memory(ctx context.Context, t kube.Target) (kube.Memory, error)
	Same(ctx context.Context, t kube.Target) error
}

const (
	lookTime  = 30 * time.Second // for the command that reads the cgroup's files
	watchTime = 10 * time.Second // between two looks at the pod while a command reads
	startSlop = 2 * time.Second  // two clocks: a first process that is this much younger is a new one
)

// before returns the check that is made each time before a method runs something in
// the server's container.
func (g *guard) before(v via) func(context.Context) (tight bool, err error) {
	need := pod.AgentNeed()
	if v == viaTar {
		need = pod.TarNeed()
	}
	return func(ctx context.Context) (bool, error) {
		tight, err := g.check(ctx, v, need)
		if short, ok := errors.AsType[*shortError](err); ok {
			g.mu.Lock()
			g.last = short
			g.mu.Unlock()
		}
		return tight, err
	}
}

func (g *guard) check(ctx context.Context, v via, need int64) (tight bool, err error) {
	m, err := g.cluster.Memory(ctx, g.target)
	if err != nil {
		return false, fmt.Errorf("look at the memory of container %s: %w", g.target.Container, err)
	}
	again := g.enter(v)
	limited := m.Limit > 0 || m.PodLimit > 0
	if !limited && !again {
		return false, nil
	}
	known, from := outside(m, need)
	if known.Limit > 0 && known.Free() < need {
		return false, g.short(m, v, known, need, from)
	}
	if outgrown(m, known) {
		e := g.short(m, v, known, need, from)
		e.what = fmt.Sprintf("the container had %s of its %s of memory left (by %s), and grew so fast before that one command may be too much now",
			mib(known.Free()), mib(known.Limit), from)
		return false, e
	}
	in, ok, err := g.look(ctx)
	if err != nil {
		return false, err
	}
	if err := g.changed(ctx, in, ok, again); err != nil {
		return false, err
	}
	switch {
	case !limited:
		return false, nil
	case ok && in.Limit > 0 && in.Free() < need:
		return false, g.short(m, v, in, need, "its cgroup")
	case ok:
		g.logger.Debug("memory of the container", "free", in.Free(), "limit", in.Limit, "needed", need)
		return in.Tight(need), nil
	case known.Limit == 0 && m.OOMKilled:
		return false, &shortError{
			via: v, others: g.possible(m, -1),
			what: "how much memory the container has left cannot be read, and the kernel killed its last run for lack of memory",
		}
	case known.Limit == 0:
		g.mu.Lock()
		g.blind = true
		g.mu.Unlock()
	}
	return known.Tight(need), nil
}

// enter notes that a method is about to run something in the container, and tells
// whether it has done so before.
func (g *guard) enter(v via) (again bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.inside == v {
		return true
	}
	g.inside, g.begin = v, time.Now()
	return false
}

// outside is the memory as the cluster reports it: what is measured, or that the limit
// alone is too little. Without a limit it says nothing.
func outside(m kube.Memory, need int64) (known pod.Memory, from string) {
	free, limit, from := m.Free, m.Limit, m.From
	if m.PodFree >= 0 && (free < 0 || m.PodFree < free) {
		free, limit = m.PodFree, m.PodLimit
	}
	if free >= 0 {
		return pod.Memory{Limit: limit, Used: max(0, limit-free)}, from
	}
	for _, l := range []int64{m.Limit, m.PodLimit} {
		if l > 0 && l < need {
			return pod.Memory{Limit: l}, "the pod's spec"
		}
	}
	return pod.Memory{}, ""
}

// outgrown reports whether the server may have taken so much since it was measured that a
// single command is too much.
func outgrown(m kube.Memory, known pod.Memory) bool {
	return m.From != "" && known.Limit > 0 && known.Free()-m.Grown < pod.ExecNeed()
}

// changed compares the container with what the first look saw. The cluster's API is a
// second behind; the container itself is not.
func (g *guard) changed(ctx context.Context, in pod.Memory, ok, again bool) error {
	if pod.Settling(ctx) {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if again && in.Age > 0 && in.Age+startSlop < time.Since(g.begin) {
		t := g.target
		return &duringError{&kube.RestartedError{Namespace: t.Namespace, Pod: t.Pod, Container: t.Container, Running: true}, g.during}
	}
	if ok && g.looked && in.Kills > g.kills {
		return &duringError{&killedError{more: g.others}, g.during}
	}
	if ok && !g.looked {
		g.looked, g.kills = true, in.Kills
	}
	return nil
}

// look reads the memory in the container by one command. ok is false where that is
// not possible.
func (g *guard) look(ctx context.Context) (m pod.Memory, ok bool, err error) {
	for range 2 { // the end of an output may be lost, and no error says so
		m, ok, err = g.lookOnce(ctx)
		if err != nil || ok && m.Age > 0 {
			break
		}
	}
	if _, none := errors.AsType[*pod.AgentError](err); none {
		return pod.Memory{}, false, nil
	}
	return m, ok, err
}

func (g *guard) lookOnce(ctx context.Context) (pod.Memory, bool, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, lookTime, fmt.Errorf("no answer in %v", lookTime))
	defer cancel()
	var out bytes.Buffer
	err := g.exec(ctx, pod.MemoryCommand(), pod.Streams{In: strings.NewReader(""), Out: &limited{w: &out, left: 1 << 20}, Err: io.Discard})
	end, ended := errors.AsType[*pod.ExitError](err)
	switch {
	case ended && end.Code == 128+9:
		return pod.Memory{}, false, &shortError{
			via: viaExec, others: g.others, need: pod.AgentNeed(),
			what: "the kernel killed the first command in the container, most likely for lack of memory",
		}
	case err != nil && !ended: // files of the other version of cgroups are missing: 1
		if context.Cause(ctx) != nil {
			err = context.Cause(ctx)
		}
		return pod.Memory{}, false, fmt.Errorf("look at the container's memory: %w", err)
	}
	m, ok := pod.ParseMemory(out.String())
	return m, ok, nil
}

// limited drops what is beyond its limit.
type limited struct {
	w    io.Writer
	left int
}

func (l *limited) Write(p []byte) (int, error) {
	n := min(len(p), l.left)
	l.left -= n
	_, err := l.w.Write(p[:n])
	return len(p), err
}

// beside checks that the pod has memory for an agent in a container that is added to
// it, which shares the pod's limit. What is not known is no error.
func (g *guard) beside(ctx context.Context, v via) error {
	m, err := g.cluster.Memory(ctx, g.target)
	if err != nil {
		return fmt.Errorf("look at the memory of pod %s: %w", g.target, err)
	}
	used := int64(-1)
	g.mu.Lock()
	if g.last != nil && g.last.used > 0 {
		used = g.last.used
	}
	g.mu.Unlock()
	need, free := pod.AgentNeed(), podFree(m, used)
	if m.PodLimit == 0 || free < 0 || free >= need {
		return nil
	}
	return &shortError{
		via: v, free: free, need: need, limit: m.PodLimit, others: slices.DeleteFunc(slices.Clone(g.others), func(o via) bool { return o == v }),
		what: fmt.Sprintf("the pod has %s of its %s of memory left, and a container that is added to it shares that, but --via %s needs %s",
			mib(free), mib(m.PodLimit), v, mibUp(need)),
	}
}

// asks checks that a server that is short of memory can answer remote reads.
func (g *guard) asks() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.last == nil || g.last.need == 0 || g.last.free >= pod.RemoteReadNeed {
		return nil
	}
	return &shortError{
		via: viaRemote, free: g.last.free, need: pod.RemoteReadNeed, limit: g.last.limit,
		others: slices.DeleteFunc(slices.Clone(g.last.others), func(v via) bool { return v == viaRemote }),
		what:   fmt.Sprintf("the server would have to answer with the %s that its container has left, and needs %s", mib(g.last.free), mibUp(pod.RemoteReadNeed)),
	}
}

// podFree is what the pod's limit leaves, as far as that is known, if the server uses so
// many bytes (negative: not known). A measurement of the pod may be many seconds old, and
// is not more than what the server leaves. Without one it is at least what the server
// leaves of its own limit, which is a part of the pod's. Negative: not known.
func podFree(m kube.Memory, used int64) int64 {
	switch {
	case used < 0:
		return m.PodFree
	case m.PodFree >= 0:
		return min(m.PodFree, max(0, m.PodLimit-used))
	case m.Limit > 0:
		return max(0, m.Limit-used)
	}
	return -1
}

// possible are the other methods, without those that would share the pod's limit if
// that is short too.
func (g *guard) possible(m kube.Memory, used int64) []via {
	others := slices.Clone(g.others)
	free := podFree(m, used)
	if m.PodLimit > 0 && free >= 0 && free < pod.AgentNeed() {
		others = slices.DeleteFunc(others, func(v via) bool { return v == viaDebug })
	}
	return others
}

func (g *guard) short(m kube.Memory, v via, in pod.Memory, need int64, from string) *shortError {
	return &shortError{
		via: v, free: in.Free(), need: need, limit: in.Limit, used: in.Used,
		others: g.possible(m, in.Used),
		what: fmt.Sprintf("the container has %s of its %s of memory left (by %s), and --via %s needs %s",
			mib(in.Free()), mib(in.Limit), from, v, mibUp(need)),
	}
}

// same returns an error if the server's container is not the run any more that was
// found. A server that was not ready then may restart at any time, by itself.
func (g *guard) same(ctx context.Context) error {
	g.mu.Lock()
	watched := g.target.Ready || g.inside != ""
	g.mu.Unlock()
	if !g.target.Running || !watched || pod.Settling(ctx) {
		return nil
	}
	if err := g.cluster.Same(ctx, g.target); err != nil {
		return &duringError{err, g.during}
	}
	return nil
}

// watch looks at the pod until the returned function is called, and cancels what runs
// when the server's container was restarted.
func (g *guard) watch(ctx context.Context, cancel context.CancelCauseFunc) (stop func()) {
	ctx, end := context.WithCancel(ctx)
	var group sync.WaitGroup
	group.Go(func() {
		tick := time.NewTicker(watchTime)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if err := g.same(ctx); err != nil && ctx.Err() == nil {
				cancel(err)
				return
			}
		}
	})
	return func() {
		end()
		group.Wait()
	}
}

// after is the last look, when all that was asked for is here.
func (g *guard) after(ctx context.Context) error {
	if err := g.same(ctx); err != nil {
		return err
	}
	g.mu.Lock()
	looked := g.looked
	g.mu.Unlock()
	if !looked {
		return nil
	}
	in, ok, err := g.look(ctx)
	if err != nil {
		g.logger.Debug("the container's memory cannot be looked at again", "error", err)
		return g.same(ctx)
	}
	return g.changed(ctx, in, ok, true)
}
