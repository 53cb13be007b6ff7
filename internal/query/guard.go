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

// guard lets in what may come in.
//
// A page on the web can make a browser ask 127.0.0.1, and after it has pointed its
// own name at 127.0.0.1 it can read the answer too (DNS rebinding). Then the
// request has that name as its Host; so it must be one of ours, or an address,
// which nobody can point anywhere else. What another page asks without that trick
// has its Origin, or says cross-site.
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

// writes are the paths by which a Prometheus can be changed. Nothing stands behind
// them here; they are refused before anything looks at a body.
var writes = []string{"/api/v1/write", "/api/v1/otlp/", "/api/v1/admin/"}

func (g *guard) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	host := hostOf(r.Host)
	switch {
	case !g.ours(host):
		refuse(w, http.StatusForbidden, fmt.Sprintf("this server does not answer to the name %q; --allow-host %s lets it", host, host))
		return
	case !sameOrigin(r):
		refuse(w, http.StatusForbidden, "this server does not answer to other pages")
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

// refuse answers as Prometheus' API does, so that its clients show the reason.
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

// sameOrigin: no browser sent it, or one for our own page, or a person followed a
// link.
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
