package plugin

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/promdump/promdump/internal/cli"
	"github.com/promdump/promdump/internal/kube"
	"github.com/promdump/promdump/internal/term"
)

// List implements cli.Lister.
func (p *pods) List(ctx context.Context, _ cli.Asked) ([]term.Column, [][]string, error) {
	client, err := p.kube.Client()
	if err != nil {
		return nil, nil, err
	}
	targets, err := client.List(ctx, p.query)
	if err != nil {
		return nil, nil, err
	}
	rows := make([][]string, len(targets))
	for i, t := range targets {
		rows[i] = append(row(t), ways(ctx, client, t))
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

// ways says by which ways the data can be had as far as the cluster's rules tell.
func ways(ctx context.Context, client *kube.Client, t kube.Target) string {
	if !t.Running {
		return "none: it does not run"
	}
	if err := client.May(ctx, t, kube.ToExec); err != nil {
		return "none: pods/exec is not allowed"
	}
	return "exec"
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
