//go:build linux

package kube

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/promdump/promdump/internal/tsdbtest"
)

// A server behind TLS and a password says which flags it takes.
func webConfig(t *testing.T) {
	c := booted(t)
	data := seed(t)
	const hash = "$2a$04$MTVaXcUKpYE0bSwzNWzGIOPfttZrJqFRWVCE.6Jo.3kFrTei46iAK" // of secret
	web := readable(t, map[string]string{"web.yml": "tls_server_config: {cert_file: web.crt, key_file: web.key}\nbasic_auth_users: {jane: " + hash + "}\n"})
	key, crt := filepath.Join(web, "web.key"), filepath.Join(web, "web.crt")
	out, err := exec.Command("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key, "-out", crt, "-days", "30", "-subj", "/CN=prom", "-addext", "subjectAltName=DNS:prom").CombinedOutput()
	if err != nil {
		t.Fatalf("openssl: %v\n%s", err, out)
	}
	if err := os.Chmod(key, 0o644); err != nil {
		t.Fatal(err)
	}
	password := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := startPod(t, "stack", podOptions{data: data.dir, quiet: true, unready: true, edit: files(web, "/web", "--web.config.file=/web/web.yml", "--storage.tsdb.block-reload-interval=2s")})
	kubectl(t, "-n", p.namespace, "wait", "--for=condition=Ready", "pod/"+p.name, "--timeout=90s")
	file := filepath.Join(t.TempDir(), "dump.tar")
	dump := func(args ...string) result {
		return plugin(t, c.config, append(append([]string{"--via", "remote-read", "-n", p.namespace, "-p", p.name, "--force", "-t", file}, slice(data)...), args...)...)
	}
	// It listens before it is asked the first time.
	poll(soon, func() bool { return strings.Contains(dump().stderr, "--web-scheme https") })
	for _, x := range []struct {
		args []string
		code int
		hint string
	}{
		{nil, 1, "--web-scheme https"},
		{[]string{"--web-scheme", "https"}, 10, "--web-tls-ca-file"},
		{[]string{"--web-scheme", "https", "--web-tls-ca-file", crt, "--web-tls-server-name", "prom"}, 11, "--web-basic-auth-user"},
	} {
		r := dump(x.args...)
		if r.code != x.code || !strings.Contains(r.stderr, x.hint) {
			t.Errorf("%v: exit %d: %s", x.args, r.code, r.stderr)
		}
		t.Log(r.stderr)
	}
	who := []string{"--web-scheme", "https", "--web-tls-ca-file", crt, "--web-tls-server-name", "prom", "--web-basic-auth-user", "jane", "--web-basic-auth-password-file", password}
	r := dump(who...)
	if r.code != 0 {
		t.Fatalf("exit %d: %s", r.code, r.stderr)
	}
	if diff := tsdbtest.Diff(sliceHere(t, data), inDump(t, file)); diff != "" {
		t.Error(diff)
	}
	// A restore asks it whether it serves the blocks, and does not wait for a no.
	restore := []string{"restore", "--image", tools, "-n", p.namespace, "-p", p.name}
	began := time.Now()
	r = plugin(t, c.config, append(restore, "-t", file)...)
	if r.code != 1 || !strings.Contains(r.stderr, "the blocks are in place") || !strings.Contains(r.stderr, "hint: the server speaks TLS: --web-scheme https") || time.Since(began) > 2*time.Minute {
		t.Errorf("restore without flags: exit %d after %v: %s", r.code, time.Since(began), r.stderr)
	}
	t.Log(r.stderr)
	other := filepath.Join(t.TempDir(), "other.tar")
	if here := finish(t, exec.Command(program(t, "promdump"), "dump", "-d", data.dir, "--min-time", "0", "--head", "none", "--match", `{namespace="namespace-07"}`, "-t", other)); here.code != 0 {
		t.Fatal(here.stderr)
	}
	r = plugin(t, c.config, append(append(restore, "-t", other), who...)...)
	if r.code != 0 || !strings.Contains(r.stderr, "the server serves them") {
		t.Errorf("restore: exit %d: %s", r.code, r.stderr)
	}
	t.Log(r.stderr)
}

// However the connections of a port-forward break, the dump is whole or there is
// none.
func brokenForwards(t *testing.T) {
	data := seed(t)
	p := startPod(t, "stack", podOptions{data: data.dir, quiet: true})
	x := newProxy(t)
	config := x.config("admin")
	want := sliceHere(t, data)
	file := filepath.Join(t.TempDir(), "dump.tar")
	whole := 0
	dump := func(what string) {
		t.Helper()
		os.Remove(file)
		r := plugin(t, config, append([]string{"--via", "remote-read", "-n", p.namespace, "-p", p.name, "--force", "-t", file}, slice(data)...)...)
		switch _, err := os.Stat(file); {
		case r.code == 0:
			whole++
			if diff := tsdbtest.Diff(want, inDump(t, file)); diff != "" {
				t.Errorf("%s: %s", what, diff)
			}
		case err == nil:
			t.Errorf("%s: exit %d, and there is a dump: %s", what, r.code, r.stderr)
		default:
			t.Logf("%s: exit %d: %s", what, r.code, r.stderr)
		}
	}
	dump("no fault")
	size := x.seen().down
	for i, share := range []int64{20, 45, 70, 95} {
		x.inject(fault{after: size * share / 100, quiet: i%2 == 1}, 1)
		dump(fmt.Sprintf("cut at %d%%", share))
		x.heal()
	}
	x.inject(fault{after: size / 4}, 2)
	dump("cut twice")
	x.heal()
	x.inject(fault{after: size / 3, stall: true}, 1)
	heal := time.AfterFunc(8*time.Second, x.heal)
	defer heal.Stop()
	dump("stands still for a while")
	t.Logf("%d whole; %s", whole, x.seen())
	if whole < 6 {
		t.Error("dumps are not finished")
	}
	p.unharmed(nil)
}
