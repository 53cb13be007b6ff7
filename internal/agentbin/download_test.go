package agentbin

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

const kept = "promdump-v1.2.3.tar.gz"

func TestDownload(t *testing.T) {
	const program = "the program"
	s := serve(t, false)
	archive := archiveOf(t, "mips", program)
	s.set(archivePath, archive)
	o := s.options(t, Digests{"mips": sumOf(program), "first": sumOf("other")})
	get := func(arch, want, from string, o Options) {
		t.Helper()
		a, err := Get(t.Context(), arch, o)
		if err != nil {
			t.Fatal(err)
		}
		if got := programOf(t, a); string(got) != want || a.From != from || a.Arch != arch || a.Notes != nil {
			t.Errorf("got %q, %+v", got, a)
		}
	}
	file := filepath.Join(o.Dir, kept)

	get("mips", program, s.URL+archivePath, o)
	mustHold(t, o.Dir, kept, archive)
	if got := s.requests(); len(got) != 1 {
		t.Errorf("first: %v", got)
	}
	get("mips", program, file, o)
	get("first", "other", file, o)
	if got := s.requests(); got != nil {
		t.Errorf("it is there, and was asked for: %v", got)
	}
	force := o
	force.Force = true
	get("mips", program, s.URL+archivePath, force)
	if got := s.requests(); len(got) != 1 {
		t.Errorf("force: %v", got)
	}
	mustHold(t, o.Dir, kept, archive)

	// By force and in vain: what is there stays.
	s.handle(archivePath, http.NotFound)
	_, err := Get(t.Context(), "mips", force)
	mustFail(t, err, "404")
	mustHold(t, o.Dir, kept, archive)
	get("mips", program, file, o)
}

func TestUnknownArch(t *testing.T) {
	s := serve(t, false)
	o := s.options(t, Digests{"mips": {}, "alpha": {}})
	_, err := Get(t.Context(), "vax", o)
	mustFail(t, err, "no agent for vax")
	if e, ok := errors.AsType[*Error](err); ok && !strings.Contains(e.Hint(), "alpha, mips") {
		t.Errorf("hint: %s", e.Hint())
	}
	if got := s.requests(); got != nil {
		t.Errorf("asked for %v", got)
	}
	// A digest that the archive has no program for.
	s.set(archivePath, archiveOf(t, "mips", "x"))
	_, err = Get(t.Context(), "alpha", o)
	mustFail(t, err, "no agent for alpha")
	mustBeEmpty(t, o.Dir)
}

func TestStatus(t *testing.T) {
	s := serve(t, false)
	for code, hint := range map[int]string{404: "such a release", 410: "such a release", 401: "user in it", 403: "user in it", 407: "HTTPS_PROXY", 500: "again", 204: "again", 206: "again"} {
		s.handle(archivePath, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) })
		o := s.options(t, Digests{"mips": {}})
		_, err := Get(t.Context(), "mips", o)
		mustFail(t, err, fmt.Sprint(code))
		if e, ok := errors.AsType[*Error](err); ok && !strings.Contains(e.Hint(), hint) {
			t.Errorf("%d: hint %q", code, e.Hint())
		}
		mustBeEmpty(t, o.Dir)
	}
}

// A body that ends too soon is never an agent, however its sender ends it, and
// nothing of it stays. That it was cut is told, not that somebody changed it.
func TestCutAnywhere(t *testing.T) {
	const program = "the program"
	archive := archiveOf(t, "mips", program)
	s := serve(t, true)
	sum := sumOf(string(archive))
	s.set(archivePath+".sha256", fmt.Appendf(nil, "%x  %s\n", sum, kept))
	for _, d := range []Digests{{"mips": sumOf(program)}, {}} {
		for n := range archive {
			for how, text := range map[string]string{"length": fmt.Sprintf("broke off after %d bytes: unexpected EOF", n), "chunks": fmt.Sprintf("broke off after %d bytes: unexpected EOF", n), "close": "unexpected EOF"} {
				if n%7 != 0 && how != "close" {
					continue
				}
				s.handle(archivePath, func(w http.ResponseWriter, _ *http.Request) { cut(w, how, archive, n) })
				o := s.options(t, d)
				_, err := Get(t.Context(), "mips", o)
				mustFail(t, err, text)
				if errors.Is(err, ErrDigest) {
					t.Errorf("%s at %d: %v", how, n, err)
				}
				mustBeEmpty(t, o.Dir)
			}
		}
	}
}

