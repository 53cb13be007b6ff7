package cli

import (
	"context"
	"errors"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/promdump/promdump/internal/source/local"
	"github.com/promdump/promdump/internal/term"
	"github.com/promdump/promdump/internal/tsdbtest"
	"github.com/promdump/promdump/internal/wire"
)

// fallenData is a data dir whose server falls: at the end of the dump, or in its middle.
type fallenData struct {
	localDir
	middle bool
}

func (d *fallenData) Open(context.Context, Asked) (Opened, error) {
	o := Opened{Source: local.New(d.path, local.Options{}), Kind: "exec", After: func(context.Context) error { return fallenError{} }}
	if d.middle {
		o.Source = &fallingSource{local.New(d.path, local.Options{})}
	}
	return o, nil
}

type fallingSource struct{ *local.Source }

func (s *fallingSource) Read(ctx context.Context, req wire.Request) iter.Seq2[wire.Message, error] {
	return func(yield func(wire.Message, error) bool) {
		files := 0
		for m, err := range s.Source.Read(ctx, req) {
			if _, ok := m.(*wire.File); ok {
				if files++; files == 4 {
					yield(nil, fallenError{})
					return
				}
			}
			if !yield(m, err) {
				return
			}
		}
	}
}

// fallenError is as [kube.RestartedError].
type fallenError struct{}

func (fallenError) Error() string {
	return "the Prometheus container restarted (OOMKilled) during the dump"
}
func (fallenError) ExitCode() int { return 3 }
func (fallenError) Hint() string  { return "wait until it serves again" }
func (fallenError) Stops() bool   { return true }

// A complete dump stays when its server fell at the end, and the exit code is not 0. What
// is incomplete stays beside its name. Both say first what happened to the server.
func TestServerFellDuringDump(t *testing.T) {
	dir := tsdbtest.Random(t, t.TempDir(), 3, tsdbtest.Options{Plain: true}).Dir
	for _, middle := range []bool{false, true} {
		file := filepath.Join(t.TempDir(), "dump.tar")
		var out, talk strings.Builder
		code := Run(t.Context(), Program{Name: "x", Data: &fallenData{localDir{path: dir}, middle}},
			[]string{"dump", "--min-time", "0", "--max-time", "now", "--whole-blocks", "--head", "none", "-t", file},
			term.Streams{In: strings.NewReader(""), Out: &out, Err: &talk})
		_, whole := os.Stat(file)
		_, part := os.Stat(partial(file))
		first := ""
		for line := range strings.Lines(talk.String()) {
			if strings.HasPrefix(line, "x: ") {
				first = line
			}
		}
		if !strings.HasPrefix(first, "x: the Prometheus container restarted (OOMKilled) during the dump; ") {
			t.Errorf("middle %v: first %q in %s", middle, first, talk.String())
		}
		switch {
		case middle && (code != int(Incomplete) || whole == nil || part != nil || !strings.Contains(talk.String(), "hint: wait until it serves again; then the same command with --resume")):
			t.Errorf("exit %d, %v, %v: %s", code, whole, part, talk.String())
		case !middle && (code != int(Failed) || whole != nil || !errors.Is(part, os.ErrNotExist) || !strings.Contains(first, "dump.tar is complete") || !strings.Contains(talk.String(), "dumped ")):
			t.Errorf("exit %d, %v, %v: %s", code, whole, part, talk.String())
		}
		if code := Run(t.Context(), Promdump(), []string{"verify", file}, term.Streams{In: strings.NewReader(""), Out: &out, Err: &talk}); !middle && code != 0 {
			t.Errorf("verify: exit %d: %s%s", code, out.String(), talk.String())
		}
	}
}
