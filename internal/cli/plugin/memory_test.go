package plugin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/promdump/promdump/internal/kube"
	"github.com/promdump/promdump/internal/source"
	"github.com/promdump/promdump/internal/source/pod"
	"github.com/promdump/promdump/internal/wire"
)

const mebi = 1 << 20

// known is a cluster that knows this.
type known struct {
	memory kube.Memory
	same   error
}

func (k *known) Memory(context.Context, kube.Target) (kube.Memory, error) { return k.memory, nil }
func (k *known) Same(context.Context, kube.Target) error                  { return k.same }

// cgroup is what a container's files say; the numbers are in MiB.
func cgroup(limit, used, kills int, age time.Duration) string {
	const up = 1000000
	return fmt.Sprintf("%d\n%d\noom_kill %d\ninactive_file 0\n%d.00 1.00\n1 (prometheus) S %s%d 0 0\n",
		limit*mebi, used*mebi, kills, up, strings.Repeat("0 ", 18), (up-int(age.Seconds()))*100)
}

// container answers commands with these texts, one after the other.
type container struct {
	says []string
	err  error
	runs int
}

func (c *container) exec(_ context.Context, command []string, s pod.Streams) error {
	if command[0] != "cat" {
		return fmt.Errorf("%v is run before the memory is checked", command)
	}
	text := ""
	if len(c.says) > 0 {
		text = c.says[min(c.runs, len(c.says)-1)]
	}
	c.runs++
	if _, err := io.WriteString(s.Out, text); err != nil {
		return err
	}
	if c.err != nil {
		return c.err
	}
	return &pod.ExitError{Code: 1, Err: errors.New("half of the files are missing")} // as cat does
}

func (c *container) guard(k *known) *guard {
	return &guard{
		cluster: k, exec: c.exec, logger: slog.New(slog.DiscardHandler), during: "the dump",
		target: kube.Target{Namespace: "mon", Pod: "p", Container: "prometheus", Running: true, Ready: true},
		others: []via{viaDebug, viaRemote},
	}
}

