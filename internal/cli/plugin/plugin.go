// Package plugin is the command line of kubectl promdump: promdump's commands,
// with a pod as the place that data comes from and goes to.
//
// It knows flags and what they mean; pods are found by package kube, agents by
// agentbin, and what is said to them by source/pod.
//
// What is not promised: that a Prometheus which was found is the one that was
// meant. What was taken is said before anything is done to it.
package plugin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/promdump/promdump/internal/agentbin"
	"github.com/promdump/promdump/internal/cli"
	"github.com/promdump/promdump/internal/kube"
	"github.com/promdump/promdump/internal/source/pod"
	"github.com/promdump/promdump/internal/term"
	"github.com/promdump/promdump/internal/wire"
)

// Main runs kubectl promdump with the arguments behind its name. It returns the
// exit code.
func Main(ctx context.Context, args []string, streams term.Streams) int {
	program, made := program()
	code := cli.Run(ctx, program, args, streams)
	if err := made.end(ctx); err != nil {
		streams.Talk("note: %v", err)
	}
	return code
}

// Program is kubectl promdump, for who describes it.
func Program() cli.Program {
	p, _ := program()
	return p
}

func program() (cli.Program, *made) {
	p := &pods{kube: kube.NewFlags(), made: &made{}}
	return cli.Program{
		Name:  "kubectl promdump",
		Short: "Dump a time range of a Prometheus in a pod into a file, query it and restore it",
		Example: `  kubectl promdump --since 2h -t dump.tar.gz
  kubectl promdump -n monitoring -p prometheus-0 -c prometheus -d /prometheus --start-time "2021-04-01 00:00:00" --end-time "2021-04-01 04:00:00" > dump.tar.gz
  kubectl promdump meta -p statefulset/prometheus
  kubectl promdump restore --context other -p prometheus-0 -t dump.tar.gz`,
		Data: p, Remote: remoteTarget{p},
	}, p.made
}

// pods are what the flags of a command name, as they were typed.
type pods struct {
	kube  *kube.Flags
	query kube.Query

	agentURL  string
	download  bool
	memory    string
	bandwidth string
	reconnect time.Duration
	gentle    bool
	via       string

	image  string
	runAs  string
	scheme string
	remote cli.RemoteFlags

	made *made
}

func (p *pods) AddGlobalFlags(fs *pflag.FlagSet) { p.kube.Add(fs) }

func (p *pods) AddFlags(fs *pflag.FlagSet) {
	p.addAgentFlags(fs, "Access method: `auto|exec|tar|remote-read|debug|pvc`; exec runs an agent in the container, "+
		"tar runs the container's tar, remote-read reads from the server, debug and pvc run an agent in a debug container "+
		"or in a pod that mounts the volume; auto uses the first one that works",
		"Container `image` for debug and pvc; it has a shell, or is promdump's own image")
	fs.DurationVar(&p.reconnect, "reconnect-timeout", 90*time.Second,
		"Maximum `duration` for which promdump retries after the connection breaks, and for which the agent waits; "+
			"with 0 the agent exits at once, and promdump uploads another one")
	fs.BoolVar(&p.gentle, "gentle", p.gentle, cli.GentleHelp)
	p.addSchemeFlag(fs)
	p.remote.AddFlags(fs, "web-")
}

func (p *pods) addSchemeFlag(fs *pflag.FlagSet) {
	fs.StringVar(&p.scheme, "web-scheme", p.scheme,
		"URL `scheme` of the server, http or https (default: that of the pod's probes)")
}

