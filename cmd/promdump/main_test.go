package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/promdump/promdump/internal/tsdbtest"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"promdump": main})
}

// TestScripts runs testdata/*.txtar, each with one feature, with main in a separate process.
func TestScripts(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	db := tsdbtest.Random(t, data, 1, tsdbtest.Options{Series: 24, Interval: 2 * time.Minute, Duration: 9 * time.Hour})
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	stamp := func(ms int64) string { return strconv.FormatInt(ms, 10) }
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			e.Setenv("TMPDIR", filepath.Join(e.WorkDir, "tmp"))
			e.Setenv("MIN", stamp(db.MinTime))
			e.Setenv("MAX", stamp(db.MaxTime))
			e.Setenv("MID", stamp((db.MinTime+db.MaxTime)/2))
			return os.Mkdir(filepath.Join(e.WorkDir, "tmp"), 0o777)
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			// tsdb DIR [all|blocks|head]: creates a small real data directory, or a part of it.
			"tsdb": func(ts *testscript.TestScript, _ bool, args []string) {
				dir := ts.MkAbs(args[0])
				ts.Check(tsdbtest.CopyDir(dir, data))
				kind := append(args, "all")[1]
				entries, err := os.ReadDir(dir)
				ts.Check(err)
				for _, e := range entries {
					block := len(e.Name()) == 26
					if kind == "blocks" && !block || kind == "head" && block {
						ts.Check(os.RemoveAll(filepath.Join(dir, e.Name())))
					}
				}
			},
			// future DIR: creates a head with samples at implausible times.
			"future": func(ts *testscript.TestScript, _ bool, args []string) {
				db, err := tsdb.Open(ts.MkAbs(args[0]), nil, nil, tsdb.DefaultOptions(), nil)
				ts.Check(err)
				for i, at := range []int64{-62167219200001, -1, 1795478400000, 4102444800000, 253402300800000, 1795478400000000000} {
					a := db.Appender(context.Background())
					_, err := a.Append(0, labels.FromStrings("__name__", "skewed", "n", strconv.Itoa(i)), at, float64(i))
					ts.Check(errors.Join(err, a.Commit()))
				}
				ts.Check(db.Close())
			},
			// break DIR FILE [all]: truncates this file of the first block, or of all, to 0 bytes.
			"break": func(ts *testscript.TestScript, _ bool, args []string) {
				files, err := filepath.Glob(filepath.Join(ts.MkAbs(args[0]), "*", args[1]))
				ts.Check(err)
				if len(args) < 3 {
					files = files[:1]
				}
				for _, f := range files {
					ts.Check(os.Truncate(f, 0))
				}
			},
			// big DIR: enlarges a chunk file of the first block, so that compressing it takes many
			// seconds.
			"big": func(ts *testscript.TestScript, _ bool, args []string) {
				files, err := filepath.Glob(filepath.Join(ts.MkAbs(args[0]), "*", "chunks", "000001"))
				ts.Check(err)
				ts.Check(os.Truncate(files[0], 40<<30))
			},
			// exits CODE PROGRAM ARG…: runs a program and checks its exit code.
			"exits": func(ts *testscript.TestScript, _ bool, args []string) {
				want(ts, args[0], ts.Exec(args[1], args[2:]...))
			},
			// powerless CODE PROGRAM ARG…: like exits, without the capabilities of root.
			"powerless": func(ts *testscript.TestScript, _ bool, args []string) {
				if os.Geteuid() == 0 {
					want(ts, args[0], ts.Exec("setpriv", append([]string{"--bounding-set=-all", "--inh-caps=-all"}, args[1:]...)...))
					return
				}
				want(ts, args[0], ts.Exec(args[1], args[2:]...))
			},
			// interrupt SIGNAL CODE GLOB PROGRAM ARG…: runs a program, sends the signal when a file
			// matches GLOB, and checks the exit code. Stdin is a pipe without a writer's data, stdout
			// one that is not read. stderr goes to the file stderr.txt.
			"interrupt": interrupt,
			// only DIR NAME…: checks that a directory has exactly these entries, also hidden ones.
			"only": func(ts *testscript.TestScript, _ bool, args []string) {
				entries, err := os.ReadDir(ts.MkAbs(args[0]))
				ts.Check(err)
				var names []string
				for _, e := range entries {
					names = append(names, e.Name())
				}
				if got, want := strings.Join(names, " "), strings.Join(args[1:], " "); got != want {
					ts.Fatalf("%s has %q, want %q", args[0], got, want)
				}
			},
			// truncate FILE N: removes N bytes at the end.
			"truncate": func(ts *testscript.TestScript, _ bool, args []string) {
				fi, err := os.Stat(ts.MkAbs(args[0]))
				ts.Check(err)
				n, err := strconv.ParseInt(args[1], 10, 64)
				ts.Check(err)
				ts.Check(os.Truncate(ts.MkAbs(args[0]), fi.Size()-n))
			},
			// flip FILE: flips a bit in the middle.
			"flip": func(ts *testscript.TestScript, _ bool, args []string) {
				b, err := os.ReadFile(ts.MkAbs(args[0]))
				ts.Check(err)
				b[len(b)/2] ^= 4
				ts.Check(os.WriteFile(ts.MkAbs(args[0]), b, 0o600))
			},
			// serves DIR DIR MIN MAX: checks that both data directories serve the same samples between
			// these times.
			"serves": func(ts *testscript.TestScript, _ bool, args []string) {
				sel := tsdbtest.Everything()
				var err error
				sel.MinTime, err = strconv.ParseInt(args[2], 10, 64)
				ts.Check(err)
				sel.MaxTime, err = strconv.ParseInt(args[3], 10, 64)
				ts.Check(err)
				a := tsdbtest.SamplesDir(t, ts.MkAbs(args[0]), sel)
				b := tsdbtest.SamplesDir(t, ts.MkAbs(args[1]), tsdbtest.Everything())
				if a.Count() == 0 {
					ts.Fatalf("%s serves nothing", args[0])
				}
				if d := tsdbtest.Diff(a, b); d != "" {
					ts.Fatalf("%s and %s differ: %s", args[0], args[1], d)
				}
			},
		},
	})
}

