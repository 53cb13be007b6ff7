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

// place is where restore goes: the same flags name it.
type place struct{ pods *pods }

func (p place) AddFlags(fs *pflag.FlagSet) {
	p.pods.addAgentFlags(fs, "way in: `auto|exec|debug`; an agent in the container, or in a debug container of the pod; auto takes the first that works",
		"`image` of the container that debug makes; has a shell, or is promdump's own")
	p.pods.addSchemeFlag(fs)
	p.pods.remote.AddWhoFlags(fs, "web-")
}

func (p place) Find(ctx context.Context, asked cli.Asked) (cli.There, error) {
	switch v := via(p.pods.via); v {
	case viaTar, viaRemote, viaPVC:
		return cli.There{}, cli.UsageError("exec and debug do", "restore --via %s: that way nothing is written", v)
	}
	f, err := p.pods.find(ctx, asked)
	if err != nil {
		return cli.There{}, err
	}
	if _, err := f.remote.Client(); err != nil { // before anything is sent
		return cli.There{}, err
	}
	agent, target, by, err := f.inspect(ctx)
	if err != nil {
		return cli.There{}, err
	}
	there := cli.There{
		Name: f.String(), Target: target, Retention: retention(ctx, f, asked), Notes: f.notes,
		Thanos: strings.Contains(strings.Join(f.target.Containers, " "), "thanos-sidecar"),
	}
	there.Send = func(ctx context.Context, dir string, ulids []string, progress func(int64)) (*wire.Restored, error) {
		files, err := pod.Uploads(dir, ulids)
		if err != nil {
			return nil, err
		}
		return agent.Send(ctx, files, progress)
	}
	there.Wait = func(ctx context.Context, blocks []restore.PlannedBlock) (string, error) {
		return wait(ctx, f, blocks)
	}
	there.Replacing = &replacing{found: *f, agent: agent, by: by, servers: target.Servers, id: ulid.Make().String()}
	return there, nil
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
func retention(ctx context.Context, f *found, asked cli.Asked) time.Duration {
	base, client, err := f.asks(ctx)
	if err == nil {
		defer client.CloseIdleConnections()
		var d time.Duration
		if d, err = restore.AskRetention(ctx, client, base); err == nil {
			return d
		}
	}
	asked.Logger.Debug("the server does not tell its retention", "error", err)
	text, ok := f.target.Flag("storage.tsdb.retention.time")
	if !ok {
		return 0
	}
	d, err := model.ParseDuration(text)
	if err != nil {
		return 0
	}
	if d == 0 {
		return -1
	}
	return time.Duration(d)
}

// wait asks the server itself.
func wait(ctx context.Context, f *found, blocks []restore.PlannedBlock) (string, error) {
	base, client, err := f.asks(ctx)
	if err != nil {
		return fmt.Sprintf("whether the server serves the blocks is not known, it cannot be reached (%v): it loads them within a minute", err), nil
	}
	defer client.CloseIdleConnections()
	return "", f.explainWeb(restore.WaitServed(ctx, client, base, blocks, 0))
}
