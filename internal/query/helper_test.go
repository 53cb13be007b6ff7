package query

import (
	"log/slog"
	"os"
	"testing"

	"github.com/promdump/promdump/internal/view"
)

var quiet = slog.New(slog.DiscardHandler)

// viewIn is an opened dump file.
func viewIn(t *testing.T, file string) *view.View {
	t.Helper()
	cache, err := view.OpenCache(t.TempDir(), 1<<40, quiet)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	d, err := cache.Open(t.Context(), view.Input{Name: file, Path: file, R: f}, view.Hooks{})
	if err != nil {
		t.Fatal(err)
	}
	v, err := view.New(t.Context(), "", d)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := v.Close(); err != nil {
			t.Error(err)
		}
	})
	return v
}
