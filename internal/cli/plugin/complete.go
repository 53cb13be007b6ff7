package plugin

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/promdump/promdump/internal/kube"
)

// completeTime is how long a person waits for what a shell may offer.
const completeTime = 3 * time.Second

// Complete implements cli.Completer. Whatever fails offers nothing: who types does not
// want to read errors.
func (p *pods) Complete(cmd *cobra.Command) {
	offer := func(flag string, names func(ctx context.Context) ([]string, error)) {
		// It fails for a flag that the command has not got.
		_ = cmd.RegisterFlagCompletionFunc(flag, func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
			ctx, cancel := context.WithTimeout(cmd.Context(), completeTime)
			defer cancel()
			all, err := names(ctx)
			if err != nil {
				cobra.CompDebugln(err.Error(), false)
			}
			return all, cobra.ShellCompDirectiveNoFileComp
		})
	}
	ask := func(f func(ctx context.Context, c *kube.Client) ([]string, error)) func(context.Context) ([]string, error) {
		return func(ctx context.Context) ([]string, error) {
			client, err := p.kube.Client()
			if err != nil {
				return nil, err
			}
			return f(ctx, client)
		}
	}
	offer("pod", ask(func(ctx context.Context, c *kube.Client) (names []string, err error) {
		q := p.query
		q.Pod, q.Container, q.DataDir = "", "", ""
		targets, err := c.List(ctx, q)
		pods := map[string]int{} // of what they belong to
		targets = slices.DeleteFunc(targets, func(t kube.Target) bool { return t.Over })
		for _, t := range targets {
			names = append(names, cobra.CompletionWithDesc(t.Pod, t.Phase+", "+t.Image))
			for _, name := range t.Of {
				pods[name]++
			}
		}
		for _, name := range slices.Sorted(maps.Keys(pods)) {
			if pods[name] == 1 { // else it would be asked which pod is meant
				names = append(names, name)
			}
		}
		return names, err
	}))
	offer("container", ask(func(ctx context.Context, c *kube.Client) ([]string, error) {
		q := p.query
		q.Container = ""
		t, err := c.Find(ctx, q) // its Containers are there, too, if which of them is meant cannot be told
		return t.Containers, err
	}))
	offer("data-dir", func(context.Context) ([]string, error) { return nil, nil }) // it is not of this machine
	offer("namespace", ask(func(ctx context.Context, c *kube.Client) ([]string, error) { return c.Namespaces(ctx) }))
	for i, flag := range []string{"context", "cluster", "user"} {
		offer(flag, func(context.Context) ([]string, error) {
			contexts, clusters, users := p.kube.Names()
			return [][]string{contexts, clusters, users}[i], nil
		})
	}
}
