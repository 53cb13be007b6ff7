// Command bench measures promdump against what one would use without it: cat,
// tar, promtool and the TSDB's own library. All ways of a task run in turn, on the
// same data, in one sitting; what counts is their ratio, and the bars are ratios.
// A missed bar is printed and is no error.
//
//	go run ./bench                                  58,000 series, 24 h: some minutes and 4 GB in -dir
//	go run ./bench -series 3000 -hours 4 -runs 1    does it work at all
//	go run ./bench -large                           also the agent's memory at 500,000 and 2,000,000 series
//	go run ./bench -only head,restore               what one is working on
//
// The peak of the resident size is the kernel's, of each process. A process that
// starts another one counts for it too, so bench itself is small: data, library
// and agent are in helpers of their own (bench/library, bench/agentread).
//
// What it does not say: how a cold disk, a network or a kubectl changes any of
// this. All files are in the page cache.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// bench is what the tasks share.
type bench struct {
	promdump, promtool, agent, library string

	data    string // the data dir
	files   []string
	scratch string // empty at the start, removed at the end
	end     time.Time
	hours   int
	series  int
}

func run(ctx context.Context) (err error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return err
	}
	b := &bench{end: time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC)} // of the last block: tsdbtest.Scale
	flag.IntVar(&b.series, "series", 58_000, "series of the data dir, which is made once")
	flag.IntVar(&b.hours, "hours", 24, "hours in its blocks, a multiple of 2")
	runs := flag.Int("runs", 5, "how often each way is taken; medians are printed")
	only := flag.String("only", "", "names of the tasks to run, with commas between (whole, compressed, slice, namespace, agent, head, restore, open, server, large)")
	dir := flag.String("dir", filepath.Join(cache, "promdump-e2e", "bench"), "where data dirs are kept")
	flag.StringVar(&b.promdump, "promdump", "../bin/promdump", "the binary to measure")
	large := flag.Bool("large", false, "also 500,000 and 2,000,000 series, for the agent's memory (6 GB more, and minutes to make them)")
	out := flag.String("json", "", "also write every run's numbers to this file")
	flag.Parse()
	if flag.NArg() > 0 || *runs < 1 || b.hours < 4 || b.hours%2 != 0 || b.series < 1000 {
		return errors.New("no arguments, at least one run, an even number of hours from 4 on and a thousand series")
	}

	if b.promdump, err = filepath.Abs(b.promdump); err != nil {
		return err
	}
	if _, err := os.Stat(b.promdump); err != nil {
		return fmt.Errorf("%w (make build makes it)", err)
	}
	if err := os.MkdirAll(*dir, 0o777); err != nil {
		return err
	}
	if b.scratch, err = os.MkdirTemp(*dir, "scratch-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.scratch)) }()
	if err := b.build(ctx, cache); err != nil {
		return err
	}
	if b.data, err = b.make(ctx, *dir, b.series, b.hours, 90*time.Minute, 15*time.Second); err != nil {
		return err
	}

	if err := walk(b.data, func(path string, _ os.FileInfo) { b.files = append(b.files, path) }); err != nil {
		return err
	}

	tasks := map[string]func() []*task{
		"large": func() []*task { return b.large(*dir) },
		"whole": b.whole, "compressed": b.compressed, "slice": b.slice, "namespace": b.namespace,
		"agent": b.agentMemory, "head": b.head, "restore": b.restore, "open": b.open, "server": b.server,
	}
	order := []string{"whole", "compressed", "slice", "namespace", "agent", "head", "restore", "open", "server"}
	if *large {
		order = append(order, "large")
	}
	if *only != "" {
		order = strings.Split(*only, ",")
	}
	var done []*task
	for _, name := range order {
		these, ok := tasks[name]
		if !ok {
			return fmt.Errorf("no task %q", name)
		}
		for _, t := range these() {
			if err := warm(b.data); err != nil {
				return err
			}
			if err := t.run(ctx, *runs, os.Stderr); err != nil {
				return err
			}
			done = append(done, t)
		}
	}
	n, err := size(b.data)
	if err != nil {
		return err
	}
	fmt.Printf("%d series, %d h in blocks, %.0f MB; %d runs; %s\n", b.series, b.hours, float64(n)/1e6, *runs, time.Now().UTC().Format("2006-01-02 15:04"))
	tables(os.Stdout, done)
	if *out != "" {
		return save(*out, done)
	}
	return nil
}

// build makes the helpers, and promtool where the tests made the server.
func (b *bench) build(ctx context.Context, cache string) error {
	b.agent, b.library = filepath.Join(b.scratch, "agentread"), filepath.Join(b.scratch, "library")
	version, err := goTool(ctx, "list", "-m", "-f", "{{.Version}}", "github.com/prometheus/prometheus")
	if err != nil {
		return err
	}
	b.promtool = filepath.Join(cache, "promdump-e2e", strings.TrimSpace(version), "promtool")
	builds := []struct{ out, pkg string }{{b.agent, "./bench/agentread"}, {b.library, "./bench/library"}}
	if _, err := os.Stat(b.promtool); err != nil {
		builds = append(builds, struct{ out, pkg string }{b.promtool, "github.com/prometheus/prometheus/cmd/promtool"})
	}
	for _, x := range builds {
		fmt.Fprintln(os.Stderr, "building", filepath.Base(x.out))
		tmp := fmt.Sprintf("%s.%d", x.out, os.Getpid())
		if _, err := goTool(ctx, "build", "-tags", "remove_all_sd", "-o", tmp, x.pkg); err != nil {
			return err
		}
		if err := os.Rename(tmp, x.out); err != nil {
			return err
		}
	}
	return nil
}

func goTool(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return string(out), nil
}

// make makes a data dir, or finds the one that it made before.
func (b *bench) make(ctx context.Context, parent string, series, hours int, head, interval time.Duration) (string, error) {
	dir := filepath.Join(parent, fmt.Sprintf("%d-%dh", series, hours))
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	fmt.Fprintln(os.Stderr, "making", dir)
	tmp := filepath.Join(b.scratch, "data")
	if err := os.Mkdir(tmp, 0o777); err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, b.library, "data", tmp, fmt.Sprint(series), fmt.Sprint(hours), head.String(), interval.String())
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("make data dir: %w", err)
	}
	return dir, os.Rename(tmp, dir)
}

// warm reads all files once.
func warm(dir string) error {
	buf := make([]byte, 256<<10)
	var failed error
	err := walk(dir, func(path string, _ os.FileInfo) {
		f, err := os.Open(path)
		if err != nil {
			failed = err
			return
		}
		defer f.Close()
		for err == nil {
			_, err = f.Read(buf)
		}
		if err != io.EOF {
			failed = err
		}
	})
	return errors.Join(err, failed)
}

// fresh gives an empty directory in scratch, in the place of what was there.
func (b *bench) fresh(name string) (string, error) {
	dir := filepath.Join(b.scratch, name)
	if err := os.RemoveAll(dir); err != nil {
		return "", err
	}
	return dir, os.Mkdir(dir, 0o777)
}