func TestMemoryIsChecked(t *testing.T) {
	need := int(pod.AgentNeed() / mebi)
	limited := kube.Memory{Limit: 256 * mebi, PodLimit: 256 * mebi, Free: -1, PodFree: -1}
	alone := limited // a container beside it has no limit, so the pod has none
	alone.PodLimit = 0
	with := func(m kube.Memory, free int64) kube.Memory {
		m.Free, m.From = free*mebi, "the kubelet"
		return m
	}
	grown := func(m kube.Memory) kube.Memory {
		m.Grown = 50 * mebi
		return m
	}
	killed := limited
	killed.OOMKilled = true
	noCat := &pod.AgentError{Err: errors.New("no cat")}
	for _, c := range []struct {
		name    string
		memory  kube.Memory
		says    []string
		err     error
		runs    int
		want    string // the error begins so
		hint    string
		tight   bool
		unknown bool
		viaTar  bool
	}{
		{name: "no limit: no command", memory: kube.Memory{Free: -1, PodFree: -1}},
		{name: "enough", memory: limited, says: []string{cgroup(256, 50, 0, time.Hour)}, runs: 1},
		{name: "just enough", memory: limited, says: []string{cgroup(256, 256-need, 0, time.Hour)}, runs: 1, tight: true},
		{name: "the kubelet says too little: no command", memory: with(alone, 5), runs: 0,
			want: fmt.Sprintf("the container has 5 MiB of its 256 MiB of memory left (by the kubelet), and --via exec needs %d MiB: nothing was uploaded", need),
			hint: "--via debug runs the agent in a container of its own, --via remote-read asks the server itself; or raise the container's memory limit"},
		{name: "the server grew since the kubelet looked: no command", memory: grown(with(alone, 55)), runs: 0,
			want: "the container had 55 MiB of its 256 MiB of memory left (by the kubelet), and grew so fast", hint: "--via debug"},
		{name: "the server grew less", memory: grown(with(alone, 57)), says: []string{cgroup(256, 206, 0, time.Hour)}, runs: 1},
		{name: "the kubelet is behind", memory: with(alone, 200), says: []string{cgroup(256, 250, 0, time.Hour)}, runs: 1,
			want: "the container has 6 MiB of its 256 MiB of memory left (by its cgroup)", hint: "--via debug"},
		{name: "a debug container shares the pod's limit", memory: limited, says: []string{cgroup(256, 250, 0, time.Hour)}, runs: 1,
			want: "the container has 6 MiB", hint: "--via remote-read asks the server itself; or raise"},
		{name: "the limit alone is too small: no command", memory: kube.Memory{Limit: 20 * mebi, Free: -1, PodFree: -1},
			want: "the container has 20 MiB of its 20 MiB of memory left (by the pod's spec)", hint: "--via debug"},
		{name: "tar needs less", memory: alone, says: []string{cgroup(256, 244, 0, time.Hour)}, runs: 1, viaTar: true, tight: true},
		{name: "no cat", memory: limited, err: noCat, runs: 1, unknown: true},
		{name: "no cat, but the kubelet", memory: with(limited, 200), err: noCat, runs: 1},
		{name: "no cat, and killed before", memory: killed, err: noCat, runs: 1, want: "how much memory the container has left cannot be read, and the kernel killed its last run"},
		{name: "the output is lost once", memory: limited, says: []string{"", cgroup(256, 50, 0, time.Hour)}, runs: 2},
		{name: "the end of the output is lost once", memory: limited, says: []string{"268435456\n", cgroup(256, 50, 0, time.Hour)}, runs: 2},
		{name: "no cgroup of its own", memory: limited, says: []string{"anon 5\n"}, runs: 2, unknown: true},
		{name: "the look was killed", memory: alone, err: &pod.ExitError{Code: 137, Err: errors.New("killed")}, runs: 1,
			want: "the kernel killed the first command in the container, most likely for lack of memory", hint: "--via debug"},
		{name: "the look failed", memory: alone, err: errors.New("broken"), runs: 1, want: "look at the container's memory: broken"},
	} {
		in := &container{says: c.says, err: c.err}
		g := in.guard(&known{memory: c.memory})
		v := viaExec
		if c.viaTar {
			v = viaTar
		}
		tight, err := g.before(v)(t.Context())
		text, hint := "", ""
		if err != nil {
			text = err.Error()
		}
		if short, ok := errors.AsType[*shortError](err); ok {
			hint = short.Hint()
			if short.ExitCode() != 12 {
				t.Errorf("%s: exit %d, hint %s", c.name, short.ExitCode(), hint)
			}
		}
		if !strings.HasPrefix(text, c.want) || (text == "") != (c.want == "") || !strings.HasPrefix(hint, c.hint) ||
			tight != c.tight || g.isBlind() != c.unknown || in.runs != c.runs {
			t.Errorf("%s: %q, hint %q, tight %v, blind %v, %d commands", c.name, text, hint, tight, g.isBlind(), in.runs)
		}
	}
}

// A second stream goes into the same run of the container alone, also while the cluster
// does not know yet that there is another.
func TestSecondStream(t *testing.T) {
	unlimited := kube.Memory{Free: -1, PodFree: -1}
	limited := kube.Memory{Limit: 256 * mebi, Free: -1, PodFree: -1}
	for _, c := range []struct {
		name     string
		memory   kube.Memory
		says     []string
		settling bool
		want     string
	}{
		{"the same", limited, []string{cgroup(256, 50, 2, time.Hour), cgroup(256, 50, 2, time.Hour)}, false, ""},
		{"a new one", limited, []string{cgroup(256, 50, 0, time.Hour), cgroup(256, 50, 0, 5*time.Second)}, false, "the Prometheus container restarted during the dump"},
		{"a new one without a limit", unlimited, []string{cgroup(256, 50, 0, 5*time.Second)}, false, "the Prometheus container restarted during the dump"},
		{"a process was killed", limited, []string{cgroup(256, 50, 2, time.Hour), cgroup(256, 50, 3, time.Hour)}, false,
			"the kernel killed a process of the Prometheus container for lack of memory during the dump"},
		{"what was begun is brought to its end", limited, []string{cgroup(256, 50, 0, time.Hour), cgroup(256, 50, 3, 5*time.Second)}, true, ""},
	} {
		in := &container{says: c.says}
		g := in.guard(&known{memory: c.memory})
		check := g.before(viaExec)
		if _, err := check(t.Context()); err != nil {
			t.Errorf("%s: first %v", c.name, err)
		}
		g.begin = g.begin.Add(-time.Minute) // so long ago
		ctx := t.Context()
		if c.settling {
			ctx = pod.WithSettling(ctx)
		}
		_, err := check(ctx)
		text := ""
		if err != nil {
			text = err.Error()
		}
		stops, _ := errors.AsType[interface {
			error
			Stops() bool
			ExitCode() int
		}](err)
		if text != c.want || err != nil && (stops == nil || stops.ExitCode() != 3) {
			t.Errorf("%s: %q, want %q", c.name, text, c.want)
		}
	}
}

