package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/promdump/promdump/e2e/internal/programs"
)

// live is a Prometheus that runs on a data dir of its own and that nobody asks
// anything but what is measured.
type live struct {
	b         *bench
	dir, base string
	cmd       *exec.Cmd
	stderr    bytes.Buffer
}

// server is what a dump takes of the container that the server is in: of the
// server itself, and of what runs beside it on the same limits. Remote read has
// only the former, its client is elsewhere. The agent's row is what exec runs
// there, less the compression of its frames; "promdump dump -d" is agent and client
// in one, so more than exec runs.
//
// The server's growth has pages of mapped blocks in it, which the kernel can take
// back: with a day they are most of it. And it lacks what fits into memory
// that the server's heap has to spare, some 10 MiB after a collection.
func (b *bench) server() []*task {
	s := &live{b: b, dir: filepath.Join(b.scratch, "live")}
	t := &task{name: "9 what the server feels", apart: true, setup: s.copy, cleanup: s.remove, table: containerTable}
	last := b.end.Add(90 * time.Minute) // of the head
	for _, r := range []struct {
		name     string
		from, to time.Time
	}{
		{"30 minutes", b.end.Add(-15 * time.Minute), b.end.Add(15 * time.Minute)},
		{"a day", last.Add(-24 * time.Hour), last},
	} {
		add := func(name string, once, fresh bool, run func(context.Context) (cost, error)) {
			t.ways = append(t.ways, &way{group: r.name, name: name, once: once, run: func(ctx context.Context) (cost, error) { return s.feels(ctx, fresh, run) }})
		}
		span := []string{"--min-time", ms(r.from), "--max-time", ms(r.to)}
		dump := slices.Concat([]string{"dump", "-q"}, span)
		add("promdump dump --url (remote read)", false, true, func(ctx context.Context) (cost, error) {
			c, err := piped(ctx, b.promdump, append(dump, "--url", s.base)...)
			c.Elsewhere = true
			return c, err
		})
		add("promdump dump -d", false, false, func(ctx context.Context) (cost, error) {
			return piped(ctx, b.promdump, append(dump, "-d", s.dir)...)
		})
		add("agent", false, false, func(ctx context.Context) (cost, error) {
			c, _, err := helper(ctx, b.agent, "-dir", s.dir, "-min", ms(r.from), "-max", ms(r.to), "-head", "block")
			return c, err
		})
		if r.name == "a day" {
			continue // text of a day: promtool needs half an hour for it
		}
		add("promtool tsdb dump-openmetrics", true, false, func(ctx context.Context) (cost, error) {
			sandbox, err := b.fresh("sandbox")
			if err != nil {
				return cost{}, err
			}
			return piped(ctx, b.promtool, slices.Concat([]string{"tsdb", "dump-openmetrics", "--sandbox-dir-root=" + sandbox}, span, []string{s.dir})...)
		})
	}
	return []*task{t}
}

// copy makes the server's data dir. It never writes into a block's files, so
// these are links; to its WAL and head chunks it does.
func (s *live) copy(context.Context) error {
	return filepath.Walk(s.b.data, func(path string, fi os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(s.b.data, path)
		if err != nil {
			return err
		}
		to := filepath.Join(s.dir, rel)
		switch top, _, _ := strings.Cut(rel, string(filepath.Separator)); {
		case fi.IsDir():
			return os.MkdirAll(to, 0o777)
		case top == "wal" || top == "chunks_head":
			data, err := os.Open(path)
			if err != nil {
				return err
			}
			defer data.Close()
			f, err := os.Create(to)
			if err != nil {
				return err
			}
			_, err = io.Copy(f, data)
			return errors.Join(err, f.Close())
		case top == "lock" || top == "queries.active":
			return nil
		default:
			return os.Link(path, to)
		}
	})
}

