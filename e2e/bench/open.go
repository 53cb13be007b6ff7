package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// The question is one that reads chunks of every block.
const question = `count(last_over_time({__name__=~".+"}[5m]))`

// open is the time from the command to the first answer, of a dump of all there is.
// With -series 17000 it is 100 MB, with -hours 60 a GB.
func (b *bench) open() []*task {
	file := filepath.Join(b.scratch, "open.tar.gz")
	cached := filepath.Join(b.scratch, "open-cache")
	fresh := func(run func(ctx context.Context, dir string) (cost, error)) func(context.Context) (cost, error) {
		return func(ctx context.Context) (cost, error) {
			dir, err := b.fresh("open-fresh")
			if err != nil {
				return cost{}, err
			}
			return run(ctx, dir)
		}
	}
	served := func(ctx context.Context, dir string) (cost, error) {
		return answered(ctx, "", b.promdump, "open", "-q", "--no-browser", "--listen", "127.0.0.1:0", "--cache-dir", dir, file)
	}
	asked := func(ctx context.Context, dir string) (cost, error) {
		return quiet(ctx, b.promdump, "query", "-q", "--cache-dir", dir, file, question)
	}
	const theirs, cold, warm = "tar xzf, prometheus until ready, query", "promdump open, query", "promdump open, query; cached"
	var t *task
	t = &task{
		name: "8 first answer from a .tar.gz",
		ways: []*way{
			{name: theirs, run: fresh(func(ctx context.Context, dir string) (cost, error) {
				c, err := quiet(ctx, "tar", "xzf", file, "-C", dir)
				if err != nil {
					return c, err
				}
				d, err := b.prometheus(ctx, dir)
				return c.and(d), err
			})},
			{name: cold, run: fresh(served)},
			{name: warm, run: func(ctx context.Context) (cost, error) { return served(ctx, cached) }},
			{name: "promdump query", run: fresh(asked)},
			{name: "promdump query; cached", run: func(ctx context.Context) (cost, error) { return asked(ctx, cached) }},
		},
		setup: func(ctx context.Context) error {
			if _, err := quiet(ctx, b.promdump, b.everything("--force", "-t", file)...); err != nil {
				return err
			}
			fi, err := os.Stat(file)
			if err != nil {
				return err
			}
			t.name += fmt.Sprintf(" of %d MB", fi.Size()/1e6)
			_, err = asked(ctx, cached)
			return errors.Join(err, warmFile(file))
		},
		judge: func(t *task) []verdict {
			return []verdict{
				atMost(1, t.way(cold).ratio(t.way(theirs)), "cold: # × tar and Prometheus"),
				atMost(0.2, t.way(warm).ratio(t.way(theirs)), "cached: # × tar and Prometheus"),
				atMost(1, t.way(cold).rss()/t.way(theirs).rss(), "cold: # × Prometheus' memory"),
			}
		},
	}
	return []*task{t}
}

// prometheus starts a server on a data dir.
func (b *bench) prometheus(ctx context.Context, dir string) (cost, error) {
	base, args, err := b.serving(dir)
	if err != nil {
		return cost{}, err
	}
	return answered(ctx, base, filepath.Join(filepath.Dir(b.promtool), "prometheus"), args...)
}

// serving gives the arguments of a server on a data dir, and its URL.
func (b *bench) serving(dir string) (base string, args []string, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		return "", nil, err
	}
	config := filepath.Join(b.scratch, "prometheus.yml")
	if err := os.WriteFile(config, nil, 0o666); err != nil {
		return "", nil, err
	}
	return "http://" + addr, []string{"--config.file=" + config, "--storage.tsdb.path=" + dir,
		"--storage.tsdb.retention.time=100y", "--web.listen-address=" + addr, "--log.level=error"}, nil
}

// answered is what a server costs until it has answered; its URL is base, or the
// first line that it prints.
func answered(ctx context.Context, base, name string, args ...string) (c cost, err error) {
	cmd := exec.CommandContext(ctx, name, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return c, err
	}
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return c, err
	}
	err = func() error {
		if base == "" {
			line, err := bufio.NewReader(out).ReadString('\n')
			if err != nil {
				return err
			}
			base = strings.TrimSuffix(strings.TrimSpace(line), "/")
		}
		for get(base+"/-/ready") != nil {
			if time.Since(began) > 5*time.Minute {
				return errors.New("it is never ready")
			}
			time.Sleep(2 * time.Millisecond)
		}
		// An hour before the end, which both have.
		at := time.Date(2026, 1, 1, 23, 0, 0, 0, time.UTC)
		return get(base + "/api/v1/query?" + url.Values{"query": {question}, "time": {fmt.Sprint(at.Unix())}}.Encode())
	}()
	c.Wall = time.Since(began).Seconds()
	err = errors.Join(err, cmd.Process.Signal(syscall.SIGTERM))
	ended := cmd.Wait()
	if err = errors.Join(err, ended); err != nil {
		return c, fmt.Errorf("%s: %w\n%s", filepath.Base(name), err, stderr.String())
	}
	c.CPU = (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds()
	if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		c.RSS = usage.Maxrss << 10
	}
	return c, nil
}

func get(url string) error {
	resp, err := http.Get(url)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && (resp.StatusCode != http.StatusOK || strings.Contains(string(body), `"result":[]`)) {
		err = fmt.Errorf("%s: %.300s", resp.Status, body)
	}
	return err
}