// After a dump the server is looked at once more.
func TestAfter(t *testing.T) {
	restarted := &kube.RestartedError{Reason: "OOMKilled", Running: true}
	for _, c := range []struct {
		name  string
		same  error
		ready bool
		says  []string
		want  string
	}{
		{"as it was", nil, true, []string{cgroup(256, 50, 2, time.Hour)}, ""},
		{"restarted", restarted, true, nil, "the Prometheus container restarted (OOMKilled) during the dump"},
		{"killed a child", nil, true, []string{cgroup(256, 50, 3, time.Hour)}, "the kernel killed a process of the Prometheus container for lack of memory during the dump"},
		{"it crashed all the time", restarted, false, nil, ""},
	} {
		in := &container{says: append([]string{cgroup(256, 50, 2, time.Hour)}, c.says...)}
		k := &known{memory: kube.Memory{Limit: 256 * mebi, Free: -1, PodFree: -1}}
		g := in.guard(k)
		if g.target.Ready = c.ready; c.ready {
			if _, err := g.before(viaExec)(t.Context()); err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
		}
		k.same = c.same
		text := ""
		if err := g.after(t.Context()); err != nil {
			text = err.Error()
		}
		if text != c.want {
			t.Errorf("%s: %q, want %q", c.name, text, c.want)
		}
	}
}

// asking is a source that is checked as those in the server's container are.
type asking struct {
	told
	check func(context.Context) (bool, error)
}

func (s asking) Read(ctx context.Context, req wire.Request) iter.Seq2[wire.Message, error] {
	return func(yield func(wire.Message, error) bool) {
		if _, err := s.check(ctx); err != nil {
			yield(nil, err)
			return
		}
		s.told.Read(ctx, req)(yield)
	}
}

