package cli

import (
	"encoding/pem"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/promdump/promdump/internal/source/remoteread"
)

// What the flags say goes to the server, over TLS too, and nowhere else.
func TestRemoteFlags(t *testing.T) {
	var got http.Header
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r.Header.Clone()
		if r.URL.Path != "/prom/api/v1/status/tsdb" {
			http.NotFound(w, r)
			return
		}
		io.WriteString(w, `{"status":"success","data":{"headStats":{"numSeries":7,"minTime":1,"maxTime":2}}}`)
	}))
	srv.EnableHTTP2 = true
	srv.StartTLS()
	defer srv.Close()
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	ca := file("ca", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})))
	var said strings.Builder
	asked := Asked{Note: func(s string) { said.WriteString(s) }, Logger: slog.New(slog.NewTextHandler(&said, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	for what, c := range map[string]struct {
		args []string
		name string
		want string
	}{
		"header":        {[]string{"--header", "X-Scope-OrgID=acme", "--tls-ca-file", ca}, "X-Scope-Orgid", "acme"},
		"as curl":       {[]string{"--header", "X-Scope-OrgID: acme", "--tls-ca-file", ca}, "X-Scope-Orgid", "acme"},
		"bearer":        {[]string{"--bearer-token-file", file("token", "sesame\n"), "--tls-insecure-skip-verify"}, "Authorization", "Bearer sesame"},
		"authorization": {[]string{"--header", "Authorization=Bearer sesame", "--tls-ca-file", ca, "--tls-server-name", "example.com"}, "Authorization", "Bearer sesame"},
		"basic":         {[]string{"--basic-auth-user", "jane", "--basic-auth-password-file", file("password", "sesame\n"), "--tls-ca-file", ca}, "Authorization", "Basic amFuZTpzZXNhbWU="},
	} {
		var f RemoteFlags
		fs := pflag.NewFlagSet("", pflag.ContinueOnError)
		f.AddFlags(fs, "")
		if err := fs.Parse(c.args); err != nil || !f.Given() {
			t.Fatal(err)
		}
		conf, err := f.Compile()
		if err != nil {
			t.Fatal(err)
		}
		u, err := remoteread.ParseURL(srv.URL + "/prom")
		if err != nil {
			t.Fatal(err)
		}
		src, err := conf.Source(u, "", asked)
		if err != nil {
			t.Fatal(err)
		}
		inv, err := src.Inventory(t.Context())
		if err != nil || inv.Head.Series != 7 || !inv.BlocksUnknown || got.Get(c.name) != c.want {
			t.Errorf("%s: %+v, %v, sent %q", what, inv, err, got)
		}
	}
	u, _ := remoteread.ParseURL(srv.URL)
	src, err := RemoteConfig{}.Source(u, "", asked)
	if err != nil {
		t.Fatal(err)
	}
	_, err = src.Inventory(t.Context())
	if codeOf(err) != NoTarget || !strings.Contains(hintOf(err), "--tls-ca-file") {
		t.Errorf("an unknown certificate: %v", err)
	}
	if strings.Contains(said.String(), "sesame") {
		t.Errorf("a secret is told: %s", &said)
	}
	prefixed := pflag.NewFlagSet("", pflag.ContinueOnError)
	(&RemoteFlags{}).AddFlags(prefixed, "server-")
	if prefixed.Lookup("tls-server-name") != nil || prefixed.Lookup("server-tls-server-name") == nil {
		t.Error("no prefix")
	}
}
