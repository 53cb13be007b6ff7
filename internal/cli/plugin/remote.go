package plugin

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/promdump/promdump/internal/cli"
	"github.com/promdump/promdump/internal/kube"
	"github.com/promdump/promdump/internal/restore"
	"github.com/promdump/promdump/internal/source/pod"
	"github.com/promdump/promdump/internal/wire"
)

const (
	restartTime = 15 * time.Minute // an operator gives a server ten to end
	servedTime  = 5 * time.Minute  // it replays its WAL first
)

// remote is the data directory of a pod, for one restore. After Restart it is that of the
// pod's successor.
type remote struct {
	found
	agent     *pod.Source // at work in the data dir
	by        via         // the way that it came
	inventory *wire.Target
	id        string // of the replacement
}

// RefusedError says why a data dir is better not replaced.
type RefusedError struct {
	Reason string
	tip    string
}

func (e *RefusedError) Error() string { return "replace what is there: " + e.Reason }

// ExitCode is that of the command.
func (e *RefusedError) ExitCode() int { return 1 }

// Hint returns what to do about it.
func (e *RefusedError) Hint() string { return e.tip }

// Inspect implements restore.Target: it returns what was seen when it was found.
func (r *remote) Inspect(context.Context) (*wire.Target, error) { return r.inventory, nil }

// Apply implements restore.Target.
func (r *remote) Apply(ctx context.Context, job restore.Job, sent func(int64)) (*wire.Restored, error) {
	files, err := pod.Uploads(job.Dirs...)
	if err != nil {
		return nil, err
	}
	if job.Replace {
		return r.agent.Replace(ctx, r.id, files, sent)
	}
	return r.agent.Send(ctx, files, sent)
}

func (r *remote) MayReplace(ctx context.Context, restart bool) (refused bool, err error) {
	if restart {
		err = r.client.MayRestart(ctx, r.target)
	}
	if err == nil {
		err = r.lets(restart)
	}
	_, ours := errors.AsType[*RefusedError](err)
	_, denied := errors.AsType[*kube.PermissionError](err)
	_, cannot := errors.AsType[*kube.RestartError](err)
	return ours || denied || cannot, err
}

// lets tells whether the server lets its data dir be replaced.
func (r *remote) lets(restart bool) error {
	if !r.target.Outlived() {
		return &RefusedError{"the data dir is on no volume, so the restart that must follow would take it away", "restore without --replace"}
	}
	if r.inventory.Servers > 0 {
		return nil
	}
	// It cannot be kept from going on by the names of its files.
	features, _ := r.target.Flag("enable-feature")
	from, name := "container "+r.target.Container, "-c names the container that Prometheus runs in"
	if r.by == viaDebug {
		// It has processes of its own, and sees no others.
		from, name = "a debug container", "restore without --replace, or --via exec where the server's container has a shell"
	}
	switch {
	case strings.Contains(features, "memory-snapshot-on-shutdown"):
		return &RefusedError{"the server writes its old head into the data dir as it ends (memory-snapshot-on-shutdown), and from " + from + " it cannot be kept from that", name}
	case !restart:
		return &RefusedError{"from " + from + " the server cannot be kept from writing into what is restored until it is restarted", "add --restart; or " + name}
	}
	return nil
}

func (r *remote) Settle(ctx context.Context) (*wire.Restored, error) {
	return r.agent.Settle(ctx, r.id)
}

func (r *remote) RestartCommand() string { return kube.RestartCommand(r.target) }

func (r *remote) Restart(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, restartTime)
	defer cancel()
	next, err := r.client.DeleteAndWait(ctx, r.target)
	if err != nil {
		return err
	}
	r.target = next
	r.agent, _, r.by, err = r.inspect(ctx)
	return err
}

func (r *remote) Discard(ctx context.Context) error { return r.agent.Discard(ctx, r.id) }

// Served asks the server. After a restart it does so again and again until the server
// answers: a pod may be ready before its server is.
func (r *remote) Served(ctx context.Context, is cli.Expected) (note string, err error) {
	if !is.Restarted {
		base, client, err := r.asks(ctx)
		if err != nil {
			return fmt.Sprintf("whether the server serves the blocks is not known, it cannot be reached (%v): it loads them within a minute", err), nil
		}
		defer client.CloseIdleConnections()
		return "", r.explainWeb(restore.WaitServed(ctx, client, base, is.Added, 0))
	}
	ctx, cancel := context.WithTimeout(ctx, servedTime)
	defer cancel()
	for {
		note, err = r.served(ctx, is)
		_, denied := errors.AsType[*kube.PermissionError](err)
		_, wrong := errors.AsType[*wrongError](err)
		_, refused := errors.AsType[*restore.RequestError](err)
		switch {
		case refused:
			return "", r.explainWeb(fmt.Errorf("cannot tell whether the server serves what was restored: %w", err))
		case denied:
			return fmt.Sprintf("whether the server serves what was restored is not known, it cannot be reached (%v); its pod is ready", err), nil
		case err == nil, wrong:
			return note, err
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("cannot tell whether the server serves what was restored: %w", err)
		case <-time.After(time.Second):
		}
	}
}

// wrongError says that a server does not serve what it should, which no waiting
// mends.
type wrongError struct{ what string }

func (e *wrongError) Error() string { return e.what }

func (r *remote) served(ctx context.Context, is cli.Expected) (string, error) {
	base, client, err := r.asks(ctx)
	if err != nil {
		return "", err
	}
	defer client.CloseIdleConnections()
	old, series, err := restore.AskReplaced(ctx, client, base, is.Gone)
	if err != nil {
		return "", err
	}
	if len(old) > 0 {
		return "", &wrongError{"the server still serves blocks that were taken away: " + strings.Join(old, ", ")}
	}
	if err := restore.WaitServed(ctx, client, base, is.Added, 0); err != nil {
		return "", err
	}
	if series < is.Series {
		return fmt.Sprintf("the server's head has %d series, and that of the dump has %d: is it about to make a block of it?", series, is.Series), nil
	}
	return "", nil
}
