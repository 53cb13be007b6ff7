package plugin

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"slices"
	"strings"

	"github.com/promdump/promdump/internal/agentbin"
	"github.com/promdump/promdump/internal/kube"
	"github.com/promdump/promdump/internal/source"
	"github.com/promdump/promdump/internal/source/pod"
	"github.com/promdump/promdump/internal/source/remoteread"
	"github.com/promdump/promdump/internal/wire"
)

// via is how the data is had.
type via string

const (
	viaAuto   via = "auto" // the first of the others that works, in this order
	viaExec   via = "exec"
	viaTar    via = "tar"
	viaRemote via = "remote-read"
	viaDebug  via = "debug"
	viaPVC    via = "pvc"
)

// all are in the order in which auto tries them: what gives all and harms least
// comes first. Remote read makes the server work; a debug container leaves a mark
// in the pod; a pod with the volume is one more in the cluster.
var all = []via{viaExec, viaTar, viaRemote, viaDebug, viaPVC}

// access is what a way asks of the cluster.
var access = map[via]kube.Access{
	viaExec: kube.ToExec, viaTar: kube.ToExec, viaRemote: kube.ToForward, viaDebug: kube.ToDebug, viaPVC: kube.ToMount,
}

// gives tells a person what a way is.
var gives = map[via]string{
	viaExec:   "an agent in the container: all data",
	viaTar:    "tar in the container: all data, cut at home",
	viaRemote: "the server itself, through a forwarded port: the selected samples",
	viaDebug:  "an agent in a debug container of the pod: all data",
	viaPVC:    "an agent in a pod that mounts the volume: all data",
}

// way is one of them, for one Prometheus.
type way struct {
	via  via
	open func(ctx context.Context) (source.Source, error)
}

// choice is the source that reads by the first of them that works.
type choice struct {
	name   string
	list   []way
	note   func(string)
	logger *slog.Logger
	guard  *guard // of the server's container; nil: there is none

	taken   via
	refused []refusal
}

// refusal is why a way was left.
type refusal struct {
	via via
	err error
}

// because tells why the i-th was left.
func because(all []refusal, i int) string {
	text := all[i].err.Error()
	if i > 0 && text == all[i-1].err.Error() {
		return "the same"
	}
	return text
}

func (w *choice) String() string { return w.name }

// Kind is the way that was taken.
func (w *choice) Kind() string { return string(w.taken) }

func (w *choice) Inventory(ctx context.Context) (inv *wire.Inventory, err error) {
	err = w.try(ctx, func(ctx context.Context, s source.Source) (bool, error) {
		got, err := s.Inventory(ctx)
		inv = got
		return err == nil, err
	})
	return inv, err
}

func (w *choice) Read(ctx context.Context, req wire.Request) iter.Seq2[wire.Message, error] {
	return func(yield func(wire.Message, error) bool) {
		left := false
		if w.guard != nil {
			w.guard.during = "the dump"
		}
		err := w.try(ctx, func(ctx context.Context, s source.Source) (told bool, err error) {
			for m, err := range s.Read(ctx, req) {
				if err != nil {
					return told, err
				}
				if !told {
					w.took()
				}
				told = true
				if !yield(m, nil) {
					left = true
					return true, nil
				}
			}
			return true, nil
		})
		if err != nil && !left {
			yield(nil, err)
		}
	}
}

// try asks one way after the other until one has told something, or fails for a
// reason that no other way would mend.
func (w *choice) try(ctx context.Context, ask func(context.Context, source.Source) (told bool, err error)) error {
	for list := w.list; len(list) > 0; {
		one := list[0]
		if list = list[1:]; one.via == viaTar && w.noTar() || one.via != viaRemote && w.noExec() {
			continue
		}
		w.taken = one.via
		s, err := one.open(ctx)
		told := false
		if err == nil {
			told, err = w.watched(ctx, s, ask)
		}
		err = w.explain(err)
		if told {
			w.took()
			return cut(err)
		}
		if isShort(err) && (one.via == viaExec || one.via == viaTar) {
			list = besides(list)
		}
		if err == nil || ctx.Err() != nil || !another(one.via, err) {
			return err
		}
		w.logger.Debug("a way that cannot be taken", "via", string(one.via), "error", err)
		w.refused = append(w.refused, refusal{one.via, err})
	}
	if len(w.refused) == 1 {
		return w.refused[0].err
	}
	return &noWayError{target: w.name, refused: w.refused}
}

// watched asks a source for as long as the server's container is the same.
func (w *choice) watched(ctx context.Context, s source.Source, ask func(context.Context, source.Source) (told bool, err error)) (told bool, err error) {
	if w.guard == nil {
		return ask(ctx, s)
	}
	watched, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := w.guard.watch(watched, cancel)
	told, err = ask(watched, s)
	stop()
	if err == nil || ctx.Err() != nil {
		return told, err
	}
	if watched.Err() != nil {
		return told, context.Cause(watched)
	}
	if dead, restarted := errors.AsType[*kube.RestartedError](err); !restarted || dead.Reason == "" {
		if dead := w.guard.same(ctx); dead != nil { // the cluster knows more by now
			return told, dead
		}
	}
	return told, err
}

