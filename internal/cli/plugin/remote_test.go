package plugin

import (
	"errors"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/promdump/promdump/internal/kube"
	"github.com/promdump/promdump/internal/wire"
)

// What cannot be kept from writing is not replaced under its hands, and what is
// said fits the way in.
func TestReplaceLets(t *testing.T) {
	for _, c := range []struct {
		name     string
		by       via
		servers  int
		features string
		volume   string
		restart  bool
		err, tip string
		not      string // of the tip
	}{
		{name: "by exec", by: viaExec, servers: 1},
		{name: "beside it", by: viaExec, err: "from container prometheus the server cannot be kept", tip: "add --restart; or -c names the container"},
		{name: "beside it, with a restart", by: viaExec, restart: true},
		{name: "debug", by: viaDebug, err: "from a debug container the server cannot be kept", tip: "add --restart; or restore without --replace", not: "-c "},
		{name: "debug, with a restart", by: viaDebug, restart: true},
		{name: "debug, and it writes as it ends", by: viaDebug, restart: true, features: "memory-snapshot-on-shutdown", err: "from a debug container it cannot be kept", tip: "restore without --replace", not: "-c "},
		{name: "debug, on no volume", by: viaDebug, servers: 1, volume: "the container's own filesystem", err: "the data dir is on no volume", tip: "restore without --replace"},
	} {
		target := kube.Target{Container: "prometheus", Volume: c.volume, Args: []string{"--enable-feature=" + c.features}}
		err := (&remote{found: found{target: target}, by: c.by, inventory: &wire.Target{Servers: c.servers}}).lets(c.restart)
		if c.err == "" {
			if err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
			continue
		}
		e, ok := errors.AsType[*RefusedError](err)
		if !ok || !strings.Contains(e.Error(), c.err) || !strings.Contains(e.Hint(), c.tip) || c.not != "" && strings.Contains(e.Hint(), c.not) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// Restore has the flags of the ways that write, and those of who asks whether the
// server serves it; no others.
func TestRemoteFlags(t *testing.T) {
	fs := pflag.NewFlagSet("restore", pflag.ContinueOnError)
	remoteTarget{&pods{kube: kube.NewFlags()}}.AddFlags(fs)
	for name, want := range map[string]bool{
		"via": true, "image": true, "run-as-user": true, "pod": true, "agent-url": true, "selector": true,
		"web-scheme": true, "web-header": true, "web-tls-ca-file": true, "concurrency": false, "keep-external-labels": false,
	} {
		if got := fs.Lookup(name) != nil; got != want {
			t.Errorf("--%s: %v", name, got)
		}
	}
	if usage := fs.Lookup("via").Usage + fs.Lookup("image").Usage; strings.Contains(usage, "remote-read") || strings.Contains(usage, "pvc") {
		t.Errorf("ways that do not write: %s", usage)
	}
}
