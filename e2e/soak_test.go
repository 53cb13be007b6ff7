package e2e

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/tsdb"

	"github.com/promdump/promdump/internal/tsdbtest"
	"github.com/promdump/promdump/internal/wire"
)

// A living server is dumped again and again while it scrapes, receives samples
// in and out of order, cuts head chunks, truncates its logs and compacts. Each
// dump must hold what the server itself answers, no more and no less.
func TestSoak(t *testing.T) {
	limit := 30 * time.Second
	if v := os.Getenv("PROMDUMP_E2E_SOAK"); v != "" {
		var err error
		if limit, err = time.ParseDuration(v); err != nil {
			t.Fatalf("PROMDUMP_E2E_SOAK: %v", err)
		}
	}
	var wrong []string // repeated at the end, below the server's long log
	t.Cleanup(func() {
		if len(wrong) > 0 {
			t.Logf("%d wrong dumps, the first:\n%s", len(wrong), wrong[0])
		}
	})
	dir := t.TempDir()
	s := start(t, dir, serverOptions{target: target(t), window: "1m", args: quick})
	begin := time.Now().UnixMilli()
	w := send(t, s)
	if !poll(60*time.Second, func() bool { return len(blocks(t, dir)) >= 2 }) {
		t.Fatal("the server makes no blocks")
	}
	r := rand.New(rand.NewPCG(1, 1))
	dumps, samples, hidden := 0, 0, 0
	names := map[string]bool{} // of blocks that were there: how much it compacted
	for end := time.Now().Add(limit); time.Now().Before(end); dumps++ {
		for _, b := range blocks(t, dir) {
			names[b] = true
		}
		hides := hidesHead(t, dir) // what a raw copy holds is served by a server that starts on it
		n, err := soakOnce(t, s, w, r, dumps, begin, tsdbtest.Diff)
		if err != nil && dumps%4 == rawDump && (hides || hidesHead(t, dir)) {
			hidden++
			t.Logf("dump %d: a server that starts on the raw head ignores what the running one serves", dumps)
		} else if err != nil {
			wrong = append(wrong, fmt.Sprintf("dump %d: %v", dumps, err))
			t.Error(wrong[len(wrong)-1])
		}
		samples += n
	}
	w.end(t)
	t.Logf("%d dumps, %d of them wrong, %d raw ones of which a block hides a part, %d samples compared; the server had %d different blocks meanwhile",
		dumps, len(wrong), hidden, samples, len(names))
	if hidden > max(10, dumps/10) {
		t.Errorf("a block hides a part of %d of %d dumps", hidden, dumps)
	}
	if dumps < 4 || samples == 0 || len(names) < 4 {
		t.Errorf("too few to prove anything")
	}
}

// rawDump is the kind of the dumps with a raw head.
const rawDump = 1

// hidesHead reports whether a block hides a part of the head from a server that starts: the
// server merged out-of-order samples into it whose time the head has in-order samples of.
// See minValidTime in internal/datadir, and docs/troubleshooting.md.
func hidesHead(t *testing.T, dir string) bool {
	t.Helper()
	ends, inOrder := int64(math.MinInt64), int64(math.MinInt64)
	for _, file := range blocks(t, dir) {
		var m tsdb.BlockMeta
		b, err := os.ReadFile(file)
		if err != nil || json.Unmarshal(b, &m) != nil || len(m.Compaction.Hints) > 0 {
			continue // deleted meanwhile, or it hides nothing
		}
		ends = max(ends, m.MaxTime)
		first := m.MaxTime
		for _, p := range m.Compaction.Parents {
			first = min(first, p.MaxTime)
		}
		inOrder = max(inOrder, first)
	}
	return ends > inOrder
}

// soakOnce makes one dump and compares it with what the server serves.
func soakOnce(
	t *testing.T, s *server, w *sender, r *rand.Rand, n int, begin int64, compare func(want, got tsdbtest.Served) string,
) (samples int, err error) {
	now := time.Now().UnixMilli()
	// A scrape's samples have the time of its start and come up to 400 ms later.
	stable := now - 4000
	w.hold(stable + 1)
	sel := wire.Selection{MinTime: begin, MaxTime: stable}
	args := []string{"dump", "-d", s.dir, "--min-time", ms(begin), "--max-time", ms(now), "--compression", []string{"none", "gzip", "zstd"}[n%3]}
	exact := false
	switch n % 4 {
	case 0:
	case rawDump:
		args = append(args, "--head=raw")
	case 2, 3:
		a, b := begin+r.Int64N(stable-begin), begin+r.Int64N(stable-begin)
		sel.MinTime, sel.MaxTime = min(a, b), max(a, b)
		exact = true
		args[4], args[6] = ms(sel.MinTime), ms(sel.MaxTime)
		if n%4 == 3 {
			sel.Matchers = [][]wire.Matcher{{{Type: "=~", Name: "__name__", Value: "pushed.*|latency.*"}}, {{Type: "=", Name: "i", Value: "3"}}}
			args = append(args, "--match", `{__name__=~"pushed.*|latency.*"}`, "--match", `{i="3"}`)
		}
	}
	file := filepath.Join(t.TempDir(), "dump")
	out, err := exec.Command(binary(t).promdump, append(args, "--force", "-t", file)...).CombinedOutput()
	want := s.export(sel)
	if err != nil {
		// A range of some milliseconds can be empty; it must not be called so if not.
		if want.Count() == 0 && strings.Contains(string(out), "nothing is selected") {
			return 0, nil
		}
		return 0, fmt.Errorf("promdump %v: %w, the server has %d samples\n%s", args, err, want.Count(), out)
	}
	if out, err := exec.Command(binary(t).promdump, "verify", file).CombinedOutput(); err != nil {
		return 0, fmt.Errorf("verify: %w\n%s", err, out)
	}
	restored := filepath.Join(t.TempDir(), "restored")
	if err := os.MkdirAll(restored, 0o777); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(binary(t).promdump, "restore", "-d", restored, "-t", file).CombinedOutput(); err != nil {
		return 0, fmt.Errorf("restore: %w\n%s", err, out)
	}
	read := sel
	if exact {
		read = tsdbtest.Everything() // also what was not asked for
	}
	got := tsdbtest.SamplesDir(t, restored, read)
	if diff := compare(want, got); diff != "" {
		return 0, fmt.Errorf("promdump %v differs from what the server says:\n%s", args, diff)
	}
	return want.Count(), nil
}
