package promdump_test

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/promdump/promdump"
	"github.com/promdump/promdump/internal/tsdbtest"
)

func write(t *testing.T, from *promdump.Source, o promdump.Options) []byte {
	t.Helper()
	var out bytes.Buffer
	report, err := promdump.Write(t.Context(), &out, from, o)
	if err != nil {
		t.Fatal(err)
	}
	if report.Bytes != int64(out.Len()) {
		t.Errorf("%d bytes reported, %d written", report.Bytes, out.Len())
	}
	return out.Bytes()
}

func file(t *testing.T, content []byte) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "dump")
	if err := os.WriteFile(name, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func served(t *testing.T, content []byte, cache string) tsdbtest.Served {
	t.Helper()
	dump, err := promdump.Open(t.Context(), file(t, content), promdump.OpenOptions{CacheDir: cache, CacheBytes: 1 << 30})
	if err != nil {
		t.Fatal(err)
	}
	all := tsdbtest.Samples(t, dump, tsdbtest.Everything())
	if err := dump.Close(); err != nil {
		t.Fatal(err)
	}
	return all
}

// TestWriteAndOpen checks that an opened dump serves exactly what its data directory serves in
// the selected range, and that no temporary file is left.
func TestWriteAndOpen(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	d := tsdbtest.Random(t, filepath.Join(t.TempDir(), "data"), 3, tsdbtest.Options{Series: 14, Interval: 2 * time.Minute, Duration: 6 * time.Hour})
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	src := promdump.Dir(d.Dir)
	want := tsdbtest.SamplesDir(t, d.Dir, tsdbtest.Everything())
	for _, o := range []promdump.Options{{}, {Compression: promdump.Zstd}, {Head: promdump.HeadRaw, Compression: promdump.Uncompressed}} {
		if diff := tsdbtest.Diff(want, served(t, write(t, src, o), "")); diff != "" {
			t.Errorf("%+v: %s", o, diff)
		}
	}

	// A border between two milliseconds excludes samples before From and after To.
	from, to := d.MaxTime, d.MinTime
	for _, samples := range want { // times with a sample
		if n := len(samples); n > 20 {
			from, to = min(from, samples[n/3].T), max(to, samples[2*n/3].T)
		}
	}
	for _, c := range []struct {
		o        time.Duration
		min, max int64
	}{{0, from, to}, {time.Microsecond, from + 1, to}, {-time.Microsecond, from, to - 1}} {
		o := promdump.Options{Selection: promdump.Selection{From: time.UnixMilli(from).Add(c.o), To: time.UnixMilli(to).Add(c.o)}}
		if diff := tsdbtest.Diff(want.Restrict(c.min, c.max), served(t, write(t, src, o), t.TempDir())); diff != "" {
			t.Errorf("%s off: %s", c.o, diff)
		}
	}

	entries, err := os.ReadDir(os.Getenv("TMPDIR"))
	if err != nil || len(entries) > 0 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

func TestErrors(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	dir := filepath.Join(t.TempDir(), "data")
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	if _, err := tsdbtest.Demo(t.Context(), dir, now); err != nil {
		t.Fatal(err)
	}
	src := promdump.Dir(dir)
	fails := func(want string, o promdump.Options) error {
		t.Helper()
		var out bytes.Buffer
		_, err := promdump.Write(t.Context(), &out, src, o)
		if err == nil || !strings.Contains(err.Error(), want) || out.Len() > 0 {
			t.Errorf("%+v: %v, %d bytes; want %q", o, err, out.Len(), want)
		}
		return err
	}
	if err := fails("", promdump.Options{Selection: promdump.Selection{To: now.Add(-48 * time.Hour)}}); !errors.Is(err, promdump.ErrNothingSelected) {
		t.Errorf("%v is not ErrNothingSelected", err)
	}
	fails("empty time range", promdump.Options{Selection: promdump.Selection{From: now, To: now.Add(-time.Hour)}})
	fails(`selector {a="b": `, promdump.Options{Selection: promdump.Selection{Match: []string{`{a="b"`}}})
	fails("must not match the empty string", promdump.Options{Selection: promdump.Selection{Match: []string{`{}`}}})
	fails(`"brotli"`, promdump.Options{Compression: "brotli"})
	fails(`"some"`, promdump.Options{Head: "some"})
	src = promdump.Dir(filepath.Join(dir, "nothing"))
	fails("nothing", promdump.Options{})

	whole := write(t, promdump.Dir(dir), promdump.Options{Compression: promdump.Uncompressed})
	flipped := bytes.Clone(whole)
	flipped[len(flipped)/2] ^= 1
	for want, content := range map[error][]byte{promdump.ErrIncomplete: whole[:len(whole)/2], promdump.ErrDamaged: flipped, promdump.ErrNotDump: []byte("a text")} {
		if d, err := promdump.Open(t.Context(), file(t, content), promdump.OpenOptions{}); !errors.Is(err, want) || d != nil {
			t.Errorf("%v, want %v", err, want)
		}
	}
	if _, err := promdump.Open(t.Context(), filepath.Join(dir, "nothing"), promdump.OpenOptions{}); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	entries, err := os.ReadDir(os.Getenv("TMPDIR"))
	if err != nil || len(entries) > 0 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

// TestServerKeepsSecrets checks that the password of a URL is used, and is in no error.
func TestServerKeepsSecrets(t *testing.T) {
	asked := ""
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		asked = user + ":" + password
		http.Error(w, "no", http.StatusForbidden)
	}))
	defer s.Close()
	src, err := promdump.Server(strings.Replace(s.URL, "://", "://me:secret@", 1)+"/api/v1/read", nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = promdump.Write(t.Context(), &bytes.Buffer{}, src, promdump.Options{})
	if err == nil || strings.Contains(fmt.Sprint(err), "secret") || asked != "me:secret" {
		t.Errorf("asked as %s: %v", asked, err)
	}
}