// want checks the exit code in the error of a command.
func want(ts *testscript.TestScript, code string, err error) {
	got := 0
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		got = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if strconv.Itoa(got) != code {
		ts.Fatalf("exit code %d, want %s", got, code)
	}
}

// interrupt implements the script command of this name.
func interrupt(ts *testscript.TestScript, _ bool, args []string) {
	signal := map[string]os.Signal{"INT": syscall.SIGINT, "TERM": syscall.SIGTERM, "KILL": syscall.SIGKILL}[args[0]]
	program := ""
	for _, dir := range filepath.SplitList(ts.Getenv("PATH")) {
		if p := filepath.Join(dir, args[3]); program == "" && exec.Command(p).Err == nil {
			if _, err := os.Stat(p); err == nil {
				program = p
			}
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args[4:]...)
	cmd.Dir = ts.MkAbs(".")
	cmd.Env = []string{"TMPDIR=" + ts.Getenv("TMPDIR")}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	in, silent, err := os.Pipe()
	ts.Check(err)
	unread, out, err := os.Pipe()
	ts.Check(err)
	defer in.Close()
	defer silent.Close()
	defer unread.Close()
	cmd.Stdin, cmd.Stdout = in, out
	err = cmd.Start()
	out.Close()
	ts.Check(err)
	for {
		found, err := filepath.Glob(ts.MkAbs(args[2]))
		ts.Check(err)
		if len(found) > 0 {
			break
		}
		if ctx.Err() != nil {
			_ = cmd.Wait()
			ts.Fatalf("no file matches %s: %s", args[2], &stderr)
		}
		time.Sleep(time.Millisecond) // polls for the file
	}
	ts.Check(cmd.Process.Signal(signal))
	err = cmd.Wait()
	ts.Check(os.WriteFile(ts.MkAbs("stderr.txt"), stderr.Bytes(), 0o600))
	want(ts, args[1], err)
}
