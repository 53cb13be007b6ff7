package cli

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/promdump/promdump/internal/term"
	"github.com/promdump/promdump/internal/tsdbtest"
)

// A restore asks a server as the flags say, and says which are missing before it has
// written anything.
func TestWaitFlags(t *testing.T) {
	dir := t.TempDir()
	data, laptop, dump := filepath.Join(dir, "data"), filepath.Join(dir, "laptop"), filepath.Join(dir, "dump.tar")
	db := tsdbtest.Random(t, data, 1, tsdbtest.Options{Series: 5, Interval: time.Minute, Duration: 5 * time.Hour})
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	blocks := func() (all []map[string]string) {
		names, _ := filepath.Glob(filepath.Join(laptop, "*", "meta.json"))
		for _, name := range names {
			all = append(all, map[string]string{"ulid": filepath.Base(filepath.Dir(name))})
		}
		return all
	}
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, password, _ := r.BasicAuth(); password != "sesame" {
			http.Error(w, "Unauthorized", http.StatusUnauthorized)
			return
		}
		answers := map[string]any{
			"/api/v1/status/flags":       map[string]string{"storage.tsdb.retention.time": "10y"},
			"/api/v1/status/config":      map[string]string{"yaml": ""},
			"/api/v1/status/tsdb/blocks": map[string]any{"blocks": blocks()},
		}
		if err := json.NewEncoder(w).Encode(map[string]any{"status": "success", "data": answers[r.URL.Path]}); err != nil {
			t.Error(err)
		}
	}))
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	t.Cleanup(srv.Close)
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	ca := file("ca", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})))
	password := file("password", "sesame\n")
	run := func(args ...string) (int, string) {
		var out bytes.Buffer
		code := Main(t.Context(), args, term.Streams{In: strings.NewReader(""), Out: &out, Err: &out})
		return code, out.String()
	}
	if code, out := run("dump", "-d", data, "--min-time", "0", "-t", dump); code != 0 {
		t.Fatal(out)
	}
	restore := []string{"restore", "-d", laptop, "-t", dump}
	wait := slices.Concat(restore, []string{"--wait", srv.URL})
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{slices.Concat(restore, []string{"--tls-ca-file", ca}), 2, "flags for a server are given, and no --wait"},
		{slices.Concat(wait, []string{"--tls-ca-file", dir + "/none"}), 1, "read what the server is to be asked with"},
		{wait, 1, "hint: how it wants to be asked: "},
		{slices.Concat(wait, []string{"--tls-ca-file", ca}), 1, "401 Unauthorized"},
	} {
		code, out := run(c.args...)
		if code != c.code || !strings.Contains(out, c.want) || strings.Contains(out, "sesame") {
			t.Errorf("%q: exit %d: %s", c.args, code, out)
		}
		if len(blocks()) != 0 {
			t.Fatalf("%q has restored something", c.args)
		}
	}
	code, out := run(slices.Concat(wait, []string{"--tls-ca-file", ca, "--basic-auth-user", "jane", "--basic-auth-password-file", password})...)
	if code != 0 || !strings.Contains(out, "the server serves them") || len(blocks()) == 0 {
		t.Errorf("exit %d: %s", code, out)
	}
}
