package cli

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/promdump/promdump/internal/term"
)

// What a server does not say is unknown, what is not a server is refused, and so are
// several in one; each with its exit code and a way out.
func TestServers(t *testing.T) {
	var turns atomic.Int64
	answers := func(byPath map[string]string, other string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			text, ok := byPath[r.URL.Path]
			if !ok {
				text = other
			}
			if strings.Contains(text, "%d") {
				text = fmt.Sprintf(text, turns.Add(1)%2)
			}
			_, _ = io.WriteString(w, text)
		}
	}
	head := `{"status":"success","data":{"headStats":{"numSeries":7,"minTime":1764547200000,"maxTime":1764550800000}}}`
	dump := []string{"dump", "-t", filepath.Join(t.TempDir(), "dump.tar")}
	restore := []string{"restore", "-d", t.TempDir(), "-t", "/dev/null", "--wait"}
	for _, c := range []struct {
		what   string
		args   []string
		server http.HandlerFunc
		code   ExitCode
		says   []string
	}{
		{"meta of a page", []string{"meta", "--url"}, answers(nil, "<html>Log in.</html>"), NoTarget,
			[]string{"what the server has is unknown", "hint: ", "--bearer-token-file"}},
		{"meta of something", []string{"meta", "--url"}, answers(nil, "{}"), NoTarget, []string{"what the server has is unknown"}},
		{"dump of a page", append(dump, "--url"), answers(nil, "<html>Log in.</html>"), NoTarget,
			[]string{"/api/v1/read: the answer is of content type", "hint: ", "path prefix"}},
		{"dump of something", append(dump, "--url"), answers(nil, "{}"), NoTarget, []string{"/api/v1/read: the answer is", "hint: "}},
		{"meta without blocks", []string{"meta", "--url"}, answers(map[string]string{"/api/v1/status/tsdb": head}, "{}"), Done,
			[]string{"Number of series | 7", "Earliest time: | unknown, the server does not say"}},
		{"meta without blocks as JSON", []string{"meta", "-o", "json", "--url"}, answers(map[string]string{"/api/v1/status/tsdb": head}, "{}"), Done,
			[]string{`"unknown": [`, `"persistentBlocks"`}},
		{"meta without a head", []string{"meta", "--url"}, answers(map[string]string{"/api/v1/status/tsdb/blocks": `{"status":"success","data":{"blocks":null}}`}, "{}"), Done,
			[]string{"Earliest time: | unknown, the server does not say", "there are no blocks yet"}},
		{"replicas", []string{"meta", "--url"},
			answers(map[string]string{"/api/v1/status/runtimeinfo": `{"status":"success","data":{"startTime":"2026-01-01T00:00:0%dZ","hostname":"h"}}`}, head), Failed,
			[]string{"several servers answer at this URL", "hint: ", "-p POD --via remote-read"}},
		{"waiting for a page", restore, answers(nil, "<html>Log in.</html>"), NoTarget, []string{"does not answer like a Prometheus: the answer is an HTML page", "hint: "}},
		{"waiting for replicas", restore,
			answers(map[string]string{"/api/v1/status/runtimeinfo": `{"status":"success","data":{"startTime":"2026-01-01T00:00:0%dZ","hostname":"h"}}`}, head), Failed,
			[]string{"several servers answer at the URL to wait for", "hint: --wait takes the URL of the server"}},
	} {
		srv := httptest.NewServer(c.server)
		var out bytes.Buffer
		code := Main(t.Context(), append(c.args, srv.URL), term.Streams{In: strings.NewReader(""), Out: &out, Err: &out})
		srv.Close()
		for _, text := range c.says {
			if !strings.Contains(out.String(), text) {
				t.Errorf("%s: nothing says %q:\n%s", c.what, text, &out)
			}
		}
		if ExitCode(code) != c.code || strings.Contains(out.String(), "nothing is selected") {
			t.Errorf("%s: exit code %d, want %d:\n%s", c.what, code, c.code, &out)
		}
	}
}