// addAgentFlags adds those of the ways that write, too.
func (p *pods) addAgentFlags(fs *pflag.FlagSet, ways, image string) {
	q := &p.query
	fs.StringVarP(&q.Pod, "pod", "p", q.Pod, "Prometheus `pod`, or TYPE/NAME: "+strings.Join(kube.Types(), ", ")+
		" (default: the Prometheus pod of the namespace)")
	fs.StringVarP(&q.Container, "container", "c", q.Container,
		"Name of the `container` in the pod (default: the one that runs Prometheus)")
	fs.StringVarP(&q.DataDir, "data-dir", "d", q.DataDir,
		"Path to the data `dir`ectory in the container (default: from the pod's spec)")
	p.AddListFlags(fs)
	fs.StringVar(&p.via, "via", string(viaAuto), ways)
	fs.StringVar(&p.agentURL, "agent-url", p.agentURL, "`URL` to download agents from that are not embedded "+
		"(default: $PROMDUMP_AGENT_URL, or the releases of promdump)")
	fs.BoolVar(&p.download, "download-agent", p.download, "If true, download the agent even if one is embedded")
	fs.StringVar(&p.memory, "memory-limit", p.memory,
		"Memory limit of the agent in the container, a `size` (default 64MiB)")
	fs.StringVar(&p.image, "image", kube.DefaultImage, image)
	fs.StringVar(&p.runAs, "run-as-user", p.runAs,
		"User ID of the container that --image names, a `uid` (default: that of the server)")
	fs.StringVar(&p.bandwidth, "bandwidth", p.bandwidth,
		"Maximum `size` per second that the agent sends, for example 10MiB (default: no limit)")
}

func (p *pods) AddListFlags(fs *pflag.FlagSet) {
	fs.StringVarP(&p.query.Selector, "selector", "l", p.query.Selector, "Label `selector` of the pod")
	fs.BoolVarP(&p.query.AllNamespaces, "all-namespaces", "A", p.query.AllNamespaces, "If true, search all namespaces")
}

func (p *pods) Given() bool { return p.query != kube.Query{} }

// Missing: whatever is not said is looked for.
func (p *pods) Missing() error { return nil }

func (p *pods) Open(ctx context.Context, asked cli.Asked) (cli.Opened, error) {
	f, err := p.find(ctx, asked)
	if err != nil {
		return cli.Opened{}, err
	}
	c := f.choice()
	return cli.Opened{Source: c, Kind: p.via, Notes: f.notes, After: f.guard.after}, nil
}

func (p *pods) find(ctx context.Context, asked cli.Asked) (*found, error) {
	f := &found{pods: p, asked: asked}
	if v := via(p.via); v != viaAuto && !slices.Contains(all, v) {
		return nil, cli.UsageError("", "--via %q is not auto, exec, tar, remote-read, debug or pvc", p.via)
	}
	if p.scheme != "" && p.scheme != "http" && p.scheme != "https" {
		return nil, cli.UsageError("", "--web-scheme %q is not http or https", p.scheme)
	}
	var err error
	if f.limits, err = p.limits(); err != nil {
		return nil, err
	}
	if f.remote, err = p.remote.Compile(); err != nil {
		return nil, err
	}
	if p.reconnect < 0 {
		return nil, cli.UsageError("for example 90s; 0 does not wait", "--reconnect-timeout must not be negative")
	}
	if p.runAs != "" {
		uid, err := strconv.ParseInt(p.runAs, 10, 32)
		if err != nil || uid < 0 {
			return nil, cli.UsageError("", "--run-as-user %q is no uid", p.runAs)
		}
		f.user = &uid
	}
	if f.client, err = p.kube.Client(); err != nil {
		return nil, err
	}
	if f.target, err = f.client.Find(ctx, p.query); err != nil {
		if err = p.anyway(f, err); err != nil {
			return nil, explain(err)
		}
	}
	t := f.target
	asked.Logger.Debug("found", "pod", t.String(), "container", t.Container, "dirs", t.Dirs(), "because", t.DataDirFrom, "image", t.Image)
	if p.query.Pod == "" {
		f.notes = append(f.notes, fmt.Sprintf("found %s, container %s, data dir %s", t, t.Container, strings.Join(t.Dirs(), " or ")))
	}
	return f, nil
}

// anyway goes on with a server that is down where a way to its data is left, and
// says with each error what the way would take.
func (p *pods) anyway(f *found, err error) error {
	v := via(p.via)
	if down, ok := errors.AsType[*kube.NotRunningError](err); ok && down.Target.Container != "" {
		if v == viaAuto || v == viaDebug || v == viaPVC {
			f.target = down.Target
			f.notes = append(f.notes, down.Error())
			return nil
		}
		return &downError{down}
	}
	// Who may not even look is told all that it takes, not one thing after the other.
	if may, ok := errors.AsType[*kube.PermissionError](err); ok && may.Verb != "" && may.Access == kube.ToFind && may.Namespace != "" {
		e := &noWayError{target: "a Prometheus in namespace " + may.Namespace}
		for _, one := range all {
			if v == viaAuto || v == one {
				e.refused = append(e.refused, refusal{one, may})
			}
		}
		return e
	}
	return err
}

