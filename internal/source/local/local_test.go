package local_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"iter"
	"testing"

	"github.com/promdump/promdump/internal/source"
	"github.com/promdump/promdump/internal/source/local"
	"github.com/promdump/promdump/internal/source/sourcetest"
	"github.com/promdump/promdump/internal/tsdbtest"
	"github.com/promdump/promdump/internal/wire"
)

func open(_ *testing.T, dir string) source.Source { return local.New(dir, local.Options{}) }

func TestSource(t *testing.T) {
	sourcetest.Run(t, sourcetest.Kind{Open: open})
}

// framed is a source whose story goes through the wire format, as a pod's does.
type framed struct{ source.Source }

func (f framed) Read(ctx context.Context, req wire.Request) iter.Seq2[wire.Message, error] {
	return func(yield func(wire.Message, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		in, out := io.Pipe()
		done := make(chan struct{})
		defer func() {
			cancel()
			in.Close()
			<-done
		}()
		go func() {
			defer close(done)
			out.CloseWithError(f.send(ctx, req, out))
		}()
		for msg, err := range wire.NewReader(in).All() {
			if err != nil && ctx.Err() != nil {
				err = ctx.Err()
			}
			if !yield(msg, err) {
				return
			}
		}
	}
}

func (f framed) send(ctx context.Context, req wire.Request, out io.Writer) error {
	w, err := wire.NewWriter(out, wire.Zstd)
	if err != nil {
		return err
	}
	for msg, err := range f.Source.Read(ctx, req) {
		if err != nil {
			return err
		}
		if err := w.Write(msg); err != nil {
			return err
		}
	}
	return w.Flush()
}

func TestFramedSource(t *testing.T) {
	sourcetest.Run(t, sourcetest.Kind{
		Open:       func(t *testing.T, dir string) source.Source { return framed{open(t, dir)} },
		Selections: 8, Seeds: 1,
	})
}

// What goes through the wire makes the same dump, to the byte.
func TestFramedIsTheSame(t *testing.T) {
	tsdb := tsdbtest.Random(t, t.TempDir(), 11, tsdbtest.Options{})
	for i, sel := range tsdb.Selections(1, 6) {
		req := wire.Request{Head: []wire.HeadMode{wire.HeadBlock, wire.HeadRaw}[i%2], Selection: sel}
		_, _, direct, err1 := sourcetest.Dump(t, open(t, tsdb.Dir), req)
		_, _, wired, err2 := sourcetest.Dump(t, framed{open(t, tsdb.Dir)}, req)
		if (err1 == nil) != (err2 == nil) || !bytes.Equal(direct, wired) {
			t.Errorf("selection %d: %d and %d bytes, %v, %v", i, len(direct), len(wired), err1, err2)
		}
	}
}

func TestRefusals(t *testing.T) {
	tsdb := tsdbtest.Random(t, t.TempDir(), 3, tsdbtest.Options{Plain: true})
	good := wire.Request{Version: wire.Version, Head: wire.HeadNone, Selection: tsdbtest.Everything()}
	for what, change := range map[string]func(*wire.Request){
		"version":   func(r *wire.Request) { r.Version++ },
		"head":      func(r *wire.Request) { r.Head = "tail" },
		"range":     func(r *wire.Request) { r.Selection.MinTime, r.Selection.MaxTime = 2, 1 },
		"matcher":   func(r *wire.Request) { r.Selection.Matchers = [][]wire.Matcher{{{Type: "=~", Name: "a", Value: "("}}} },
		"no change": func(*wire.Request) {},
	} {
		req := good
		change(&req)
		var failed error
		for msg, err := range local.New(tsdb.Dir, local.Options{}).Read(t.Context(), req) {
			if failed = err; err == nil {
				if f, ok := msg.(*wire.File); ok {
					_, failed = io.Copy(io.Discard, f.Body)
				}
			}
		}
		if (failed != nil) != (what != "no change") {
			t.Errorf("%s: %v", what, failed)
		}
	}
	var none error
	for _, err := range local.New(t.TempDir(), local.Options{}).Read(t.Context(), good) {
		none = errors.Join(none, err)
	}
	if none == nil {
		t.Error("a directory without a TSDB was read")
	}
}
