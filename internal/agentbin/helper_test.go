package agentbin

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"sync"
	"testing"

	"github.com/klauspost/compress/gzip"
)

// mips is embedded by nobody.
const archivePath = "/promdump-v1.2.3.tar.gz"

// server is a release. What it has not is a 404.
type server struct {
	*httptest.Server
	mu    sync.Mutex
	paths map[string]http.HandlerFunc
	asked []string
}

func serve(t *testing.T, https bool) *server { return serveHTTP(t, https, false) }

func serveHTTP(t *testing.T, https, http2 bool) *server {
	s := &server{paths: map[string]http.HandlerFunc{}}
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.asked = append(s.asked, r.URL.Path)
		f, ok := s.paths[r.URL.Path]
		s.mu.Unlock()
		if !ok {
			f = http.NotFound
		}
		f(w, r)
	})
	if https {
		s.Server = httptest.NewUnstartedServer(h)
		s.EnableHTTP2 = http2
		s.StartTLS()
	} else {
		s.Server = httptest.NewServer(h)
	}
	t.Cleanup(s.Close)
	return s
}

func (s *server) handle(path string, f http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.paths[path] = f
}

func (s *server) set(path string, data []byte) {
	s.handle(path, func(w http.ResponseWriter, _ *http.Request) {
		if _, err := w.Write(data); err != nil {
			panic(http.ErrAbortHandler)
		}
	})
}

// requests gives what was asked for since the last time.
func (s *server) requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	asked := s.asked
	s.asked = nil
	return asked
}

func (s *server) options(t *testing.T, d Digests) Options {
	return Options{Version: "v1.2.3", URL: s.URL, Dir: t.TempDir(), Client: s.Client(), Digests: d}
}

func archiveOf(t testing.TB, arch, program string) []byte {
	return tarOf(t, &tar.Header{Name: ProgramName("first"), Mode: 0o755, Size: 5}, "other",
		&tar.Header{Name: ProgramName(arch), Mode: 0o755, Size: int64(len(program))}, program)
}

// tarOf takes headers and bodies in turn.
func tarOf(t testing.TB, entries ...any) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	for _, e := range entries {
		var err error
		switch e := e.(type) {
		case *tar.Header:
			err = w.WriteHeader(e)
		case string:
			_, err = io.WriteString(w, e)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

var discard = slog.New(slog.DiscardHandler)

func sumOf(text string) [32]byte { return sha256.Sum256([]byte(text)) }

func mustBeEmpty(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		t.Errorf("%s was left behind", e.Name())
	}
}

func mustHold(t *testing.T, dir, name string, want []byte) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 1 || entries[0].Name() != name {
		t.Errorf("the directory holds %v, not just %s", entries, name)
	}
	if got, err := os.ReadFile(dir + "/" + name); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s is not what was downloaded: %v", name, err)
	}
}