// noTar: the agent would have come by tar if there were one.
func (w *choice) noTar() bool {
	for _, r := range w.refused {
		if a, ok := errors.AsType[*pod.AgentError](r.err); ok && a.NoTar {
			return true
		}
	}
	return false
}

// noExec reports whether a gateway before the API server lets no command through. All
// ways but the server's port need one.
func (w *choice) noExec() bool {
	return slices.ContainsFunc(w.refused, func(r refusal) bool {
		_, upgrade := errors.AsType[*kube.UpgradeError](r.err)
		return upgrade && r.via != viaRemote
	})
}

// took says once which way was taken, and why, where there was a choice.
func (w *choice) took() {
	if w.note != nil && w.guard != nil && w.guard.isBlind() && (w.taken == viaExec || w.taken == viaTar) {
		w.note("how much memory the container has left could not be checked: it has no cat, or shows no memory cgroup of its own")
	}
	if len(w.list) == 1 || w.note == nil {
		return
	}
	text := fmt.Sprintf("by %s, %s", w.taken, gives[w.taken])
	for i, r := range w.refused {
		if i == 0 {
			text += "; not by "
		} else {
			text += ", nor by "
		}
		text += fmt.Sprintf("%s: %s", r.via, because(w.refused, i))
	}
	w.note(text)
	w.note = nil
}

// another tells whether another way may do what this one could not. A data dir
// that is not there, and a stream that broke, are the same by all of them.
func another(v via, err error) bool {
	_, agent := errors.AsType[*pod.AgentError](err)
	_, rights := errors.AsType[*kube.PermissionError](err)
	_, helper := errors.AsType[*kube.HelperError](err)
	_, none := errors.AsType[*agentbin.Error](err)       // for that machine
	_, upgrade := errors.AsType[*kube.UpgradeError](err) // gateways may refuse exec alone
	if agent || rights || helper || none || isShort(err) || upgrade && v != viaRemote {
		return true
	}
	_, refused := errors.AsType[*remoteread.RefusedError](err)
	_, server := errors.AsType[*remoteread.ServerError](err)
	_, lost := errors.AsType[*remoteread.LostError](err)
	_, answer := errors.AsType[*remoteread.AnswerError](err)
	_, unknown := errors.AsType[*remoteread.UnknownError](err)
	return v == viaRemote && (refused || server || lost || answer || unknown)
}

// noWayError says that there is no way to the data, and why by none.
type noWayError struct {
	target  string
	refused []refusal
}

func (e *noWayError) Error() string {
	var each []string
	for i, r := range e.refused {
		each = append(each, fmt.Sprintf("%s: %s", r.via, because(e.refused, i)))
	}
	return fmt.Sprintf("there is no way to the data of %s: %s", e.target, strings.Join(each, "; "))
}

// Unwrap gives what is the matter with each way.
func (e *noWayError) Unwrap() (all []error) {
	for _, r := range e.refused {
		all = append(all, r.err)
	}
	return all
}

// lacking are the rights that are missing.
func (e *noWayError) lacking() (lack []refusal) {
	for _, r := range e.refused {
		if p, ok := errors.AsType[*kube.PermissionError](r.err); ok && p.Verb != "" {
			lack = append(lack, r)
		}
	}
	return lack
}

// ExitCode is that of missing rights where granting them would help.
func (e *noWayError) ExitCode() int {
	if len(e.lacking()) > 0 {
		return 11
	}
	code := 1
	for _, r := range e.refused {
		if c, ok := errors.AsType[interface {
			error
			ExitCode() int
		}](r.err); ok {
			code = max(code, c.ExitCode())
		}
	}
	return code
}

// Hint has the Role for each way that lacks nothing but rights.
func (e *noWayError) Hint() string {
	var roles []string
	had := map[kube.Access]bool{}
	for _, r := range e.lacking() {
		p, _ := errors.AsType[*kube.PermissionError](r.err)
		a := access[r.via]
		if had[a] {
			continue
		}
		had[a] = true
		roles = append(roles, fmt.Sprintf("# --via %s: %s\n%s", r.via, gives[r.via], p.Role(a)))
	}
	if len(roles) > 0 {
		return "who administers the cluster grants one of these ways with kubectl apply -f - and its part of this:\n" + strings.Join(roles, "---\n")
	}
	for i := len(e.refused) - 1; i >= 0; i-- {
		h, ok := errors.AsType[interface {
			error
			Hint() string
		}](e.refused[i].err)
		if ok && h.Hint() != "" {
			return e.orMemory(h.Hint())
		}
	}
	return ""
}

// orMemory adds to a hint what would open the methods that lack memory.
func (e *noWayError) orMemory(hint string) string {
	const more = "raise the container's memory limit"
	if strings.Contains(hint, more) || !slices.ContainsFunc(e.refused, func(r refusal) bool { return isShort(r.err) }) {
		return hint
	}
	return hint + "; or " + more
}
