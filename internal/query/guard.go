package query

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
)

// guard refuses requests of other web pages, and those that change something.
//
// A web page can make a browser send requests to 127.0.0.1. If it points its own name at
// 127.0.0.1, it can also read the answers (DNS rebinding). Such a request has that name
// as its Host, so the guard accepts only its own names and IP addresses, which cannot be
// pointed anywhere else. Without DNS rebinding, the request of another page has an Origin
// or is marked as cross-site.
type guard struct {
	hosts map[string]bool
	next  http.Handler
}

func newGuard(addr string, hosts []string, next http.Handler) *guard {
	g := &guard{hosts: map[string]bool{"localhost": true}, next: next}
	host, _, err := net.SplitHostPort(addr)
	if err == nil && host != "" {
		g.hosts[strings.ToLower(host)] = true
	}
	if a, err := netip.ParseAddr(host); err != nil || !a.IsLoopback() {
		if name, err := os.Hostname(); err == nil {
			g.hosts[strings.ToLower(name)] = true
		}
	}
	for _, h := range hosts {
		g.hosts[strings.ToLower(h)] = true
	}
	return g
}

// writes are the paths that change a Prometheus. They are refused before their body is
// read.
var writes = []string{"/api/v1/write", "/api/v1/otlp/", "/api/v1/admin/"}

func (g *guard) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	host := hostOf(r.Host)
	switch {
	case !g.ours(host):
		refuse(w, http.StatusForbidden, fmt.Sprintf("this server does not accept the host name %q; allow it with --allow-host %s", host, host))
		return
	case !sameOrigin(r):
		refuse(w, http.StatusForbidden, "this server does not accept requests from other web pages")
		return
	case r.Method != http.MethodGet && r.Method != http.MethodHead && r.Method != http.MethodPost && r.Method != http.MethodOptions:
		refuse(w, http.StatusMethodNotAllowed, errReadOnly.Error())
		return
	}
	for _, path := range writes {
		if r.URL.Path == path || strings.HasSuffix(path, "/") && strings.HasPrefix(r.URL.Path, path) {
			refuse(w, http.StatusForbidden, errReadOnly.Error())
			return
		}
	}
	h := w.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	g.next.ServeHTTP(w, r)
}

// refuse writes an error in the format of the Prometheus API, so that its clients show
// the reason.
func refuse(w http.ResponseWriter, code int, why string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	answer(w, map[string]string{"status": "error", "errorType": "forbidden", "error": why})
}

func hostOf(hostport string) string {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	return strings.ToLower(strings.TrimSuffix(strings.TrimSuffix(strings.TrimPrefix(host, "["), "]"), "."))
}

func (g *guard) ours(host string) bool {
	if _, err := netip.ParseAddr(host); err == nil {
		return true
	}
	return g.hosts[host] || strings.HasSuffix(host, ".localhost")
}

// sameOrigin reports whether a request was sent by the server's own page, by no browser,
// or because the user followed a link.
func sameOrigin(r *http.Request) bool {
	if origin := r.Header.Get("Origin"); origin != "" {
		u, err := url.Parse(origin)
		return err == nil && u.Host != "" && strings.EqualFold(u.Host, r.Host)
	}
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "same-origin", "none":
		return true
	}
	return r.Method == http.MethodGet && r.Header.Get("Sec-Fetch-Mode") == "navigate" && r.Header.Get("Sec-Fetch-Dest") == "document"
}