// Where memory is short auto takes what needs none of the server's, and says why. What
// does not fit into the pod or the server either is left out.
func TestAutoWhereMemoryIsShort(t *testing.T) {
	alone := kube.Memory{Limit: 256 * mebi, Free: -1, PodFree: -1}
	shared := alone
	shared.PodLimit = 256 * mebi
	stale := shared
	stale.PodFree = 200 * mebi
	failure := &wire.Failure{Text: "the container has 9 MiB", Code: 12, Memory: true}
	for _, c := range []struct {
		name   string
		memory kube.Memory
		used   int
		agent  error // what an agent that is let in says
		broken via   // fails too
		taken  via
		note   string
		err    string
		hint   string
	}{
		{name: "debug", memory: alone, used: 250, taken: viaDebug, note: "by debug, an agent in a debug container of the pod: all data; not by exec: the container has 6 MiB of its 256 MiB of memory left"},
		{name: "debug shares the limit", memory: shared, used: 246, taken: viaRemote, note: "nor by debug: the pod has 10 MiB of its 256 MiB of memory left, and a container that is added to it shares that"},
		{name: "debug shares the limit, and the kubelet is behind", memory: stale, used: 246, taken: viaRemote, note: "nor by debug: the pod has 10 MiB of its 256 MiB of memory left, and a container that is added to it shares that"},
		{name: "the server has nothing left either", memory: shared, used: 250, taken: viaPVC, note: "nor by remote-read: the server would have to answer with the 6 MiB"},
		{name: "nothing is left", memory: shared, used: 250, broken: viaPVC, err: "there is no way to the data of x: exec: the container has 6 MiB", hint: "raise the container's memory limit"},
		{name: "the agent says so", memory: alone, used: 10, agent: failure, taken: viaDebug, note: "not by exec: the container has 9 MiB"},
		{name: "enough", memory: alone, used: 10, taken: viaExec, note: "by exec"},
	} {
		in := &container{says: []string{cgroup(256, c.used, 0, time.Hour)}}
		g := in.guard(&known{memory: c.memory})
		var notes []string
		w := &choice{name: "x", logger: slog.New(slog.DiscardHandler), note: func(s string) { notes = append(notes, s) }, guard: g}
		for _, v := range all {
			w.list = append(w.list, way{v, func(ctx context.Context) (source.Source, error) {
				switch v {
				case viaExec:
					return asking{told{before: c.agent}, g.before(viaExec)}, nil
				case viaTar:
					return asking{told{}, g.before(viaTar)}, nil
				case viaRemote:
					if err := g.asks(); err != nil {
						return nil, err
					}
				case viaDebug:
					if err := g.beside(ctx, v); err != nil {
						return nil, err
					}
				}
				if v == c.broken {
					return nil, &pod.AgentError{Err: errors.New("no claim"), Tip: "tip"}
				}
				return told{}, nil
			}})
		}
		var err error
		for _, e := range w.Read(t.Context(), wire.Request{}) {
			err = e
		}
		text, hint := "", ""
		if none, ok := errors.AsType[*noWayError](err); ok {
			text, hint = none.Error(), none.Hint()
		} else if err != nil {
			text = err.Error()
		}
		if !strings.HasPrefix(text, c.err) || (text == "") != (c.err == "") || c.taken != "" && w.Kind() != string(c.taken) ||
			!strings.Contains(strings.Join(notes, "\n"), c.note) || !strings.Contains(hint, c.hint) {
			t.Errorf("%s: by %s, notes %q, error %q, hint %q", c.name, w.Kind(), notes, text, hint)
		}
		if slices.ContainsFunc(w.refused, func(r refusal) bool { return r.via == viaTar }) {
			t.Errorf("%s: tar was tried, which is charged to the server too", c.name)
		}
	}
}

// A dump that was begun and lost its agent to a lack of memory is incomplete, and its
// hints fit the command.
func TestCutShort(t *testing.T) {
	for _, c := range []struct {
		name   string
		err    error
		others []via
		hint   string
	}{
		{"the agent stops itself", &wire.Failure{Text: "stopped", Code: 12, Memory: true, Tip: "as it was"}, []via{viaDebug, viaRemote}, "--via debug"},
		{"the agent was killed", &pod.LostError{Tries: 8, Err: &pod.ExitError{Code: 137, Err: errors.New("killed")}}, []via{viaDebug, viaRemote},
			"something killed the agent, most likely the kernel for lack of memory; --via debug"},
		{"in a restore", &pod.LostError{Tries: 8, Err: &pod.ExitError{Code: 137, Err: errors.New("killed")}}, []via{viaDebug},
			"something killed the agent, most likely the kernel for lack of memory; --via debug runs the agent in a container of its own; or raise"},
	} {
		g := (&container{}).guard(&known{})
		g.others = c.others
		w := &choice{name: "x", logger: slog.New(slog.DiscardHandler), guard: g, list: []way{{viaExec, func(context.Context) (source.Source, error) { return told{after: c.err}, nil }}}}
		var err error
		for _, e := range w.Read(t.Context(), wire.Request{}) {
			err = e
		}
		e, ok := errors.AsType[interface {
			error
			ExitCode() int
			Hint() string
		}](err)
		if !ok || e.ExitCode() != 3 || !strings.HasPrefix(e.Hint(), c.hint) || !errors.Is(err, c.err) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
