package apply

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/prometheus/prometheus/tsdb"
)

// TestLockIsOnlyRead: no lock is made, and a server can start meanwhile.
func TestLockIsOnlyRead(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "wal"), 0o755); err != nil {
		t.Fatal(err)
	}
	look := func(want bool) {
		t.Helper()
		target, err := Inspect(dir)
		if err != nil || target.Live != want || !target.Writable || !target.Exists {
			t.Fatalf("%+v, %v", target, err)
		}
	}
	look(false)
	if _, err := os.Stat(filepath.Join(dir, lockName)); err == nil {
		t.Error("a lock was made")
	}
	if err := os.WriteFile(filepath.Join(dir, lockName), nil, 0o644); err != nil { // of a killed server
		t.Fatal(err)
	}
	look(false)
	opts := tsdb.DefaultOptions()
	db, err := tsdb.Open(dir, nil, nil, opts, nil)
	if err != nil {
		t.Fatal(err)
	}
	look(true)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}
