// Command mktsdb writes data directories: a small one with an incident for demonstrations, and large ones
// for measurements. Releases do not contain it.
//
//	mktsdb demo DIR [UNIX-SECONDS]         six hours of a small shop, the incident 100 minutes before that time
//	mktsdb bench DIR [SERIES [HOURS]]      a Kubernetes-like TSDB, see tsdbtest.Bench
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"time"

	"github.com/promdump/promdump/internal/tsdbtest"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "mktsdb:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) < 2 {
		return errors.New("usage: mktsdb demo DIR [UNIX-SECONDS] | mktsdb bench DIR [SERIES [HOURS]]")
	}
	kind, dir := args[0], args[1]
	numbers := make([]int64, 2)
	for i, arg := range args[2:] {
		if i >= len(numbers) {
			return fmt.Errorf("one argument too many: %s", arg)
		}
		n, err := strconv.ParseInt(arg, 10, 64)
		if err != nil {
			return fmt.Errorf("not a number: %s", arg)
		}
		numbers[i] = n
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	switch kind {
	case "demo":
		now := time.Now()
		if numbers[0] != 0 {
			now = time.Unix(numbers[0], 0)
		}
		incident, err := tsdbtest.Demo(ctx, dir, now)
		if err != nil {
			return err
		}
		fmt.Printf("%s: the incident of pod %s went from %s to %s\n", dir, incident.Pod, text(incident.Start), text(incident.End))
	case "bench":
		size, err := tsdbtest.Bench(ctx, dir, tsdbtest.Scale{Series: int(numbers[0]), Blocks: time.Duration(numbers[1]) * time.Hour})
		if err != nil {
			return err
		}
		fmt.Printf("%s: %d series, %d samples in %d blocks, %d in the head\n", dir, size.Series, size.BlockSamples, len(size.Blocks), size.HeadSamples)
	default:
		return fmt.Errorf("unknown kind %q", kind)
	}
	return nil
}

func text(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05") }
