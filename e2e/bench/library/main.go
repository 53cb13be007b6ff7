// Command library does for bench what needs the TSDB's library, in a process of
// its own, so that its memory counts for nobody else:
//
//	library data DIR SERIES HOURS HEAD INTERVAL   make a data dir
//	library head DIR                              open a data dir (it is written to) and compact its head
//	library pread DIR NAMESPACE                   read just the bytes that hold a namespace
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime/pprof"
	"strconv"
	"time"

	"github.com/prometheus/prometheus/tsdb"

	"github.com/promdump/promdump/internal/tsdbtest"
)

// answer is printed as JSON: what bench reads.
type answer struct {
	Seconds float64 `json:"seconds"`         // of the work alone
	Open    float64 `json:"open,omitempty"`  // seconds of it until the data dir was open
	Bytes   int64   `json:"bytes,omitempty"` // read
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "library:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	profile := flag.String("cpuprofile", "", "file for a CPU profile")
	flag.Parse()
	if *profile != "" {
		f, err := os.Create(*profile)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	args := flag.Args()
	switch {
	case len(args) == 6 && args[0] == "data":
		return data(ctx, args[1], args[2:])
	case len(args) == 2 && args[0] == "head":
		return head(ctx, args[1])
	case len(args) == 3 && args[0] == "pread":
		return pread(ctx, args[1], args[2])
	}
	return errors.New("see its documentation")
}

func data(ctx context.Context, dir string, args []string) error {
	series, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	hours, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	scale := tsdbtest.Scale{Series: series, Blocks: time.Duration(hours) * time.Hour}
	if scale.Head, err = time.ParseDuration(args[2]); err != nil {
		return err
	}
	if scale.Interval, err = time.ParseDuration(args[3]); err != nil {
		return err
	}
	size, err := tsdbtest.Bench(ctx, dir, scale)
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "%d series, %d samples in %d blocks, %d in the head\n", size.Series, size.BlockSamples, len(size.Blocks), size.HeadSamples)
	return nil
}

// head is what one does without promdump: let the library replay the log, and
// write what it then has.
func head(ctx context.Context, dir string) error {
	o := tsdb.DefaultOptions()
	o.NoLockfile = true
	o.RetentionDuration = 0
	start := time.Now()
	db, err := tsdb.Open(dir, slog.New(slog.DiscardHandler), nil, o, nil)
	if err != nil {
		return err
	}
	db.DisableCompactions()
	a := answer{Open: time.Since(start).Seconds()}
	h := db.Head()
	err = db.CompactHead(tsdb.NewRangeHead(h, h.MinTime(), h.MaxTime()))
	if err := errors.Join(err, ctx.Err(), db.Close()); err != nil {
		return err
	}
	a.Seconds = time.Since(start).Seconds()
	return json.NewEncoder(os.Stdout).Encode(a)
}
