package cli

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"github.com/promdump/promdump/internal/restore"
	"github.com/promdump/promdump/internal/term"
	"github.com/promdump/promdump/internal/tsdbtest"
	"github.com/promdump/promdump/internal/wire"
)

// elsewhere is a RemoteTarget that records what is done to it.
type elsewhere struct {
	done   []string
	fails  map[string]error
	no     bool // what fails is a refusal
	settle *wire.Restored
	held   int
	is     Expected
	wal    bool // was sent
	target wire.Target
}

func (e *elsewhere) does(what string) error {
	e.done = append(e.done, what)
	return e.fails[what]
}

func (e *elsewhere) AddFlags(*pflag.FlagSet) {}

func (e *elsewhere) Find(context.Context, Asked) (FoundTarget, error) {
	return FoundTarget{Remote: e, Name: "mon/prom", Retention: -1}, e.does("find")
}

func (e *elsewhere) Inspect(context.Context) (*wire.Target, error) { return &e.target, nil }

func (e *elsewhere) MayReplace(_ context.Context, restart bool) (bool, error) {
	if restart {
		return e.no, e.does("may restart")
	}
	return e.no, e.does("may")
}

func (e *elsewhere) Apply(_ context.Context, job restore.Job, _ func(int64)) (*wire.Restored, error) {
	var ids []string
	for _, dir := range job.Dirs {
		name := filepath.Base(dir)
		e.wal = e.wal || job.Replace && name == "wal"
		if _, err := os.Stat(filepath.Join(dir, "meta.json")); err == nil {
			ids = append(ids, name)
		}
	}
	return &wire.Restored{Added: ids, Aside: "promdump-replaced-X", Held: e.held}, e.does("send")
}

func (e *elsewhere) Settle(ctx context.Context) (*wire.Restored, error) {
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return e.settle, e.does("settle")
}

func (e *elsewhere) Restart(context.Context) error { return e.does("restart") }
func (e *elsewhere) RestartCommand() string        { return "kubectl restart it" }
func (e *elsewhere) Discard(context.Context) error { return e.does("discard") }

func (e *elsewhere) Served(_ context.Context, is Expected) (string, error) {
	e.is = is
	return "", e.does("served")
}