// start starts the server and waits until it is ready and has calmed down.
func (s *live) start(ctx context.Context) error {
	bin, err := programs.Prometheus("prometheus")
	if err != nil {
		return err
	}
	base, args, err := s.b.serving(s.dir)
	if err != nil {
		return err
	}
	// Without the last flag it would make larger blocks of ours, and we measure that.
	s.base, s.cmd = base, exec.CommandContext(ctx, bin, append(args, "--storage.tsdb.max-block-duration=2h")...)
	s.stderr.Reset()
	s.cmd.Stderr = &s.stderr
	if err := s.cmd.Start(); err != nil {
		s.cmd = nil
		return err
	}
	if err := poll(ctx, 5*time.Minute, 20*time.Millisecond, func() (bool, error) { return get(base+"/-/ready") == nil, nil }); err != nil {
		return fmt.Errorf("the server is not ready: %w\n%s", err, s.stderr.String())
	}
	// What the replay of the WAL left behind would hide what comes: it goes first.
	if err := get(base + "/debug/pprof/heap?gc=1"); err != nil {
		return err
	}
	var before usage
	return poll(ctx, time.Minute, time.Second, func() (bool, error) {
		u, err := s.usage()
		calm := u.cpu-before.cpu < 0.02 && max(u.rss-before.rss, before.rss-u.rss) < 1<<20
		before = u
		return calm, err
	})
}

func (s *live) remove() error { return errors.Join(s.stop(), os.RemoveAll(s.dir)) }

func (s *live) stop() error {
	if s.cmd == nil {
		return nil
	}
	cmd := s.cmd
	s.cmd = nil
	err := cmd.Process.Signal(syscall.SIGTERM)
	if err = errors.Join(err, cmd.Wait()); err != nil {
		return fmt.Errorf("the server: %w\n%s", err, s.stderr.String())
	}
	return nil
}

// feels runs a way and adds what it cost the server. One that has answered before
// has the blocks' pages mapped and memory to spare: who asks it gets a fresh one.
func (s *live) feels(ctx context.Context, fresh bool, run func(context.Context) (cost, error)) (cost, error) {
	if fresh {
		if err := s.stop(); err != nil {
			return cost{}, err
		}
	}
	if s.cmd == nil {
		if err := s.start(ctx); err != nil {
			return cost{}, err
		}
	}
	// 5 makes the peak what is resident now: proc_pid_clear_refs(5).
	if err := os.WriteFile(s.proc("clear_refs"), []byte("5"), 0); err != nil {
		return cost{}, err
	}
	before, err := s.usage()
	if err != nil {
		return cost{}, err
	}
	c, err := run(ctx)
	if err != nil {
		return c, err
	}
	after, err := s.usage()
	c.ServerCPU, c.ServerRSS = after.cpu-before.cpu, max(0, after.peak-before.rss)
	return c, err
}

func (s *live) proc(file string) string {
	return fmt.Sprintf("/proc/%d/%s", s.cmd.Process.Pid, file)
}

// usage is what a process has used: seconds, and bytes that are resident, mapped
// files included.
type usage struct {
	cpu       float64
	rss, peak int64
}

func (s *live) usage() (u usage, err error) {
	stat, err := os.ReadFile(s.proc("stat"))
	if err != nil {
		return u, err
	}
	// The name, in brackets, may have blanks in it; user and system are 12th and
	// 13th after it, in ticks, of which Linux shows 100 a second.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 13 {
		return u, fmt.Errorf("%s: %q", s.proc("stat"), stat)
	}
	for _, f := range fields[11:13] {
		ticks, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return u, err
		}
		u.cpu += float64(ticks) / 100
	}
	status, err := os.ReadFile(s.proc("status"))
	if err != nil {
		return u, err
	}
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(line, ":")
		for want, into := range map[string]*int64{"VmRSS": &u.rss, "VmHWM": &u.peak} {
			if name == want {
				if _, err := fmt.Sscanf(value, "%d kB", into); err != nil {
					return u, fmt.Errorf("%s: %w", line, err)
				}
				*into <<= 10
			}
		}
	}
	if u.rss == 0 || u.peak == 0 {
		return u, fmt.Errorf("%s: no VmRSS or VmHWM", s.proc("status"))
	}
	return u, nil
}
