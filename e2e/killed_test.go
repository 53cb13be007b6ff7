package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/promdump/promdump/internal/tsdbtest"
)

// A server is killed and started again, and at times loses a part of its log or a
// page of it in between. After each start it repairs what it finds and goes on; the
// dump must hold what it serves then. It may hold more: a server that was killed
// while it compacted out-of-order samples forgets some that are still in its files.
func TestKilledServer(t *testing.T) {
	limit := 15 * time.Second
	if v := os.Getenv("PROMDUMP_E2E_SOAK"); v != "" {
		var err error
		if limit, err = time.ParseDuration(v); err != nil {
			t.Fatalf("PROMDUMP_E2E_SOAK: %v", err)
		}
	}
	dir := t.TempDir()
	// Long blocks: what a start finds in the head stays there.
	o := serverOptions{target: target(t), window: "1m", args: []string{
		"--storage.tsdb.min-block-duration=2m", "--storage.tsdb.max-block-duration=6m", "--storage.tsdb.block-reload-interval=1s",
		"--storage.tsdb.wal-segment-size=10MB", "--web.enable-remote-write-receiver",
	}}
	r := rand.New(rand.NewPCG(2, 2))
	begin := time.Now().UnixMilli()
	starts, repairs := 0, 0
	for end := time.Now().Add(limit); time.Now().Before(end) || repairs < 2; starts++ {
		s := start(t, dir, o)
		w := send(t, s)
		scraped := time.Now()
		if !poll(30*time.Second, func() bool { return time.Since(scraped) > 4*time.Second }) {
			t.Fatal("time stands still")
		}
		if n, err := soakOnce(t, s, w, r, 4*starts, begin, tsdbtest.Missing); err != nil || n == 0 {
			t.Errorf("start %d: %d samples, %v", starts, n, err)
		}
		w.end(t)
		if err := s.cmd.Process.Signal(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		<-s.done
		if starts%2 == 1 {
			repairs++
			spoil(t, r, dir)
		}
	}
	t.Logf("%d starts, after %d of them a damaged log", starts, repairs)
}

// spoil damages the newest segment with records: its end is lost, or one of its
// bytes. A server repairs both.
func spoil(t *testing.T, r *rand.Rand, dir string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "wal", "0*"))
	if err != nil {
		t.Fatal(err)
	}
	for i := len(files) - 1; i >= 0; i-- {
		b, err := os.ReadFile(files[i])
		if err != nil {
			t.Fatal(err)
		}
		if len(b) < 1000 {
			continue
		}
		at := len(b)/4 + r.IntN(len(b)/2)
		if r.IntN(2) == 0 {
			b = b[:at]
		} else {
			b[at] ^= 1
		}
		if err := os.WriteFile(files[i], b, 0o666); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Fatal(fmt.Errorf("no segment has records: %v", files))
}
