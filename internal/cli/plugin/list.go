package plugin

import (
	"context"
	"errors"
	"fmt"
	"io"
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
	var all errgroup.Group
	all.SetLimit(atOnce)
	for i, t := range targets {
		all.Go(func() error {
			rows[i] = append(row(t), waysTo(ctx, client, t, asked))
			return ctx.Err()
		})
	}
	if err := all.Wait(); err != nil {
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

// inside is what was found in a container.
type inside struct{ sh, tar chance }

// chance is how likely something works.
type chance int

const (
	never   chance = iota - 1
	perhaps        // it could not be found out
	surely
)

// ways are all of them in the order of auto: what each needs of the cluster's
// rules, and of the container.
var ways = []struct {
	via    way
	access kube.Access
	works  func(inside) chance
}{
	{viaExec, kube.ToExec, func(in inside) chance { return max(in.sh, in.tar) }},
	{viaTar, kube.ToExec, func(in inside) chance { return in.tar }},
}

// waysTo says by which ways the data can be had.
func waysTo(ctx context.Context, client *kube.Client, t kube.Target, asked cli.Asked) string {
	if !t.Running {
		return "none: it does not run"
	}
	allowed := map[kube.Access]bool{}
	for _, w := range ways {
		if _, known := allowed[w.access]; !known {
			err := client.May(ctx, t, w.access)
			_, denied := errors.AsType[*kube.PermissionError](err)
			allowed[w.access] = !denied
		}
	}
	in := inside{}
	if allowed[kube.ToExec] {
		ctx, cancel := context.WithTimeout(ctx, probeTime)
		defer cancel()
		run := exec(client, t)
		var both sync.WaitGroup
		both.Go(func() { in.sh = runs(ctx, run, "sh", "-c", "exit 0") })
		both.Go(func() { in.tar = runs(ctx, run, "tar", "--version") })
		both.Wait()
	}
	asked.Logger.Debug("ways", "pod", t.String(), "allowed", allowed, "inside", in)
	return describeWays(allowed, in)
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
	var all []string
	some := false
	for _, w := range ways {
		if !allowed[w.access] {
			continue
		}
		some = true
		switch w.works(in) {
		case surely:
			all = append(all, string(w.via))
		case perhaps:
			all = append(all, string(w.via)+"?")
		}
	}
	switch {
	case len(all) > 0:
		return strings.Join(all, ", ")
	case some:
		return "none: its image has neither sh nor tar"
	}
	return "none: pods/exec is not allowed"
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
