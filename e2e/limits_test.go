package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/promdump/promdump/internal/tsdbtest"
)

// Twenty clients ask promdump open for the worst that they can. Its memory, mapped
// pages aside, stays below --max-memory, it goes on answering, and on SIGINT it ends
// within seconds, though their requests run. Longer with PROMDUMP_E2E_SOAK.
func TestOpenWorstQueries(t *testing.T) {
	scale, length := tsdbtest.Scale{Series: 12_000, Blocks: 6 * time.Hour, Head: -1}, 8*time.Second
	if os.Getenv("PROMDUMP_E2E_SOAK") != "" {
		scale.Series, length = 40_000, time.Minute
	}
	dir := t.TempDir()
	data, file := filepath.Join(dir, "data"), filepath.Join(dir, "dump.tar")
	if err := os.Mkdir(data, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := tsdbtest.Bench(t.Context(), data, scale); err != nil {
		t.Fatal(err)
	}
	promdump(t, "dump", "-d", data, "--min-time", "0", "-t", file)
	o := open(t, "--max-memory", "1GiB", file)
	end := time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC).Unix()
	times := fmt.Sprintf("&start=%d&end=%d", end-6*3600, end)
	const all = `{__name__=~".+"}`
	instant := func(q string) string { return "/api/v1/query?query=" + url.QueryEscape(q) }
	ranged := func(q, step string) string {
		return "/api/v1/query_range?query=" + url.QueryEscape(q) + times + "&step=" + step
	}
	worst := []string{
		instant(all + "[6h]"), instant(all + "[1h:1s]"), instant("count_over_time(" + all + "[6h:15s])"), instant(all),
		instant(all + "[45m]"), ranged(all, "15"), ranged("rate("+all+"[1h])", "5m"),
		ranged(`count_values("v",`+all+")", "15m"), ranged(all+" or "+all, "10m"),
		ranged("quantile by (instance) (0.9, "+all+")", "2"),
		ranged(`label_replace(`+all+`,"a","$1$1$1","__name__","(.*)")`, "1h"),
		"/federate?match[]=" + url.QueryEscape(all), "/api/v1/series?match[]=" + url.QueryEscape(all),
		"/api/v1/status/tsdb?limit=10000", "/api/v1/label/__name__/values?match[]=" + url.QueryEscape(all),
	}

	over, stop := context.WithTimeout(t.Context(), length)
	defer stop()
	var clients sync.WaitGroup
	var mu sync.Mutex
	codes := map[string]int{}
	pid := o.pid
	for i := range 20 {
		clients.Go(func() {
			// Every fourth leaves soon, in whichever phase its request is.
			for n := 0; over.Err() == nil; n++ {
				ctx, leave := context.WithCancel(t.Context())
				if i%4 == 3 {
					ctx, leave = context.WithTimeout(ctx, time.Duration(100*(n%9+1))*time.Millisecond)
				}
				code := fetch(ctx, o.url+worst[(7*i+n)%len(worst)])
				ended := code == "gone" && ctx.Err() == nil
				leave()
				mu.Lock()
				codes[code]++
				mu.Unlock()
				if ended {
					return
				}
			}
		})
	}
	var peak int64
	for over.Err() == nil {
		peak = max(peak, rssAnon(t, pid))
		time.Sleep(5 * time.Millisecond)
	}
	began := time.Now()
	if err := syscall.Kill(pid, syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if code := o.ends(t); code != 0 {
		t.Errorf("it ended with %d:\n%s", code, o.stderr)
	}
	took := time.Since(began).Round(time.Millisecond)
	clients.Wait()
	t.Logf("peak of anonymous memory: %d MiB; answers: %v; it ended in %s", peak>>20, codes, took)
	if took > 10*time.Second {
		t.Errorf("it ended %s after SIGINT", took)
	}
	if peak > 1<<30 {
		t.Errorf("the peak of anonymous memory was %d MiB", peak>>20)
	}
	if codes["200"] == 0 || codes["422"] == 0 {
		t.Errorf("answers: %v", codes)
	}
}

// fetch reads all of an answer and returns its code.
func fetch(ctx context.Context, u string) string {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	if err != nil {
		return err.Error()
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return "gone"
	}
	defer answer.Body.Close()
	if _, err := io.Copy(io.Discard, answer.Body); err != nil {
		return "cut"
	}
	return strconv.Itoa(answer.StatusCode)
}

var rssLine = regexp.MustCompile(`RssAnon:\s+(\d+)`)

// rssAnon is the memory of a process that is not of files, in bytes.
func rssAnon(t *testing.T, pid int) int64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatalf("it is gone: %v", err)
	}
	m := rssLine.FindSubmatch(status)
	if m == nil {
		t.Fatalf("no RssAnon in %s", status)
	}
	kib, err := strconv.ParseInt(string(m[1]), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return kib << 10
}
