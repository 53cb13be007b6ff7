package plugin

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/promdump/promdump/internal/kube"
	"github.com/promdump/promdump/internal/restore"
	"github.com/promdump/promdump/internal/source/remoteread"
)

// A server in a pod is asked by flags of other names.
func TestServerHints(t *testing.T) {
	for what, hint := range map[string]string{
		"/api/v1/read: 400 Bad Request: Client sent an HTTP request to an HTTPS server.": "--web-scheme https",
		"ask x: http: server gave HTTP response to HTTPS client":                         "--web-scheme http",
		"ask x: tls: failed to verify certificate: x509: unknown authority":              "--web-tls-ca-file",
		"/api/v1/status/tsdb: 401 Unauthorized":                                          "--web-basic-auth-user NAME with --web-basic-auth-password-file FILE, --web-bearer-token-file FILE or --web-header; who may ask stands in its --web.config.file /web.yml",
		"something else":                                                                 "as it was",
	} {
		s := &server{target: kube.Target{Args: []string{"--web.config.file=/web.yml"}}}
		err := s.explain(&remoteread.ServerError{What: what, Tip: "as it was", Code: 11})
		e, ok := errors.AsType[*remoteread.ServerError](err)
		if !ok || !strings.Contains(e.Tip, hint) || e.What != what || e.Code != 11 {
			t.Errorf("%s: %v, %s", what, err, e.Tip)
		}
	}
}

// A restore gets the same hints, and just for what a server refuses: names of blocks have
// numbers in them, too.
func TestRestoreHints(t *testing.T) {
	f := &found{}
	for _, c := range []struct {
		err  error
		hint string
	}{
		{fmt.Errorf("not known: %w", &restore.RequestError{Err: errors.New("http://127.0.0.1:9090/api: 401 Unauthorized: no")}), "--web-basic-auth-user"},
		{&restore.RequestError{Err: errors.New("http://127.0.0.1:9401/api: 403 Forbidden: no")}, ""},
		{errors.New("it serves 0 of 1 blocks; missing: 01K401H5CERTIFICATE401"), ""},
		{nil, ""},
	} {
		err := f.explainWeb(c.err)
		e, ok := errors.AsType[*webError](err)
		if !errors.Is(err, c.err) || ok != (c.hint != "") || ok && !strings.Contains(e.Hint(), c.hint) {
			t.Errorf("%v: %v", c.err, err)
		}
	}
}

// A server that is down is no end, where a way to its data is left.
func TestDown(t *testing.T) {
	down := kube.Target{Namespace: "mon", Pod: "p", Container: "prometheus", Phase: "CrashLoopBackOff", DataDir: "/prometheus", OnVolume: true, Claim: "db"}
	for _, v := range all {
		f := &found{}
		err := (&pods{via: string(v)}).anyway(f, &kube.NotRunningError{Target: down})
		if v == viaDebug || v == viaPVC {
			if err != nil || f.target.Pod != "p" || len(f.notes) != 1 {
				t.Errorf("%s: %v, %+v", v, err, f)
			}
			continue
		}
		e, ok := errors.AsType[*downError](err)
		if !ok || e.ExitCode() != 10 || !strings.Contains(e.Hint(), "--via debug") || !strings.Contains(e.Hint(), "--via pvc") {
			t.Errorf("%s: %v", v, err)
		}
	}
	for want, change := range map[string]func(*kube.Target){
		"--via debug": func(t *kube.Target) { t.Claim = "" },
		"--via pvc":   func(t *kube.Target) { t.Over = true },
		"":            func(t *kube.Target) { t.Claim, t.OnVolume = "", false },
	} {
		target := down
		change(&target)
		hint := (&downError{&kube.NotRunningError{Target: target}}).Hint()
		for _, way := range []string{"--via debug", "--via pvc"} {
			if strings.Contains(hint, way) != (way == want) {
				t.Errorf("%q: %s", want, hint)
			}
		}
	}
	f := &found{pods: &pods{via: string(viaAuto)}, target: down}
	if w := f.choice(); len(w.list) != 2 || w.list[0].via != viaDebug || w.list[1].via != viaPVC {
		t.Errorf("%+v", w.list)
	}
}
