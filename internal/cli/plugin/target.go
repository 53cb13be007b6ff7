package plugin

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/common/model"
	"github.com/spf13/pflag"

	"github.com/promdump/promdump/internal/cli"
	"github.com/promdump/promdump/internal/kube"
	"github.com/promdump/promdump/internal/restore"
	"github.com/promdump/promdump/internal/source"
	"github.com/promdump/promdump/internal/source/pod"
	"github.com/promdump/promdump/internal/wire"
)

// remoteTarget finds the pod that a dump is restored into: the same flags name it.
type remoteTarget struct{ pods *pods }

func (p remoteTarget) AddFlags(fs *pflag.FlagSet) {
	p.pods.addAgentFlags(fs, "Access method: `auto|exec|debug`; exec runs an agent in the container, "+
		"debug in a debug container of the pod; auto uses the first one that works",
		"Container `image` for debug; it has a shell, or is promdump's own image")
	p.pods.addSchemeFlag(fs)
	p.pods.remote.AddWhoFlags(fs, "web-")
}

func (p remoteTarget) Find(ctx context.Context, asked cli.Asked) (cli.FoundTarget, error) {
	switch v := via(p.pods.via); v {
	case viaTar, viaRemote, viaPVC:
		return cli.FoundTarget{}, cli.UsageError("exec and debug do", "restore --via %s: that way nothing is written", v)
	}
	f, err := p.pods.find(ctx, asked)
	if err != nil {
		return cli.FoundTarget{}, err
	}
	if _, err := f.remote.Client(); err != nil { // before anything is sent
		return cli.FoundTarget{}, err
	}
	agent, target, by, err := f.inspect(ctx)
	if err != nil {
		return cli.FoundTarget{}, err
	}
	target.Live = true // the pod has a server, also where its lock cannot be seen
	target.Thanos = target.Thanos || strings.Contains(strings.Join(f.target.Containers, " "), "thanos-sidecar")
	keeps, version := retention(ctx, f, asked)
	return cli.FoundTarget{
		Name: f.String(), Retention: keeps, Version: version, Notes: f.notes,
		Remote: &remote{found: *f, agent: agent, by: by, inventory: target, id: ulid.Make().String()},
	}, nil
}

// inspect looks at the data dir by the first way that can write into it.
func (f *found) inspect(ctx context.Context) (agent *pod.Source, target *wire.Target, by via, err error) {
	w := f.choice()
	f.guard.others = slices.DeleteFunc(f.guard.others, func(v via) bool { return v != viaDebug }) // the others cannot write
	f.guard.during = "the restore"
	w.list = slices.DeleteFunc(w.list, func(one way) bool { return one.via != viaExec && one.via != viaDebug })
	for i := range w.list {
		if w.list[i].via == viaDebug {
			w.list[i].open = func(ctx context.Context) (source.Source, error) {
				if err := f.client.May(ctx, f.target, kube.ToDebug); err != nil {
					return nil, err
				}
				return f.helper(ctx, viaDebug, true)
			}
		}
	}
	err = w.try(ctx, func(ctx context.Context, s source.Source) (bool, error) {
		a, ok := s.(*pod.Source)
		if !ok {
			return false, fmt.Errorf("%s cannot be written to by %s", w, w.taken)
		}
		agent = a
		target, err = a.Inspect(ctx)
		return err == nil, err
	})
	return agent, target, w.taken, err
}

// retention asks the server itself, and else its command line; 0: not known.
func retention(ctx context.Context, f *found, asked cli.Asked) (d time.Duration, version string) {
	base, client, err := f.asks(ctx)
	if err == nil {
		defer client.CloseIdleConnections()
		if d, version, err = restore.AskRetention(ctx, client, base); err == nil {
			return d, version
		}
	}
	asked.Logger.Debug("the server does not say its retention", "error", err)
	text, ok := f.target.Flag("storage.tsdb.retention.time")
	if !ok {
		return 0, version
	}
	parsed, err := model.ParseDuration(text)
	if err != nil {
		return 0, version
	}
	if parsed == 0 {
		return -1, version
	}
	return time.Duration(parsed), version
}
