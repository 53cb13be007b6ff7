// Package page serves the web UI of a dump: static files, built from TypeScript and
// embedded. The UI requests its data from the server that it came from: the Prometheus
// HTTP API under api/v1, and promdump's own under api/promdump/v1, both relative to the
// page.
//
//	web/    the source: Preact, CodeMirror with Prometheus' PromQL support, uPlot
//	dist/   the output of esbuild, committed, so that building promdump needs no Node
//
// After a change in web/, `make page` builds dist/; commit both together. `make
// page-check` builds it again elsewhere and compares byte for byte, because a bundle
// cannot be reviewed. package-lock.json pins the bundled packages, dist/licenses.txt has
// their licences. To try a change: `make page build && bin/promdump open FILE`.
//
// Files of web/src: main.tsx reads what the dump is and starts the UI; state.ts has the
// state of the UI (the current place, which url.ts reads from and writes to the URL's
// hash); app.tsx is the frame with the keys; timeline, overview, explore, panel and alerts
// are its parts; worker.ts requests and parses answers off the main thread, so that an
// answer of 50 MB does not block the UI. Queries end at the end of the dump: the UI does
// not use the current time.
//
// A dump may be untrusted, and so may its names and labels: the UI inserts them into the
// document only as text, and Policy allows only scripts that are among these files.
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

// types are the content types by file extension. The system's own table may say that
// JavaScript is text/plain, which browsers do not run.
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

// Handler serves the page at / and its files beside it. Other paths are 404, so the
// handler can be used for all paths outside of the API.
func Handler() http.Handler {
	files, err := load()
	if err != nil {
		// Embedded files can always be read, and TestFiles checks their types.
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
		_, _ = w.Write(f.body) // an error means that the client has disconnected
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
			return fmt.Errorf("%s: unknown content type", name)
		}
		sum := sha256.Sum256(body)
		f := file{body: body, contentType: contentType, etag: `"` + hex.EncodeToString(sum[:12]) + `"`, cache: "no-cache"}
		name = strings.TrimPrefix(name, "dist/")
		if strings.HasPrefix(name, "assets/") { // their names contain a hash of the content
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
