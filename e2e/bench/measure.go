package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// cost is what one way took, once.
type cost struct {
	Wall, CPU float64 // seconds; CPU: user and system, of all its processes
	RSS       int64   // peak of its largest process, bytes
	Heap      int64   // peak of the Go heap, bytes; 0: not measured
	Out       int64   // bytes written to stdout or into its files; 0: not counted

	// Of the server that was looked at meanwhile, if one was.
	ServerCPU float64 `json:",omitzero"` // seconds
	ServerRSS int64   `json:",omitzero"` // growth at its peak, bytes
	Elsewhere bool    `json:",omitzero"` // the process is not in the server's container
}

// and is the cost of one step after another.
func (c cost) and(d cost) cost {
	return cost{Wall: c.Wall + d.Wall, CPU: c.CPU + d.CPU, RSS: max(c.RSS, d.RSS), Heap: max(c.Heap, d.Heap), Out: d.Out}
}

// piped runs a command whose stdout is a pipe that we empty and count.
func piped(ctx context.Context, name string, args ...string) (cost, error) {
	return measured(ctx, counted, name, args...)
}

// quiet runs a command whose stdout is of no interest.
func quiet(ctx context.Context, name string, args ...string) (cost, error) {
	return measured(ctx, func(*os.File) (int64, error) { return 0, nil }, name, args...)
}

// into runs a command with a file as its stdout.
func into(ctx context.Context, path, name string, args ...string) (cost, error) {
	f, err := os.Create(path)
	if err != nil {
		return cost{}, err
	}
	c, err := start(ctx, f, nil, name, args...)
	if err := errors.Join(err, f.Close()); err != nil {
		return cost{}, err
	}
	c.Out, err = size(path)
	return c, err
}

// helper runs one of our helpers, which tells its own time and heap.
func helper(ctx context.Context, name string, args ...string) (cost, float64, error) {
	var out bytes.Buffer
	c, err := measured(ctx, func(f *os.File) (int64, error) { return io.Copy(&out, f) }, name, args...)
	if err != nil {
		return c, 0, err
	}
	var a struct {
		Seconds, Open float64
		Heap, Bytes   int64
	}
	if err := json.Unmarshal(out.Bytes(), &a); err != nil {
		return c, 0, fmt.Errorf("%s says %q: %w", name, out.String(), err)
	}
	c.Wall, c.Heap, c.Out = a.Seconds, a.Heap, a.Bytes
	return c, a.Open, nil
}

func measured(ctx context.Context, read func(*os.File) (int64, error), name string, args ...string) (cost, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return cost{}, err
	}
	defer r.Close()
	type result struct {
		n   int64
		err error
	}
	done := make(chan result, 1)
	c, err := start(ctx, w, func() {
		// Ours must go, or the pipe never ends.
		w.Close()
		go func() {
			n, err := read(r)
			if err == nil {
				_, err = counted(r)
			}
			done <- result{n, err}
		}()
	}, name, args...)
	if err != nil {
		return c, err
	}
	got := <-done
	c.Out = got.n
	return c, got.err
}

// start runs a command to its end. Linux counts what this process has resident
// as the child's, who begins as our copy: so this program must stay small.
func start(ctx context.Context, stdout *os.File, started func(), name string, args ...string) (cost, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	var stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = stdout, &stderr
	// What limits Go's memory from outside would hide what we look for.
	cmd.Env = slices.DeleteFunc(os.Environ(), func(s string) bool {
		return strings.HasPrefix(s, "GOMEMLIMIT=") || strings.HasPrefix(s, "GOGC=") || strings.HasPrefix(s, "GOMAXPROCS=")
	})
	began := time.Now()
	err := cmd.Start()
	if started != nil {
		started()
	}
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		return cost{}, fmt.Errorf("%s %s: %w\n%s", filepath.Base(name), strings.Join(args[:min(len(args), 12)], " "), err, stderr.String())
	}
	c := cost{Wall: time.Since(began).Seconds(), CPU: (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds()}
	if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		c.RSS = usage.Maxrss << 10 // Linux counts KiB
	}
	return c, nil
}

func counted(r *os.File) (n int64, err error) {
	buf := make([]byte, 256<<10)
	for {
		k, err := r.Read(buf)
		n += int64(k)
		if err == io.EOF {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}

// size is that of all files at or below path.
func size(path string) (n int64, err error) {
	err = walk(path, func(_ string, fi os.FileInfo) { n += fi.Size() })
	return n, err
}

func walk(root string, visit func(path string, fi os.FileInfo)) error {
	return filepath.Walk(root, func(path string, fi os.FileInfo, err error) error {
		if err == nil && fi.Mode().IsRegular() {
			visit(path, fi)
		}
		return err
	})
}

func median(of []float64) float64 {
	of = slices.Sorted(slices.Values(of))
	if len(of) == 0 {
		return 0
	}
	return (of[len(of)/2] + of[(len(of)-1)/2]) / 2
}

// poll asks again and again, until it is so.
func poll(ctx context.Context, limit, pause time.Duration, is func() (bool, error)) error {
	end := time.After(limit)
	for {
		if ok, err := is(); ok || err != nil {
			return err
		}
		select {
		case <-time.After(pause):
		case <-end:
			return fmt.Errorf("not within %v", limit)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
