package plugin

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"strings"
	"testing"

	"github.com/promdump/promdump/internal/agentbin"
	"github.com/promdump/promdump/internal/kube"
	"github.com/promdump/promdump/internal/source"
	"github.com/promdump/promdump/internal/source/pod"
	"github.com/promdump/promdump/internal/source/remoteread"
	"github.com/promdump/promdump/internal/wire"
)

// told is a source that tells an end, or fails before or after it has begun.
type told struct {
	before, after error
}

func (s told) String() string { return "told" }

func (s told) Inventory(context.Context) (*wire.Inventory, error) {
	if s.before != nil {
		return nil, s.before
	}
	return &wire.Inventory{}, s.after
}

func (s told) Read(context.Context, wire.Request) iter.Seq2[wire.Message, error] {
	return func(yield func(wire.Message, error) bool) {
		if s.before != nil {
			yield(nil, s.before)
			return
		}
		if yield(&wire.Plan{}, nil) && s.after != nil {
			yield(nil, s.after)
		}
	}
}

func TestChoice(t *testing.T) {
	agent := &pod.AgentError{Err: errors.New("no shell"), Tip: "tip"}
	may := func(verb, resource string) error {
		return &kube.PermissionError{User: "bob", Verb: verb, Resource: resource, Namespace: "mon"}
	}
	down := &remoteread.ServerError{What: "no answer", Code: 10, Tip: "tip"}
	broken := errors.New("broken")
	gateway := fmt.Errorf("start a shell: %w", &kube.UpgradeError{Server: "https://api", Refused: []string{"WebSocket: 403 Forbidden"}})
	_, none := agentbin.Get(t.Context(), "sparc", agentbin.Options{})
	type each map[via]source.Source
	ok := told{}
	for _, c := range []struct {
		name  string
		ways  each
		taken via
		note  string
		err   string
		code  int
	}{
		{"the first", each{viaExec: ok, viaTar: ok}, viaExec, "by exec, an agent in the container: all data", "", 0},
		{"the first that works", each{viaExec: told{before: agent}, viaTar: told{before: agent}, viaRemote: ok, viaDebug: ok}, viaRemote,
			"not by exec: the agent could not run: no shell, nor by tar: the same", "", 0},
		{"no agent for its machine", each{viaExec: told{before: fmt.Errorf("upload: %w", none)}, viaTar: ok}, viaTar, "not by exec: ", "", 0},
		{"what remote read cannot give", each{viaRemote: told{before: &remoteread.RefusedError{What: "--head=raw"}}, viaDebug: ok}, viaDebug, "not by remote-read: --head=raw", "", 0},
		{"what may be", each{viaExec: told{before: may("create", "pods/exec")}, viaPVC: ok}, viaPVC, "bob may not create pods/exec", "", 0},
		{"what no other way mends", each{viaExec: told{before: broken}, viaTar: ok}, viaExec, "", "broken", 0},
		{"a gateway that refuses exec", each{viaExec: told{before: gateway}, viaTar: ok, viaRemote: ok}, viaRemote, "not by exec: start a shell: neither WebSocket nor SPDY", "", 0},
		{"a gateway that refuses all", each{viaExec: told{before: gateway}, viaRemote: told{before: gateway}, viaDebug: ok, viaPVC: ok}, viaRemote, "",
			"start a shell: neither WebSocket nor SPDY comes through to the API server https://api: WebSocket: 403 Forbidden", 0},
		{"what had begun", each{viaExec: told{after: agent}, viaTar: ok}, viaExec, "by exec", "the agent could not run: no shell", 12},
		{"none, for want of rights", each{viaExec: told{before: agent}, viaRemote: told{before: may("create", "pods/portforward")}, viaDebug: told{before: may("patch", "pods/ephemeralcontainers")}}, "", "",
			"there is no way to the data of x: exec: the agent could not run: no shell; remote-read: not permitted: bob may not create pods/portforward in namespace mon; debug: not permitted: bob may not patch pods/ephemeralcontainers in namespace mon", 11},
		{"none", each{viaExec: told{before: agent}, viaTar: told{before: agent}, viaRemote: told{before: down}}, "", "",
			"there is no way to the data of x: exec: the agent could not run: no shell; tar: the same; remote-read: no answer", 12},
	} {
		for _, inventory := range []bool{false, true} {
			var notes []string
			w := &choice{name: "x", logger: slog.New(slog.DiscardHandler), note: func(s string) { notes = append(notes, s) }}
			for _, v := range all {
				if s, ok := c.ways[v]; ok {
					w.list = append(w.list, way{v, func(context.Context) (source.Source, error) { return s, nil }})
				}
			}
			var err error
			if inventory {
				if _, err = w.Inventory(t.Context()); c.name == "what had begun" {
					continue // an inventory is told at once
				}
			} else {
				for _, e := range w.Read(t.Context(), wire.Request{}) {
					err = e
				}
			}
			text := ""
			if err != nil {
				text = err.Error()
			}
			if text != c.err || c.taken != "" && w.Kind() != string(c.taken) {
				t.Errorf("%s: by %s: %q", c.name, w.Kind(), text)
			}
			if got := strings.Join(notes, "\n"); !strings.Contains(got, c.note) || (c.note == "") != (got == "") {
				t.Errorf("%s: %q", c.name, got)
			}
			none, is := errors.AsType[*noWayError](err)
			if is && (none.ExitCode() != c.code || c.code == 11 && (strings.Count(none.Hint(), "kind: Role\n") != 2 || !strings.Contains(none.Hint(), "# --via debug"))) {
				t.Errorf("%s: exit %d\n%s", c.name, none.ExitCode(), none.Hint())
			}
		}
	}
}

// Who may not even look is told every way at once.
func TestNothingAllowed(t *testing.T) {
	p := &pods{via: string(viaAuto)}
	err := p.anyway(&found{}, &kube.PermissionError{User: "carol", Verb: "get", Resource: "pods", Namespace: "mon", Access: kube.ToFind})
	none, ok := errors.AsType[*noWayError](err)
	if !ok || none.ExitCode() != 11 {
		t.Fatalf("%T %v", err, err)
	}
	for _, name := range []string{"promdump-exec", "promdump-forward", "promdump-debug", "promdump-pvc"} {
		if strings.Count(none.Hint(), "metadata: {name: "+name+", namespace: mon}") != 2 {
			t.Errorf("no Role %s in\n%s", name, none.Hint())
		}
	}
}