func cut(w http.ResponseWriter, how string, data []byte, n int) {
	conn, out, err := w.(http.Hijacker).Hijack()
	if err != nil {
		panic(err)
	}
	defer conn.Close()
	switch how {
	case "length":
		fmt.Fprintf(out, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(data), data[:n])
	case "chunks":
		fmt.Fprintf(out, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s", len(data), data[:n])
	case "close":
		fmt.Fprintf(out, "HTTP/1.0 200 OK\r\n\r\n%s", data[:n])
	}
	if err := out.Flush(); err != nil {
		panic(err)
	}
}

// No changed byte gets through.
func TestFlipAnywhere(t *testing.T) {
	const program = "the program"
	archive := archiveOf(t, "mips", program)
	sum, right := sumOf(string(archive)), sumOf(program)
	for i := range archive {
		archive[i] ^= 1 << (i % 8)
		got, err := verified(bytes.NewReader(archive), "mips", want{program: &right})
		if err == nil && string(got) != program {
			t.Errorf("byte %d: %q", i, got)
		}
		if _, err := verified(bytes.NewReader(archive), "mips", want{archive: &sum}); err == nil {
			t.Errorf("byte %d: another archive was taken", i)
		}
		archive[i] ^= 1 << (i % 8)
	}
}

func TestWrongDigest(t *testing.T) {
	s := serve(t, false)
	s.set(archivePath, archiveOf(t, "mips", "another program"))
	o := s.options(t, Digests{"mips": sumOf("the program")})
	_, err := Get(t.Context(), "mips", o)
	mustFail(t, err, fmt.Sprintf("has %x instead of %x", sumOf("another program"), sumOf("the program")))
	if e, ok := errors.AsType[*Error](err); ok && !errors.Is(err, ErrDigest) || !strings.Contains(e.Hint(), "changed") {
		t.Errorf("got %v, hint %q", err, e.Hint())
	}
	mustBeEmpty(t, o.Dir)
}

// A page with a smile, as a captive portal has it.
func TestNoArchive(t *testing.T) {
	s := serve(t, false)
	s.set(archivePath, []byte("<html>Welcome to the hotel</html>"))
	o := s.options(t, Digests{"mips": {}})
	_, err := Get(t.Context(), "mips", o)
	mustFail(t, err, "not gzip")
	mustBeEmpty(t, o.Dir)
}

// Whatever lies where the archive would be, put there by whoever it may be: the
// right agent comes all the same, and no other.
func TestSomethingIsThere(t *testing.T) {
	const program = "the program"
	archive := archiveOf(t, "mips", program)
	s := serve(t, false)
	s.set(archivePath, archive)
	elsewhere := filepath.Join(t.TempDir(), "elsewhere")
	for name, put := range map[string]func(file string) error{
		"other program": func(f string) error { return os.WriteFile(f, archiveOf(t, "mips", "evil"), 0o644) },
		"without it":    func(f string) error { return os.WriteFile(f, archiveOf(t, "sparc", program), 0o644) },
		"cut":           func(f string) error { return os.WriteFile(f, archive[:len(archive)-9], 0o644) },
		"empty":         func(f string) error { return os.WriteFile(f, nil, 0o644) },
		"full dir":      func(f string) error { return os.MkdirAll(filepath.Join(f, "x"), 0o755) },
		"unreadable":    func(f string) error { return os.WriteFile(f, archive, 0) },
		"link": func(f string) error {
			return errors.Join(os.WriteFile(elsewhere, archive, 0o644), os.Symlink(elsewhere, f))
		},
	} {
		o := s.options(t, Digests{"mips": sumOf(program)})
		file := filepath.Join(o.Dir, kept)
		if err := put(file); err != nil {
			t.Fatal(err)
		}
		a, err := Get(t.Context(), "mips", o)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := programOf(t, a); string(got) != program {
			t.Errorf("%s: got %q", name, got)
		}
		if name == "link" && a.From != s.URL+archivePath {
			t.Errorf("a link was followed: %s", a.From)
		}
		if name == "full dir" {
			if entries, err := os.ReadDir(o.Dir); err != nil || len(entries) != 1 {
				t.Errorf("%s: left %v, %v", name, entries, err)
			}
			continue
		}
		mustHold(t, o.Dir, kept, archive)
		if info, err := os.Lstat(file); err != nil || !info.Mode().IsRegular() {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	if got, err := os.ReadFile(elsewhere); err != nil || !bytes.Equal(got, archive) {
		t.Errorf("what a link led to was written: %q, %v", got, err)
	}
}

func TestRedirect(t *testing.T) {
	const program = "the program"
	other := serve(t, false)
	other.set("/x", archiveOf(t, "mips", program))
	for _, https := range []bool{false, true} {
		s := serve(t, https)
		s.handle(archivePath, http.RedirectHandler(other.URL+"/x?signature=geheim", http.StatusFound).ServeHTTP)
		o := s.options(t, Digests{"mips": sumOf(program)})
		a, err := Get(t.Context(), "mips", o)
		if https {
			mustFail(t, err, "not https")
			if err != nil && strings.Contains(err.Error(), "geheim") {
				t.Errorf("tells a signature: %v", err)
			}
			continue
		}
		if err != nil || string(programOf(t, a)) != program {
			t.Errorf("got %v", err)
		}
	}
	s := serve(t, false)
	s.handle(archivePath, http.RedirectHandler(archivePath, http.StatusFound).ServeHTTP)
	_, err := Get(t.Context(), "mips", s.options(t, Digests{"mips": {}}))
	mustFail(t, err, "again and again")
	if n := len(s.requests()); n != 10 {
		t.Errorf("%d requests", n)
	}
}

// Without digests of its own a program asks for the archive's each time.
func TestWithoutDigests(t *testing.T) {
	const program = "the program"
	archive := archiveOf(t, "mips", program)
	s := serve(t, true)
	s.set(archivePath, archive)
	o := s.options(t, Digests{})
	_, err := Get(t.Context(), "mips", o)
	mustFail(t, err, "404")
	if got := s.requests(); !slices.Equal(got, []string{archivePath + ".sha256"}) {
		t.Errorf("asked for %v", got)
	}
	for text, problem := range map[string]string{
		"":              "no digest of",
		"<html>":        "not that of a SHA-256",
		sums("x.gz", 1): "no digest of",
	} {
		s.set(archivePath+".sha256", []byte(text))
		_, err := Get(t.Context(), "mips", o)
		mustFail(t, err, problem)
	}
	s.set(archivePath+".sha256", []byte(sums(kept, 1)))
	_, err = Get(t.Context(), "mips", o)
	mustFail(t, err, "the archive has")
	if !errors.Is(err, ErrDigest) {
		t.Errorf("got %v", err)
	}
	mustBeEmpty(t, o.Dir)
	s.requests()

	for i, text := range []string{fmt.Sprintf("%x  %s\n", sumOf(string(archive)), kept), fmt.Sprintf("%x\n", sumOf(string(archive)))} {
		s.set(archivePath+".sha256", []byte(text))
		a, err := Get(t.Context(), "mips", o)
		if err != nil {
			t.Fatal(err)
		}
		if string(programOf(t, a)) != program || len(a.Notes) != 1 || !strings.Contains(a.Notes[0], archivePath+".sha256") {
			t.Errorf("got %+v", a)
		}
		want := []string{archivePath + ".sha256", archivePath}[:2-i]
		if got := s.requests(); !slices.Equal(got, want) {
			t.Errorf("asked for %v, want %v", got, want)
		}
	}

	// What lies there is another user's: its program is one, but not this release's.
	if err := os.WriteFile(filepath.Join(o.Dir, kept), archiveOf(t, "mips", "evil"), 0o644); err != nil {
		t.Fatal(err)
	}
	a, err := Get(t.Context(), "mips", o)
	if err != nil || string(programOf(t, a)) != program {
		t.Errorf("got %v", err)
	}
	mustHold(t, o.Dir, kept, archive)

	s.requests()
	_, err = Get(t.Context(), "vax", o)
	mustFail(t, err, "no agent for vax")
	if got := s.requests(); !slices.Equal(got, []string{archivePath + ".sha256"}) {
		t.Errorf("asked for %v, though the right archive is there", got)
	}

	plain := serve(t, false)
	_, err = Get(t.Context(), "mips", plain.options(t, Digests{}))
	mustFail(t, err, "without digests")
	if got := plain.requests(); got != nil {
		t.Errorf("asked for %v", got)
	}
}

func sums(name string, b byte) string {
	return fmt.Sprintf("%x  %s\n", [32]byte{b}, name)
}

func TestCancelInTheMiddle(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	archive := archiveOf(t, "mips", "program")
	s := serve(t, false)
	s.handle(archivePath, func(w http.ResponseWriter, r *http.Request) {
		if _, err := w.Write(archive[:20]); err != nil {
			panic(err)
		}
		w.(http.Flusher).Flush()
		cancel()
		<-r.Context().Done()
	})
	o := s.options(t, Digests{"mips": sumOf("program")})
	_, err := Get(ctx, "mips", o)
	mustFail(t, err, "context canceled")
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	mustBeEmpty(t, o.Dir)
}

// A server that says nothing, before or in the middle, is given up.
func TestSilence(t *testing.T) {
	archive := archiveOf(t, "mips", "program")
	for i, n := range []int{-1, 0, 20, -1, 0, 20} {
		s := serveHTTP(t, i >= 3, i >= 3)
		s.handle(archivePath, func(w http.ResponseWriter, r *http.Request) {
			if want := 1 + i/3; r.ProtoMajor != want {
				t.Errorf("%s is not tested as it was meant", r.Proto)
			}
			if n >= 0 {
				w.WriteHeader(http.StatusOK)
				if _, err := w.Write(archive[:n]); err != nil {
					panic(err)
				}
				w.(http.Flusher).Flush()
			}
			<-r.Context().Done()
		})
		o := s.options(t, Digests{"mips": sumOf("program")})
		o.stall = 50 * time.Millisecond
		_, err := Get(t.Context(), "mips", o)
		mustFail(t, err, "nothing came for too long")
		if errors.Is(err, context.Canceled) {
			t.Errorf("that looks like Ctrl-C: %v", err)
		}
		mustBeEmpty(t, o.Dir)
	}
}

func TestNetwork(t *testing.T) {
	gone := httptest.NewServer(nil)
	gone.Close()
	dead, err := url.Parse(gone.URL)
	if err != nil {
		t.Fatal(err)
	}
	// Everything that goes over a proxy ends there, here too.
	s := serve(t, false)
	s.set(archivePath, archiveOf(t, "mips", "program"))
	alive, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	proxied := func(u *url.URL) *http.Client {
		return &http.Client{Transport: &http.Transport{Proxy: http.ProxyURL(u), DisableKeepAlives: true}}
	}
	o := Options{Version: "v1.2.3", Dir: t.TempDir(), Digests: Digests{"mips": sumOf("program")}}
	for _, c := range []struct {
		url    string
		client *http.Client
		text   string
	}{
		{gone.URL, nil, "refused"},
		{"http://release.invalid", proxied(dead), "proxyconnect"},
		{"http://user:secret@release.invalid/x?token=secret", proxied(dead), "http://user:xxxxx@release.invalid/x/" + kept + ":"},
		{"http://release.invalid/unknown", proxied(alive), "404"},
		{"https://release.invalid", proxied(alive), "Not Found"}, // of CONNECT
	} {
		o.URL, o.Client = c.url, c.client
		_, err := Get(t.Context(), "mips", o)
		mustFail(t, err, c.text)
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("tells a secret: %v", err)
		}
		mustBeEmpty(t, o.Dir)
	}
	o.URL, o.Client = "http://release.invalid", proxied(alive)
	if a, err := Get(t.Context(), "mips", o); err != nil || string(programOf(t, a)) != "program" {
		t.Errorf("over a proxy: %v", err)
	}
}

// Some servers take an archive's own compression for that of the transport.
func TestContentEncoding(t *testing.T) {
	s := serve(t, false)
	archive := archiveOf(t, "mips", "program")
	s.handle(archivePath, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		if _, err := w.Write(archive); err != nil {
			panic(err)
		}
	})
	o := s.options(t, Digests{"mips": sumOf("program")})
	if _, err := Get(t.Context(), "mips", o); err != nil {
		t.Fatal(err)
	}
	mustHold(t, o.Dir, kept, archive)
}

func TestNoDirectory(t *testing.T) {
	s := serve(t, false)
	o := s.options(t, Digests{"mips": {}})
	o.Dir = filepath.Join(o.Dir, "missing")
	_, err := Get(t.Context(), "mips", o)
	mustFail(t, err, "make a file for the agents")
	if e, ok := errors.AsType[*Error](err); ok && !strings.Contains(e.Hint(), "TMPDIR") {
		t.Errorf("hint: %s", e.Hint())
	}
}

// Several at once do not take each other's files away, and none is half written.
func TestTogether(t *testing.T) {
	program := strings.Repeat("the program ", 100_000)
	archive := archiveOf(t, "mips", program)
	s := serve(t, false)
	s.set(archivePath, archive)
	var log bytes.Buffer
	o := s.options(t, Digests{"mips": sumOf(program)})
	o.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	var wg sync.WaitGroup
	for i := range 16 {
		o := o
		o.Force = i%2 == 0
		wg.Go(func() {
			if a, err := Get(t.Context(), "mips", o); err != nil || string(programOf(t, a)) != program {
				t.Errorf("got %v", err)
			}
		})
	}
	wg.Wait()
	mustHold(t, o.Dir, kept, archive)
	if !strings.Contains(log.String(), "download") || strings.Contains(log.String(), "is not kept") {
		t.Errorf("log: %s", &log)
	}
}
