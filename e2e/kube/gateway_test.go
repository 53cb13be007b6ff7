//go:build linux

package kube

import (
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// gateway is a proxy before the apiserver that ends TLS, as those of companies do,
// and lets one protocol of streams through: websocket or SPDY/3.1, or none.
type gateway struct {
	*httptest.Server
	t    *testing.T
	only string
	drop bool // the header Upgrade, instead of refusing the request

	mu      sync.Mutex
	passed  int
	refused map[string]int // by protocol
}

func newGateway(t *testing.T, only string) *gateway {
	t.Helper()
	c := booted(t)
	view := c.run(t, c.config, "config", "view", "--minify", "-o", "jsonpath={.clusters[0].cluster.server}")
	server, err := url.Parse(strings.TrimSpace(view.stdout))
	if err != nil || server.Host == "" {
		t.Fatalf("the apiserver's address: %v: %q", err, view.stdout)
	}
	g := &gateway{t: t, only: only, refused: map[string]int{}}
	behind := httputil.NewSingleHostReverseProxy(server)
	behind.Transport = &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}} // on loopback, and no HTTP/2: it has no upgrades
	g.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if protocol := r.Header.Get("Upgrade"); protocol != "" && !g.passes(protocol) {
			if !g.drop {
				http.Error(w, "no such upgrade", http.StatusForbidden)
				return
			}
			r.Header.Del("Upgrade")
			r.Header.Del("Connection")
		}
		behind.ServeHTTP(w, r)
	}))
	t.Cleanup(func() {
		g.CloseClientConnections()
		g.Close()
	})
	return g
}

func (g *gateway) passes(protocol string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if strings.EqualFold(protocol, g.only) {
		g.passed++
		return true
	}
	g.refused[strings.ToLower(protocol)]++
	return false
}

// config is that of a user with a token: a certificate would end here too.
func (g *gateway) config(user string) string {
	g.t.Helper()
	file := copyConfig(g.t, user, g.Listener.Addr().String())
	c := booted(g.t)
	view := c.run(g.t, file, "config", "view", "--minify", "-o", "jsonpath={.clusters[0].name}")
	if set := c.run(g.t, file, "config", "set-cluster", view.stdout, "--insecure-skip-tls-verify=true"); set.code != 0 {
		g.t.Fatalf("kubectl config set-cluster: %s", set.stderr)
	}
	return file
}

// A dump comes over each of the two protocols alone.
func TestOneProtocol(t *testing.T) {
	a := startPod(t, "ro", podOptions{data: seed(t).dir, quiet: true})
	grant(t, "bob", a.namespace, "get", "pods/exec") // required for WebSocket, which is a GET
	before := set(a.blocks())
	want := dumpedHere(t, a)
	for _, only := range []string{"websocket", "SPDY/3.1"} {
		g := newGateway(t, only)
		file := filepath.Join(t.TempDir(), "dump.tar.gz")
		r := plugin(t, g.config("bob"), "-n", a.namespace, "-p", a.name, "--min-time", "0", "--force", "-t", file)
		if r.code != 0 || counts(r.stderr) != want {
			t.Errorf("%s alone: exit %d: %s", only, r.code, r.stderr)
		} else {
			mustPlugin(t, "verify", file)
		}
		if other := map[string]string{"websocket": "spdy/3.1", "SPDY/3.1": "websocket"}[only]; g.passed == 0 || g.refused[other] == 0 {
			t.Errorf("%s alone: %d streams went through", only, g.passed)
		}
		t.Logf("%s alone: %d streams, refused: %v", only, g.passed, g.refused)
		a.unharmed(before)
	}
}
