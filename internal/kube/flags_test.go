package kube

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
)

const kubeconfig = `
apiVersion: v1
kind: Config
clusters:
- {name: c1, cluster: {server: "https://one.example:6443"}}
- {name: c2, cluster: {server: "https://two.example:6443"}}
users: [{name: u, user: {token: t}}]
contexts:
- {name: prod-eu, context: {cluster: c1, user: u, namespace: mon}}
- {name: prod-us, context: {cluster: c2, user: u}}
- {name: broken, context: {cluster: nowhere, user: u}}
current-context: prod-eu
`

// asks makes a client of flags, as a command does.
func asks(t *testing.T, config string, args ...string) (*Client, error) {
	t.Helper()
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("KUBECONFIG", "")
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	t.Setenv("KUBERNETES_MASTER", "")
	if config != "" {
		file := filepath.Join(home, "config")
		if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
		t.Setenv("KUBECONFIG", file)
	}
	f, fs := NewFlags(), pflag.NewFlagSet("test", pflag.ContinueOnError)
	f.Add(fs)
	if err := fs.Parse(args); err != nil {
		t.Fatal(err)
	}
	return f.Client()
}

func TestFlags(t *testing.T) {
	for _, c := range []struct {
		args                       string
		server, namespace, context string
	}{
		{"", "https://one.example:6443", "mon", "prod-eu"},
		{"--context prod-us", "https://two.example:6443", "default", "prod-us"},
		{"--context=prod-us -n x", "https://two.example:6443", "x", "prod-us"},
		{"--cluster c2", "https://two.example:6443", "mon", "prod-eu"},
		{"-s https://three.example", "https://three.example", "mon", "prod-eu"},
	} {
		got, err := asks(t, kubeconfig, strings.Fields(c.args)...)
		if err != nil || got.Server != c.server || got.Namespace != c.namespace || got.Context != c.context {
			t.Errorf("%s: %+v, %v", c.args, got, err)
		}
	}
	got, err := asks(t, "", "--server", "https://x.example", "--token", "y")
	if err != nil || got.Server != "https://x.example" || got.Namespace != "default" {
		t.Errorf("without a kubeconfig: %+v, %v", got, err)
	}
}

// The time limit of requests would cut a dump.
func TestRequestTimeout(t *testing.T) {
	c, err := asks(t, kubeconfig, "--request-timeout", "7s", "--as", "dave", "--as-group", "g")
	if err != nil {
		t.Fatal(err)
	}
	if c.streams.Timeout != 0 {
		t.Errorf("streams end after %v", c.streams.Timeout)
	}
	if got := c.core.RESTClient().Get().URL().Host; got != "one.example:6443" {
		t.Error(got)
	}
	if c.streams.Impersonate.UserName != "dave" || c.streams.Impersonate.Groups[0] != "g" {
		t.Errorf("%+v", c.streams.Impersonate)
	}
	slow := newStub(t)
	slow.hang()
	c, err = asks(t, "", "--server", slow.url, "--request-timeout", "50ms")
	if err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	_, err = c.Find(t.Context(), Query{Pod: "x"})
	if message, _, code := told(err); code != 1 || !strings.Contains(message, "cannot be reached") || time.Since(begun) > 5*time.Second {
		t.Errorf("%v after %v", err, time.Since(begun))
	}
}

func TestConfigErrors(t *testing.T) {
	for _, c := range []struct {
		name, config, args string
		message, hint      string
		code               int
	}{
		{"none", "", "", "no cluster is known: there is no kubeconfig", "--kubeconfig FILE", 1},
		{"no such file", kubeconfig, "--kubeconfig /nope", "read kubeconfig: stat /nope: no such file or directory", "--kubeconfig FILE", 1},
		{"no such context", kubeconfig, "--context prod", `the kubeconfig has no context "prod"`, "did you mean prod-eu or prod-us? (--context)", 10},
		{"no such context at all", kubeconfig, "--context zzz", `the kubeconfig has no context "zzz"`, "it has: broken, prod-eu, prod-us", 10},
		{"no context", "", "--context x", `the kubeconfig has no context "x"`, "the kubeconfig has no context at all", 10},
		{"none is current", strings.Replace(kubeconfig, "current-context: prod-eu", "", 1), "", "the kubeconfig has no current context", "choose with --context: broken, prod-eu, prod-us", 1},
		{"no such cluster", kubeconfig, "--context broken", `the kubeconfig has no cluster "nowhere", which context "broken" names`, "--context takes another", 1},
		{"no such cluster asked for", kubeconfig, "--cluster nope", `read kubeconfig: cluster "nope" does not exist`, "kubectl config view", 1},
		{"no such user asked for", kubeconfig, "--user nope", `read kubeconfig: auth info "nope" does not exist`, "kubectl config view", 1},
		{"no YAML", "{", "", "read kubeconfig: ", "kubectl config view", 1},
	} {
		got, err := asks(t, c.config, strings.Fields(c.args)...)
		if err == nil {
			t.Errorf("%s: a client for %s", c.name, got.Server)
			continue
		}
		message, hint, code := told(err)
		if !strings.HasPrefix(message, c.message) || !strings.Contains(hint, c.hint) || code != c.code {
			t.Errorf("%s: %s\n%s\n%d", c.name, message, hint, code)
		}
	}
}

func TestUnreachable(t *testing.T) {
	s := newStub(t)
	s.server.Close()
	c, err := asks(t, "", "--server", s.url)
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Find(t.Context(), Query{Pod: "x"})
	if message, hint, code := told(err); code != 1 || !strings.HasPrefix(message, "the API server "+s.url+" cannot be reached: dial tcp") || !strings.Contains(hint, "VPN") {
		t.Errorf("%s\n%s\n%d", message, hint, code)
	}
	tls := newTLSStub(t)
	c, err = asks(t, "", "--server", tls.url)
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Find(t.Context(), Query{Pod: "x"})
	if message, hint, _ := told(err); !strings.Contains(message, "x509") || !strings.Contains(hint, "--certificate-authority") {
		t.Errorf("%s\n%s", message, hint)
	}
}
