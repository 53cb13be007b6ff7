package plugin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/promdump/promdump/internal/cli"
	"github.com/promdump/promdump/internal/kube"
	"github.com/promdump/promdump/internal/source/pod"
	"github.com/promdump/promdump/internal/term"
)

// List implements cli.Lister. Beside what the cluster tells it tries what runs in
// each container, all at the same time: an exec costs a third of a second.
func (p *pods) List(ctx context.Context, asked cli.Asked) ([]term.Column, [][]string, error) {
	client, err := p.kube.Client()
	if err != nil {
		return nil, nil, err
	}
	targets, err := client.List(ctx, p.query)
	if err != nil {
		return nil, nil, err
	}
	rows := make([][]string, len(targets))
	var group errgroup.Group
	group.SetLimit(atOnce)
	for i, t := range targets {
		group.Go(func() error {
			rows[i] = append(row(t), waysTo(ctx, client, t, asked))
			return ctx.Err()
		})
	}
	if err := group.Wait(); err != nil {
		return nil, nil, err
	}
	return append(columns(), term.Column{Name: "WAYS IN"}), rows, nil
}

func columns() []term.Column {
	return []term.Column{{Name: "NAMESPACE"}, {Name: "POD"}, {Name: "CONTAINER"}, {Name: "IMAGE"}, {Name: "DATA DIR"}, {Name: "PHASE"}}
}

func row(t kube.Target) []string {
	dir := t.DataDir
	if dir == "" {
		dir = t.Candidates[0] + "?" // the likeliest
	}
	phase := t.Phase
	if why, _, _ := strings.Cut(t.Reason, ","); !t.Running && why != "" {
		phase += " (" + why + ")"
	}
	return []string{t.Namespace, t.Pod, t.Container, t.Image, dir, phase}
}

const (
	atOnce    = 10              // containers that are tried at the same time
	probeTime = 5 * time.Second // for one of them
)

// inside is what was found of a Prometheus.
type inside struct {
	sh, tar chance // in its container
	server  chance // answers
	debug   chance // a debug container would have its data
	claim   chance // its data lies on a claim
}

// chance is how likely something works.
type chance int

const (
	never   chance = iota - 1
	perhaps        // it could not be found out
	surely
)

// works tells by what a way works, as far as that was found out.
var works = map[via]func(inside) chance{
	viaExec:   func(in inside) chance { return max(in.sh, in.tar) },
	viaTar:    func(in inside) chance { return in.tar },
	viaRemote: func(in inside) chance { return in.server },
	viaDebug:  func(in inside) chance { return in.debug },
	viaPVC:    func(in inside) chance { return in.claim },
}

// waysTo says by which ways the data can be had.
func waysTo(ctx context.Context, client *kube.Client, t kube.Target, asked cli.Asked) string {
	if t.Container == "" {
		return "none: -c names the container"
	}
	allowed := map[kube.Access]bool{}
	for _, v := range all {
		if _, known := allowed[access[v]]; !known {
			err := client.May(ctx, t, access[v])
			_, denied := errors.AsType[*kube.PermissionError](err)
			allowed[access[v]] = !denied
		}
	}
	in := inside{sh: never, tar: never, server: never, debug: never, claim: never}
	if t.Claim != "" {
		in.claim = surely
	}
	if !t.Over && (t.Running || t.OnVolume) {
		in.debug = surely
	}
	if t.Running {
		ctx, cancel := context.WithTimeout(ctx, probeTime)
		defer cancel()
		var group sync.WaitGroup
		if allowed[kube.ToExec] {
			run := exec(client, t)
			group.Go(func() { in.sh = runs(ctx, run, "sh", "-c", "exit 0") })
			group.Go(func() { in.tar = runs(ctx, run, "tar", "--version") })
		}
		if allowed[kube.ToForward] {
			group.Go(func() { in.server = listens(ctx, client, t) })
		}
		group.Wait()
	}
	asked.Logger.Debug("ways", "pod", t.String(), "allowed", allowed, "inside", in)
	return describeWays(allowed, in)
}

// listens connects to the server's port: what is closed ends at once, what is open
// waits to be asked.
func listens(ctx context.Context, client *kube.Client, t kube.Target) chance {
	conn, err := client.Dial(ctx, t, t.Port)
	if err != nil {
		return perhaps
	}
	defer func() { _ = conn.Close() }()
	const moment = 500 * time.Millisecond
	if err := conn.SetReadDeadline(time.Now().Add(moment)); err != nil {
		return perhaps
	}
	if _, err := conn.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
		return surely
	}
	return never
}

// runs tries a command that does nothing and ends at once. That it fails shows as
// well as its success that it is there.
func runs(ctx context.Context, run pod.Exec, command ...string) chance {
	err := run(ctx, command, pod.Streams{Out: io.Discard, Err: io.Discard})
	_, none := errors.AsType[*pod.AgentError](err)
	_, failed := errors.AsType[*pod.ExitError](err)
	switch {
	case none:
		return never
	case err == nil, failed:
		return surely
	}
	return perhaps
}

// describeWays lists the ways that are allowed and not surely in vain. One of which
// it could not be found out has a question mark.
func describeWays(allowed map[kube.Access]bool, in inside) string {
	var open, closed []string
	for _, v := range all {
		switch works[v](in) {
		case surely:
			if allowed[access[v]] {
				open = append(open, string(v))
			} else {
				closed = append(closed, string(v))
			}
		case perhaps:
			if allowed[access[v]] {
				open = append(open, string(v)+"?")
			}
		}
	}
	switch {
	case len(open) > 0:
		return strings.Join(open, ", ")
	case len(closed) > 0:
		return "none: not allowed are " + strings.Join(closed, ", ")
	}
	return "none"
}

// explain shows the choice when there are several.
func explain(err error) error {
	several, ok := errors.AsType[*kube.SeveralError](err)
	if !ok {
		return err
	}
	var table strings.Builder
	var rows [][]string
	for _, t := range several.Targets {
		rows = append(rows, row(t))
	}
	if terr := term.Table(&table, columns(), rows); terr != nil {
		return err
	}
	return fmt.Errorf("%w:\n%s", err, strings.TrimRight(table.String(), "\n"))
}