// downError is of a server that is down, with the ways that are left.
type downError struct{ *kube.NotRunningError }

func (e *downError) Unwrap() error { return e.NotRunningError }

func (e *downError) Hint() string {
	var left []string
	if e.Target.OnVolume && !e.Target.Over {
		left = append(left, "--via debug, through a debug container in its pod")
	}
	if e.Target.Claim != "" {
		left = append(left, "--via pvc, through a pod that mounts its volume")
	}
	if len(left) == 0 {
		return e.NotRunningError.Hint()
	}
	return fmt.Sprintf("its data can be had all the same: %s; %s", strings.Join(left, ", or "), e.NotRunningError.Hint())
}

func (p *pods) limits() (l wire.Limits, err error) {
	if l.Memory, err = bytesOf("--memory-limit", p.memory); err != nil {
		return l, err
	}
	if l.Memory > 0 && l.Memory < 24<<20 {
		return l, cli.UsageError("the agent needs 24MiB at least", "--memory-limit %s is too little", p.memory)
	}
	l.Gentle = p.gentle
	l.Bandwidth, err = bytesOf("--bandwidth", p.bandwidth)
	return l, err
}

var units = []struct {
	name string
	size float64
}{
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"Ki", 1 << 10}, {"Mi", 1 << 20}, {"Gi", 1 << 30},
	{"kB", 1e3}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"k", 1e3}, {"K", 1e3}, {"M", 1e6}, {"G", 1e9}, {"B", 1}, {"", 1},
}

// bytesOf reads a number of bytes, with a unit or without.
func bytesOf(flag, text string) (int64, error) {
	if text == "" {
		return 0, nil
	}
	for _, u := range units {
		number, ok := strings.CutSuffix(text, u.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
		if err == nil && n*u.size >= 1 && n*u.size < 1<<60 {
			return int64(n * u.size), nil
		}
		break
	}
	return 0, cli.UsageError("for example 64MiB, or a number of bytes", "%s %q is no number of bytes", flag, text)
}

func exec(client *kube.Client, t kube.Target) pod.Exec {
	return func(ctx context.Context, command []string, s pod.Streams) error {
		err := client.Exec(ctx, t, command, kube.Streams{In: s.In, Out: s.Out, Err: s.Err, Much: s.Much})
		if none, ok := errors.AsType[*kube.NoCommandError](err); ok {
			return &pod.AgentError{Err: none, Tip: "its image has neither a shell nor tar: --via remote-read asks the server itself, --via debug adds a container that has a shell; or name another container of the pod that mounts the data dir with -c"}
		}
		if end, ok := errors.AsType[*kube.ExitError](err); ok {
			return &pod.ExitError{Code: end.Code, Err: err}
		}
		return err
	}
}

// agents finds the agent for the machine: as the container says, or else as the
// cluster does.
func (p *pods) agents(client *kube.Client, t kube.Target, asked cli.Asked) pod.Agents {
	var got *agentbin.Agent // for all uploads of this command
	return func(ctx context.Context, machine string) ([]byte, int64, error) {
		if got != nil {
			return got.Gzip, got.Size, nil
		}
		arch := agentbin.Arch(machine)
		if machine == "unknown" || machine == "" {
			var err error
			if arch, err = client.Architecture(ctx, t); err != nil || arch == "" {
				asked.Logger.Debug("architecture is not known, amd64 is as good as any", "error", err)
				arch = "amd64"
			}
		}
		a, err := agentbin.Get(ctx, arch, agentbin.Options{
			Version: cli.Version(), URL: cmp.Or(p.agentURL, os.Getenv("PROMDUMP_AGENT_URL")),
			Force: p.download, Logger: asked.Logger,
		})
		if err != nil {
			return nil, 0, err
		}
		for _, n := range a.Notes {
			asked.Note(n)
		}
		asked.Logger.Debug("agent", "arch", arch, "from", a.From, "bytes", a.Size)
		got = a
		return a.Gzip, a.Size, nil
	}
}
