//go:build linux

package kube

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// result is what a command said.
type result struct {
	stdout, stderr string
	code           int // -1: killed
}

// as gives the kubeconfig of a user: admin, bob or carol.
func (c *cluster) as(user string) string {
	if user == "admin" {
		return c.config
	}
	return filepath.Join(filepath.Dir(c.config), user+".kubeconfig")
}

func (c *cluster) kubectl() string { return filepath.Join(c.dir, "bin", "kubectl") }

// command is kubectl with this kubeconfig, to be run by the caller. It is killed
// when ctx ends.
func (c *cluster) command(ctx context.Context, config string, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, c.kubectl(), append([]string{"--kubeconfig", config}, args...)...)
}

// run runs kubectl with this kubeconfig, whatever its exit code is. After five
// minutes it is killed.
func (c *cluster) run(t *testing.T, config string, args ...string) result {
	t.Helper()
	// Not t.Context: that is over when cleanups run.
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	return finish(t, c.command(ctx, config, args...))
}

func finish(t *testing.T, cmd *exec.Cmd) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%s: %v", strings.Join(cmd.Args, " "), err)
	}
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// kubectl is the admin's, and the test fails unless it exits 0.
func kubectl(t *testing.T, args ...string) string {
	t.Helper()
	return kubectlIn(t, "", args...)
}

// kubectlIn has this on its stdin.
func kubectlIn(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	c := booted(t)
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	cmd := c.command(ctx, c.config, args...)
	if stdin != "" {
		cmd.Stdin = strings.NewReader(stdin)
	}
	r := finish(t, cmd)
	if r.code != 0 {
		t.Fatalf("kubectl %s: exit %d\n%s%s", strings.Join(args, " "), r.code, r.stdout, r.stderr)
	}
	return r.stdout
}

// namespace makes a namespace of this test alone. It stays until the cluster
// ends: nothing here could delete it.
func namespace(t *testing.T) string {
	t.Helper()
	return strings.TrimPrefix(strings.TrimSpace(kubectlIn(t, `{"apiVersion":"v1","kind":"Namespace","metadata":{"generateName":"test-"}}`,
		"create", "-o", "name", "-f", "-")), "namespace/")
}

// grant lets a user do something in a namespace: verbs and resources as kubectl
// create role has them, joined by commas.
func grant(t *testing.T, user, namespace, verbs, resources string) {
	t.Helper()
	name := user + "-" + strings.NewReplacer(",", "-", "/", "-").Replace(verbs+"-"+resources)
	kubectl(t, "-n", namespace, "create", "role", name, "--verb="+verbs, "--resource="+resources)
	kubectl(t, "-n", namespace, "create", "rolebinding", name, "--role="+name, "--user="+user)
	t.Cleanup(func() { kubectl(t, "-n", namespace, "delete", "role/"+name, "rolebinding/"+name) })
}

// copyConfig makes a kubeconfig of a user's that reaches the apiserver at
// another address.
func copyConfig(t *testing.T, user, addr string) string {
	t.Helper()
	c := booted(t)
	b, err := os.ReadFile(c.as(user))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), user+".kubeconfig")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	view := c.run(t, file, "config", "view", "--minify", "-o", "jsonpath={.clusters[0].name}")
	// The certificate is not for whatever name the proxy has.
	set := c.run(t, file, "config", "set-cluster", view.stdout, "--server=https://"+addr, "--tls-server-name=kubernetes")
	if set.code != 0 {
		t.Fatalf("kubectl config set-cluster: %s", set.stderr)
	}
	return file
}
