package page

import (
	"net/http"
	"net/http/httptest"
	"path"
	"regexp"
	"strings"
	"testing"
)

func request(t *testing.T, method, target string, header ...string) *http.Response {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, target, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	Handler().ServeHTTP(w, r)
	return w.Result()
}

func TestFiles(t *testing.T) {
	files, err := load()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for name, f := range files {
		seen[path.Ext(name)] = true
		target := "/" + name
		if name == "index.html" {
			target = "/"
		}
		resp := request(t, http.MethodGet, target)
		if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != f.contentType || resp.Header.Get("Content-Security-Policy") != Policy {
			t.Errorf("%s: %d %v", target, resp.StatusCode, resp.Header)
		}
		immutable := strings.Contains(resp.Header.Get("Cache-Control"), "immutable")
		if hashed := regexp.MustCompile(`^assets/.+-[A-Za-z0-9]{8}\.\w+$`).MatchString(name); immutable != hashed {
			t.Errorf("%s: Cache-Control is %q: just what has a hash in its name may be kept for ever", target, resp.Header.Get("Cache-Control"))
		}
		again := request(t, http.MethodGet, target, "If-None-Match", `"other", W/`+resp.Header.Get("ETag"))
		if again.StatusCode != http.StatusNotModified {
			t.Errorf("%s: asked with its ETag it is %d", target, again.StatusCode)
		}
		if other := request(t, http.MethodGet, target, "If-None-Match", `"other"`); other.StatusCode != http.StatusOK {
			t.Errorf("%s: asked with another ETag it is %d", target, other.StatusCode)
		}
	}
	for _, ext := range []string{".html", ".js", ".css", ".woff2", ".svg", ".txt"} {
		if !seen[ext] {
			t.Errorf("no %s is embedded: was the page built?", ext)
		}
	}
}

// What the document and its style refer to is there, and nothing is elsewhere.
func TestReferences(t *testing.T) {
	files, err := load()
	if err != nil {
		t.Fatal(err)
	}
	html := string(files["index.html"].body)
	refs := 0
	for _, m := range regexp.MustCompile(`(?:href|src)="([^"]*)"`).FindAllStringSubmatch(html, -1) {
		refs++
		if _, ok := files[m[1]]; !ok {
			t.Errorf("index.html refers to %s, which is not there", m[1])
		}
	}
	if refs < 3 {
		t.Errorf("index.html refers to %d files", refs)
	}
	if regexp.MustCompile(`<script[^>]*>[^<]|<style|\son\w+=|\sstyle=`).MatchString(html) {
		t.Error("index.html has a script or a style in it, which the policy forbids")
	}
	for name, f := range files {
		if path.Ext(name) != ".css" {
			continue
		}
		for _, m := range regexp.MustCompile(`url\(["']?([^)"']*)`).FindAllStringSubmatch(string(f.body), -1) {
			if _, ok := files[path.Join(path.Dir(name), m[1])]; !ok {
				t.Errorf("%s refers to %s, which is not there", name, m[1])
			}
		}
	}
}

func TestUnknown(t *testing.T) {
	for target, want := range map[string]int{"/nothing": 404, "/assets/": 404, "/assets/../index.html": 404, "/dist/index.html": 404, "/api/v1/query": 404, "/index.html": 200} {
		if resp := request(t, http.MethodGet, target); resp.StatusCode != want {
			t.Errorf("%s: %d, want %d", target, resp.StatusCode, want)
		}
	}
	resp := request(t, http.MethodPost, "/")
	if resp.StatusCode != http.StatusMethodNotAllowed || resp.Header.Get("Allow") != "GET, HEAD" {
		t.Errorf("POST: %d %v", resp.StatusCode, resp.Header)
	}
	if resp := request(t, http.MethodHead, "/"); resp.StatusCode != http.StatusOK || resp.ContentLength <= 0 {
		t.Errorf("HEAD: %d, %d bytes", resp.StatusCode, resp.ContentLength)
	}
}
