// Command agentread carries out one request of an agent and says what it took.
// It links what an agent links, so that its resident size is an agent's; a
// benchmark that linked the TSDB too would measure that.
//
// What is told is read to its end and thrown away; the frames' compression is
// not in the numbers. The heap is sampled every two milliseconds, so a shorter
// peak may be missed.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"os/signal"
	"runtime/metrics"
	"runtime/pprof"
	"time"

	"github.com/promdump/promdump/internal/agent"
	"github.com/promdump/promdump/internal/wire"
)

// answer is printed as JSON: what bench reads.
type answer struct {
	Seconds float64 `json:"seconds"` // of the reading alone
	Heap    uint64  `json:"heap"`    // peak, bytes in use
	Bytes   int64   `json:"bytes"`   // told
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "agentread:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) (err error) {
	dir := flag.String("dir", "", "data dir")
	mint := flag.Int64("min", math.MinInt64/2, "first time, Unix milliseconds")
	maxt := flag.Int64("max", math.MaxInt64/2, "last time, Unix milliseconds")
	namespace := flag.String("namespace", "", "take this namespace alone")
	head := flag.String("head", string(wire.HeadNone), "block, raw or none")
	profile := flag.String("cpuprofile", "", "file for a CPU profile")
	memory := flag.String("memprofile", "", "file for a profile of what was allocated")
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
	req := wire.Request{Version: wire.Version, Head: wire.HeadMode(*head), Selection: wire.Selection{MinTime: *mint, MaxTime: *maxt}}
	if *namespace != "" {
		req.Selection.Matchers = [][]wire.Matcher{{{Type: "=", Name: "namespace", Value: *namespace}}}
	}
	peak := watchHeap(ctx)
	start := time.Now()
	n, err := drain(agent.Read(ctx, *dir, req, agent.Options{Logger: slog.New(slog.DiscardHandler)}))
	if err != nil {
		return err
	}
	a := answer{Seconds: time.Since(start).Seconds(), Heap: peak(), Bytes: n}
	if *memory != "" {
		f, err := os.Create(*memory)
		if err != nil {
			return err
		}
		if err := errors.Join(pprof.Lookup("allocs").WriteTo(f, 0), f.Close()); err != nil {
			return err
		}
	}
	return json.NewEncoder(os.Stdout).Encode(a)
}

func drain(story func(func(wire.Message, error) bool)) (n int64, err error) {
	buf := make([]byte, 64<<10)
	done := false
	for msg, err := range story {
		if err != nil {
			return n, err
		}
		switch m := msg.(type) {
		case *wire.File:
			// Not io.Copy: it would find a way around the buffer.
			for {
				k, err := m.Body.Read(buf)
				n += int64(k)
				if err == io.EOF {
					break
				}
				if err != nil {
					return n, err
				}
			}
		case *wire.Series:
			for _, c := range m.Chunks {
				n += int64(len(c.Data))
			}
		case *wire.Symbols:
			for _, s := range m.Strings {
				n += int64(len(s))
			}
		case *wire.Records:
			for _, r := range m.Records {
				n += int64(len(r))
			}
		case *wire.End:
			done = true
		}
	}
	if !done {
		return n, errors.New("the agent stopped before its end")
	}
	return n, nil
}

// watchHeap samples what MemStats calls HeapInuse, without stopping the world as
// ReadMemStats does. The function that it gives ends the watch.
func watchHeap(ctx context.Context) (peak func() uint64) {
	ctx, stop := context.WithCancel(ctx)
	result := make(chan uint64)
	go func() {
		s := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/unused:bytes"}}
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		var most uint64
		for {
			metrics.Read(s)
			most = max(most, s[0].Value.Uint64()+s[1].Value.Uint64())
			select {
			case <-tick.C:
			case <-ctx.Done():
				result <- most
				return
			}
		}
	}()
	return func() uint64 { stop(); return <-result }
}