func TestReplaceRemote(t *testing.T) {
	d := tsdbtest.Random(t, t.TempDir(), 3, tsdbtest.Options{Plain: true, Duration: 9 * time.Hour, Series: 24})
	file := filepath.Join(t.TempDir(), "dump.tar.gz")
	say := func(p Program, args ...string) (int, string, string) {
		var out, talk bytes.Buffer
		code := Run(t.Context(), p, args, term.Streams{In: strings.NewReader("y\n"), Out: &out, Err: &talk})
		return code, out.String(), talk.String()
	}
	if code, _, talk := say(Program{Name: "promdump", Data: &localDir{}}, "dump", "-d", d.Dir, "--min-time", "0", "--head=raw", "-t", file); code != 0 {
		t.Fatal(talk)
	}
	lost := errors.New("lost")
	const old = "01K0000000000000000000000B"
	for what, c := range map[string]struct {
		args   string
		here   elsewhere
		code   ExitCode
		done   string
		text   []string // of what is said
		absent string
	}{
		"restart": {args: "--yes --restart", here: elsewhere{held: 1}, done: "find, may restart, send, restart, served, discard",
			text: []string{"the head's files", "the server serves them", "→ mon/prom"}, absent: "restart it now"},
		"not held": {args: "--yes --restart", done: "find, may restart, send, restart, served, discard", text: []string{"could not be kept from writing"}},
		"no restart": {args: "--yes", here: elsewhere{held: 1}, done: "find, may, send, discard",
			text: []string{"note: the server still has the old files open and opens no others: restart it now: kubectl restart it"}},
		"nobody to ask": {code: Usage, text: []string{"--replace removes what the data dir holds, and there is nobody to ask", "--yes if that is meant"}},
		"dry run": {args: "--dry-run --restart", done: "find, may restart", absent: "→ mon/prom",
			text: []string{"To remove:", old + ", wal", "its files are put in place as they are", "Then the pod is deleted"}},
		"dry run, refused": {args: "--dry-run --restart", here: elsewhere{no: true, fails: map[string]error{"may restart": errors.New("it says no")}}, done: "find, may restart", absent: "Then the pod",
			text: []string{"To remove:", "Will be refused: it says no"}},
		"dry run, not known": {args: "--dry-run --restart", here: elsewhere{fails: map[string]error{"may restart": lost}}, code: Failed, done: "find, may restart", absent: "To remove:"},
		"refused":            {args: "--yes --restart", here: elsewhere{fails: map[string]error{"may restart": lost}}, code: Failed, done: "find, may restart"},
		"no room":            {args: "--yes", here: elsewhere{target: wire.Target{Free: 1000, Size: 1 << 40}}, code: Failed, done: "find, may", text: []string{"has 1000 B free", "--ignore-space"}},
		"restart fails": {args: "--yes --restart", here: elsewhere{held: 1, fails: map[string]error{"restart": lost}}, code: Failed, done: "find, may restart, send, restart",
			text: []string{"lost (the dump is in place, whole; what was there is in /data/promdump-replaced-X)", "restart the server now: kubectl restart it"}},
		"not served": {args: "--yes --restart", here: elsewhere{held: 1, fails: map[string]error{"served": lost}}, code: Failed, done: "find, may restart, send, restart, served",
			text: []string{"what was there is in /data/promdump-replaced-X", "until then it can be put back"}, absent: "restart the server now"},
		"answer lost, not done": {args: "--yes", here: elsewhere{fails: map[string]error{"send": lost}}, code: Failed, done: "find, may, send, settle",
			text: []string{"lost (mon/prom is as it was)"}},
		"answer lost, done": {args: "--yes", here: elsewhere{fails: map[string]error{"send": lost}, settle: &wire.Restored{Aside: "promdump-replaced-X"}}, code: Failed,
			done: "find, may, send, settle", text: []string{"the dump is in place, whole"}},
		"all is lost": {args: "--yes", here: elsewhere{fails: map[string]error{"send": lost, "settle": lost}}, code: Failed,
			done: "find, may, send, settle", text: []string{"is not known", "promdump.json"}},
		"the agent refuses": {args: "--yes", here: elsewhere{fails: map[string]error{"send": &wire.Failure{Text: "disk full"}}}, code: Failed,
			done: "find, may, send", text: []string{"disk full"}},
		"half-way before": {args: "--yes", here: elsewhere{held: 1, target: wire.Target{Aside: []wire.Aside{{Dir: "promdump-replaced-Y"}}}}, done: "find, may, send, discard",
			text: []string{"A restore --replace was killed half-way: the data dir's old contents are in /data/promdump-replaced-Y"}},
	} {
		t.Run(what, func(t *testing.T) {
			here := &c.here
			here.target.Exists, here.target.Live = true, true
			here.target.Dir, here.target.Writable, here.target.Own = "/data", true, []string{old, "wal"}
			here.target.Blocks = []wire.TargetBlock{{ULID: old, Meta: []byte(`{"ulid":"` + old + `","minTime":0,"maxTime":1,"version":1}`)}}
			if here.target.Size == 0 {
				here.target.Free, here.target.Size = 1<<40, 1<<40
			}
			code, out, talk := say(Program{Name: "x", Data: &localDir{}, Remote: here}, append([]string{"restore", "-t", file, "--replace"}, strings.Fields(c.args)...)...)
			if code != int(c.code) || strings.Join(here.done, ", ") != c.done {
				t.Errorf("exit %d, not %d; did %q, not %q", code, c.code, here.done, c.done)
			}
			for _, text := range c.text {
				if !strings.Contains(out+talk, text) {
					t.Errorf("it does not say %q", text)
				}
			}
			if c.absent != "" && strings.Contains(out+talk, c.absent) {
				t.Errorf("it says %q", c.absent)
			}
			if strings.Contains(c.done, "send") && !here.wal {
				t.Error("the head was not sent as it is")
			}
			if strings.Contains(c.done, "served") && (here.is.Series == 0 || len(here.is.Added) == 0 || len(here.is.Gone) != 1) {
				t.Errorf("it looks for %+v", here.is)
			}
			if t.Failed() {
				t.Log(out, talk)
			}
		})
	}
	for _, args := range []string{"--restart", "--replace --restart --no-wait", "--yes"} {
		if code, _, talk := say(Program{Name: "x", Data: &localDir{}, Remote: &elsewhere{}}, append([]string{"restore", "-t", file}, strings.Fields(args)...)...); code != int(Usage) {
			t.Errorf("%s: exit %d: %s", args, code, talk)
		}
	}
}
