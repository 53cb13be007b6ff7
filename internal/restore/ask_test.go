package restore

import (
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// What a server refuses is told at once: waiting does not mend it.
func TestAskRefused(t *testing.T) {
	ok := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, `{"status":"success","data":{"blocks":[]}}`)
	})
	password := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, p, _ := r.BasicAuth(); p != "secret" {
			http.Error(w, "Unauthorized", http.StatusUnauthorized)
			return
		}
		ok(w, r)
	})
	plain, asks, secure := httptest.NewServer(ok), httptest.NewServer(password), httptest.NewUnstartedServer(ok)
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	for _, s := range []*httptest.Server{plain, asks, secure} {
		t.Cleanup(s.Close)
	}
	swap := func(url, from, to string) string { return strings.Replace(url, from, to, 1) }
	for _, c := range []struct {
		name   string
		url    string
		client *http.Client
		want   string // in the error; empty: none
	}{
		{"as it wants", plain.URL, nil, ""},
		{"password", asks.URL, nil, "401 Unauthorized"},
		{"with it", swap(asks.URL, "http://", "http://jane:secret@"), nil, ""},
		{"TLS is spoken", swap(secure.URL, "https", "http"), nil, "HTTP request to an HTTPS server"},
		{"TLS is not spoken", swap(plain.URL, "http", "https"), nil, "HTTP response to HTTPS client"},
		{"whose certificate", secure.URL, nil, "x509"},
		{"a client that knows it", secure.URL, secure.Client(), ""},
	} {
		began := time.Now()
		err := WaitServed(t.Context(), c.client, c.url, nil, 10*time.Second)
		_, refused := errors.AsType[*RequestError](err)
		switch {
		case c.want == "" && err != nil, c.want != "" && (!refused || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: %v", c.name, err)
		case time.Since(began) > 8*time.Second:
			t.Errorf("%s: it was waited for", c.name)
		case err != nil && strings.Contains(err.Error(), "secret"):
			t.Errorf("%s: it tells the password: %v", c.name, err)
		}
	}
}

// A server must not send us elsewhere.
func TestAskRedirected(t *testing.T) {
	asked := 0
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked++ }))
	t.Cleanup(elsewhere.Close)
	s := httptest.NewServer(http.RedirectHandler(elsewhere.URL, http.StatusFound))
	t.Cleanup(s.Close)
	if _, _, err := AskRetention(t.Context(), s.Client(), s.URL); err == nil || !strings.Contains(err.Error(), "302") || asked != 0 {
		t.Errorf("%v, and the other one was asked %d times", err, asked)
	}
}
