//go:build linux

package kube

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A pod is looked into without a dump file: served, and asked once. Its own server
// says what the answer is.
func TestOpenPod(t *testing.T) {
	c, data := booted(t), seed(t)
	const question = `max by (__name__, namespace) ({__name__=~".+"})`
	when := data.head.Add(20 * time.Minute)
	for kind, by := range map[string]string{"ro": "by exec, ", "stack": "by remote-read, "} {
		t.Run(kind, func(t *testing.T) {
			p := startPod(t, kind, podOptions{data: data.dir, quiet: true})
			before := set(p.blocks())
			want, err := json.Marshal(p.query(question, when))
			if err != nil || len(want) < 100 {
				t.Fatalf("the server answers %s, %v", want, err)
			}
			judge := func(what string, body []byte) {
				t.Helper()
				var reply struct{ Data json.RawMessage }
				if err := json.Unmarshal(body, &reply); err != nil {
					t.Fatalf("%s: %v: %.500s", what, err, body)
				}
				got, err := json.Marshal(answerOf(t, reply.Data))
				if err != nil || !bytes.Equal(got, want) {
					t.Errorf("%s: %s (%v), the server says %s", what, got, err, want)
				}
			}
			where := []string{"-n", p.namespace, "-p", p.name, "--cache-dir", t.TempDir(), "--start-time", at(data.head.Add(-time.Hour)), "--end-time", at(data.head.Add(30 * time.Minute))}

			one := mustPlugin(t, append([]string{"query", question, "--time", at(when), "-o", "json"}, where...)...)
			judge("query", []byte(one.stdout))

			cmd := pluginCommand(t, c.config, append([]string{"open", "--no-browser", "--listen", "127.0.0.1:0"}, where...)...)
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			stdout, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			base, err := bufio.NewReader(stdout).ReadString('\n')
			if err != nil {
				t.Fatalf("%v, %v: %s", err, cmd.Wait(), &stderr)
			}
			resp, err := http.PostForm(strings.TrimSpace(base)+"api/v1/query", url.Values{"query": {question}, "time": {seconds(when)}})
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err != nil {
				t.Fatal(err)
			}
			judge("open", body)
			if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
				t.Fatal(err)
			}
			if err := cmd.Wait(); err != nil {
				t.Errorf("on Ctrl-C: %v", err)
			}
			if t.Logf("%s", &stderr); !strings.Contains(stderr.String(), by) {
				t.Errorf("not %s", by)
			}
			p.unharmed(before)
		})
	}
}
