// Package page serves the page over a dump: plain files, built from TypeScript
// and embedded. Everything that the page shows it asks of the server that it came
// from, Prometheus' HTTP API under api/v1 and our own under api/promdump/v1, both
// relative to the page.
//
//	web/    the source: Preact, CodeMirror with Prometheus' PromQL support, uPlot
//	dist/   what esbuild makes of it, committed, so that building promdump needs no Node
//
// After a change in web/, `make page` builds dist/; both are committed together.
// `make page-check` builds once more elsewhere and compares byte for byte, for
// what is embedded must be what the source says: nobody reads a bundle.
// package-lock.json pins what is bundled, dist/licenses.txt has its licences. To
// see a change at once: `make page build && bin/promdump open FILE`.
//
// The map of web/src: main.tsx asks what the dump is and begins; state.ts is where
// the page is (its place, which url.ts writes as the URL's hash and reads back);
// app.tsx is the frame with the keys; timeline, overview, explore, panel and
// alerts are what is seen; worker.ts asks and parses away from the page, so that
// an answer of 50 MB does not stop it. Queries end at the end of the dump: nothing
// in the page knows what time it is now.
//
// A dump comes from strangers, and so do the names and labels in it: the page puts
// them into the document as text alone, and Policy lets no script run that is not
// one of these files, wherever it came from.
package page

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"strconv"
	"strings"
)

//go:embed dist
var dist embed.FS

// Policy is the Content-Security-Policy that every file is served with.
const Policy = "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; img-src 'self' data:; connect-src 'self'; " +
	"worker-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types promdump"

// By the name's ending, not by the machine: a system's own table may say that
// JavaScript is text/plain, which no browser runs.
var types = map[string]string{
	".html":  "text/html; charset=utf-8",
	".js":    "text/javascript; charset=utf-8",
	".css":   "text/css; charset=utf-8",
	".svg":   "image/svg+xml",
	".woff2": "font/woff2",
	".txt":   "text/plain; charset=utf-8",
}

type file struct {
	body        []byte
	contentType string
	etag        string
	cache       string
}

// Handler serves the page at / and its files beside it. What it does not know is
// 404, so that it can stand behind the API's paths.
func Handler() http.Handler {
	files, err := load()
	if err != nil {
		// Embedded files are read without fail, and TestFiles has seen their types.
		panic(err)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", Policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		name := strings.TrimPrefix(r.URL.Path, "/")
		if name == "" {
			name = "index.html"
		}
		f, ok := files[name]
		if !ok {
			http.NotFound(w, r)
			return
		}
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			h.Set("Allow", "GET, HEAD")
			http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
			return
		}
		h.Set("Content-Type", f.contentType)
		h.Set("ETag", f.etag)
		h.Set("Cache-Control", f.cache)
		if matches(r.Header.Get("If-None-Match"), f.etag) {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		h.Set("Content-Length", strconv.Itoa(len(f.body)))
		_, _ = w.Write(f.body) // who went away has no use for the error
	})
}

func load() (map[string]file, error) {
	files := map[string]file{}
	err := fs.WalkDir(dist, "dist", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		body, err := dist.ReadFile(name)
		if err != nil {
			return err
		}
		contentType, ok := types[path.Ext(name)]
		if !ok {
			return fmt.Errorf("%s: no content type is known", name)
		}
		sum := sha256.Sum256(body)
		f := file{body: body, contentType: contentType, etag: `"` + hex.EncodeToString(sum[:12]) + `"`, cache: "no-cache"}
		name = strings.TrimPrefix(name, "dist/")
		if strings.HasPrefix(name, "assets/") { // a hash of the bytes is in the name
			f.cache = "public, max-age=31536000, immutable"
		}
		files[name] = f
		return nil
	})
	return files, err
}

func matches(header, etag string) bool {
	for candidate := range strings.SplitSeq(header, ",") {
		candidate = strings.TrimPrefix(strings.TrimSpace(candidate), "W/")
		if candidate == etag || candidate == "*" {
			return true
		}
	}
	return false
}
