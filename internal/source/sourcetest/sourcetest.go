// Package sourcetest is the suite that every kind of source passes: what a
// Prometheus serves from a dump that was made of it is what it serves from the
// data dir itself, restricted to the selection.
//
// A kind that cannot do something (remote read has no raw files) says so in
// [Kind] and is then held to refuse it, not to skip it.
package sourcetest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/promdump/promdump/internal/archive"
	"github.com/promdump/promdump/internal/dump"
	"github.com/promdump/promdump/internal/source"
	"github.com/promdump/promdump/internal/tsdbtest"
	"github.com/promdump/promdump/internal/wire"
)

// Kind is a kind of source.
type Kind struct {
	// Open makes a source of a data dir that a database has open. OpenDB is instead of
	// it for a kind that needs the database itself.
	Open   func(t *testing.T, dir string) source.Source
	OpenDB func(t *testing.T, db *tsdbtest.TSDB) source.Source

	// Refuses tells which requests the kind cannot do: these must be an error with the
	// exit code of a wrong command line, before anything is told. Nil: none.
	Refuses func(wire.Request) bool

	// Selections is how many random selections are tried on each of Seeds TSDBs;
	// defaults are 12 and 3.
	Selections, Seeds int

	// Stops is at how many messages of a story it is cancelled; default: at each.
	Stops int
}

// Run runs the suite.
func Run(t *testing.T, k Kind) {
	if k.Selections == 0 {
		k.Selections = 12
	}
	if k.Seeds == 0 {
		k.Seeds = 3
	}
	t.Run("serves the same", k.servesTheSame)
	t.Run("story", k.story)
	t.Run("empty", k.empty)
	t.Run("cancel", k.cancel)
	t.Run("inventory", k.inventory)
}

func (k Kind) open(t *testing.T, db *tsdbtest.TSDB) source.Source {
	if k.OpenDB != nil {
		return k.OpenDB(t, db)
	}
	return k.Open(t, db.Dir)
}

// refused reports whether the kind cannot do what is asked for, and holds it to say
// so.
func (k Kind) refused(t *testing.T, src source.Source, req wire.Request) bool {
	t.Helper()
	if k.Refuses == nil || !k.Refuses(req) {
		return false
	}
	req.Version = wire.Version
	for msg, err := range src.Read(t.Context(), req) {
		code, ok := errors.AsType[interface {
			error
			ExitCode() int
			Hint() string
		}](err)
		if msg != nil || !ok || code.ExitCode() != 2 || code.Hint() == "" {
			t.Fatalf("%+v is refused by %T, %v", req, msg, err)
		}
	}
	return true
}

// random is a TSDB of the seed; the seeds differ in kind too.
func random(t *testing.T, seed uint64) *tsdbtest.TSDB {
	return tsdbtest.Random(t, t.TempDir(), seed, tsdbtest.Options{StartTimestamps: seed%3 == 1, Plain: seed%3 == 2})
}

// file is an output that can be cut back, as a file can.
type file struct{ bytes.Buffer }

// Rewind implements archive.Rewinder.
func (f *file) Rewind(size int64) error {
	f.Truncate(int(size))
	return nil
}

// Dump makes a dump of the source and opens it into a directory.
func Dump(t *testing.T, src source.Source, req wire.Request) (dir string, report dump.Report, b []byte, err error) {
	t.Helper()
	var f file
	report, err = dump.Write(t.Context(), src, spec(t, req), &f)
	return opened(t, &f.Buffer, report, err)
}

// DumpToStream is Dump for an output that cannot be cut back.
func DumpToStream(t *testing.T, src source.Source, req wire.Request) (dir string, report dump.Report, b []byte, err error) {
	t.Helper()
	var buf bytes.Buffer
	report, err = dump.Write(t.Context(), src, spec(t, req), &buf)
	return opened(t, &buf, report, err)
}

func spec(t *testing.T, req wire.Request) dump.Spec {
	return dump.Spec{Request: req, Compression: archive.None, Staging: t.TempDir(), Tool: "sourcetest", Now: time.Unix(1, 0)}
}

func opened(t *testing.T, buf *bytes.Buffer, report dump.Report, err error) (string, dump.Report, []byte, error) {
	t.Helper()
	if err != nil {
		return "", report, buf.Bytes(), err
	}
	dir := t.TempDir()
	if _, _, err := archive.Extract(t.Context(), bytes.NewReader(buf.Bytes()), dir, nil); err != nil {
		t.Fatalf("the dump does not open: %v", err)
	}
	return dir, report, buf.Bytes(), nil
}

func (k Kind) servesTheSame(t *testing.T) {
	modes := []wire.Request{{Head: wire.HeadBlock}, {Head: wire.HeadBlock}, {Head: wire.HeadRaw}, {Head: wire.HeadBlock, WholeBlocks: true}}
	for seed := range uint64(k.Seeds) {
		tsdb := random(t, seed)
		src := k.open(t, tsdb)
		samples := 0
		for i, sel := range tsdb.Selections(seed, k.Selections) {
			req := modes[i%len(modes)]
			req.Selection = sel
			if k.refused(t, src, req) {
				continue
			}
			want := tsdbtest.Samples(t, tsdb.DB(), sel)
			dir, report, file, err := Dump(t, src, req)
			if _, ok := errors.AsType[*dump.EmptyError](err); ok {
				if want.Count() > 0 {
					t.Fatalf("seed %d, selection %d %+v: empty, want %d samples", seed, i, req, want.Count())
				}
				if len(file) > 0 {
					t.Fatalf("seed %d, selection %d: %d bytes of an empty dump", seed, i, len(file))
				}
				continue
			}
			if err != nil {
				t.Fatalf("seed %d, selection %d %+v: %v", seed, i, req, err)
			}
			served := sel
			exact := req.Head == wire.HeadBlock && !req.WholeBlocks
			if exact {
				// No more than was asked for, so everything is looked at.
				served = tsdbtest.Everything()
			}
			got := tsdbtest.SamplesDir(t, dir, served)
			if d := tsdbtest.Diff(want, got); d != "" {
				t.Fatalf("seed %d, selection %d %+v:\n%s", seed, i, req, d)
			}
			samples += got.Count()
			if exact && report.Samples < uint64(got.Count()) {
				t.Errorf("seed %d, selection %d: %d samples were reported, %d are served", seed, i, report.Samples, got.Count())
			}
			// The same again is the same to the byte.
			if _, _, again, err := Dump(t, src, req); err != nil || !bytes.Equal(file, again) {
				t.Fatalf("seed %d, selection %d: a second dump differs from the first (%d, %d bytes, %v)", seed, i, len(file), len(again), err)
			}
		}
		if samples == 0 {
			t.Errorf("seed %d: no selection took a sample", seed)
		}
	}
}

// story checks the order that wire.Message documents.
func (k Kind) story(t *testing.T) {
	tsdb := random(t, 1)
	src := k.open(t, tsdb)
	for _, head := range []wire.HeadMode{wire.HeadBlock, wire.HeadRaw, wire.HeadNone} {
		for i, sel := range tsdb.Selections(7, 6) {
			var state string
			files, series := uint64(0), uint64(0)
			next := map[string][]string{
				"":           {"plan"},
				"plan":       {"file", "blockStart", "headStart", "end"},
				"file":       {"file", "blockStart", "headStart", "end"},
				"blockStart": {"symbols", "series", "blockEnd"},
				"symbols":    {"symbols", "series", "blockEnd"},
				"series":     {"symbols", "series", "blockEnd"},
				"blockEnd":   {"file", "blockStart", "headStart", "end"},
				"headStart":  {"headChunks", "records", "headEnd"},
				"headChunks": {"headChunks", "records", "headEnd"},
				"records":    {"records", "headEnd"},
				"headEnd":    {"end"},
			}
			req := wire.Request{Version: wire.Version, Head: head, Selection: sel}
			if k.refused(t, src, req) {
				continue
			}
			for msg, err := range src.Read(t.Context(), req) {
				if err != nil {
					t.Fatalf("head %s, selection %d: %v", head, i, err)
				}
				name := nameOf(msg)
				if !slices.Contains(next[state], name) {
					t.Fatalf("head %s, selection %d: %s comes after %q", head, i, name, state)
				}
				state = name
				switch m := msg.(type) {
				case *wire.File:
					files++
					if n, err := io.Copy(io.Discard, m.Body); err != nil || n != m.Size {
						t.Fatalf("%s: %d bytes of %d, %v", m.Name, n, m.Size, err)
					}
				case *wire.BlockEnd:
					series += m.Series
				case *wire.End:
					if m.Files != files || m.Series != series {
						t.Errorf("end counts %d files and %d series, told were %d and %d", m.Files, m.Series, files, series)
					}
				}
			}
			if state != "end" {
				t.Fatalf("head %s, selection %d: the story stopped after %q", head, i, state)
			}
		}
	}
}

func nameOf(m wire.Message) string {
	switch m.(type) {
	case *wire.Plan:
		return "plan"
	case *wire.File:
		return "file"
	case *wire.BlockStart:
		return "blockStart"
	case *wire.Symbols:
		return "symbols"
	case *wire.Series:
		return "series"
	case *wire.BlockEnd:
		return "blockEnd"
	case *wire.HeadStart:
		return "headStart"
	case *wire.HeadChunks:
		return "headChunks"
	case *wire.Records:
		return "records"
	case *wire.HeadEnd:
		return "headEnd"
	}
	return "end"
}

func (k Kind) empty(t *testing.T) {
	tsdb := random(t, 2)
	src := k.open(t, tsdb)
	req := wire.Request{Head: wire.HeadBlock, Selection: wire.Selection{MinTime: tsdb.MaxTime + 1, MaxTime: tsdb.MaxTime + 1e6}}
	_, _, file, err := Dump(t, src, req)
	e, ok := errors.AsType[*dump.EmptyError](err)
	if !ok || len(file) > 0 {
		t.Fatalf("got %v and %d bytes", err, len(file))
	}
	if len(e.Plan.Blocks) == 0 || e.HeadMin > e.HeadMax || e.HeadMax > tsdb.MaxTime {
		t.Errorf("what there is: %d blocks, head %d to %d", len(e.Plan.Blocks), e.HeadMin, e.HeadMax)
	}
}

func (k Kind) cancel(t *testing.T) {
	tsdb := random(t, 0)
	src := k.open(t, tsdb)
	all := wire.Request{Version: wire.Version, Head: wire.HeadBlock, Selection: tsdbtest.Everything()}
	total := 0
	for msg, err := range src.Read(t.Context(), all) {
		if err != nil {
			t.Fatal(err)
		}
		drain(t, msg)
		total++
	}
	step := 1
	if k.Stops > 0 {
		step = max(total/k.Stops, 1)
	}
	for stop := 0; stop < total; stop += step {
		ctx, cancel := context.WithCancel(t.Context())
		n, failed := 0, error(nil)
		for msg, err := range src.Read(ctx, all) {
			if err != nil {
				failed = err
				break
			}
			if f, ok := msg.(*wire.File); ok {
				if _, failed = io.Copy(io.Discard, f.Body); failed != nil {
					break
				}
			}
			if n++; n > stop {
				cancel()
			}
		}
		cancel()
		// What was on its way may still come, but not the end of the story.
		if failed == nil && n < total {
			t.Fatalf("cancelled after message %d of %d: the story stopped without an error", stop+1, total)
		}
		// Leaving the loop is no error and leaves nothing open.
		for msg, err := range src.Read(t.Context(), all) {
			if err != nil {
				t.Fatal(err)
			}
			drain(t, msg)
			break
		}
	}
	if n := openFiles(t, tsdb.Dir); n > 0 {
		t.Errorf("%d files of the data dir are still open", n)
	}
}

func drain(t *testing.T, m wire.Message) {
	if f, ok := m.(*wire.File); ok {
		if _, err := io.Copy(io.Discard, f.Body); err != nil {
			t.Fatal(err)
		}
	}
}

// openFiles counts this process' open block files below dir; the database has
// its own open by mapping, not by handle.
func openFiles(t *testing.T, dir string) int {
	t.Helper()
	handles, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Logf("open files are not counted here: %v", err)
		return 0
	}
	n := 0
	for _, h := range handles {
		name, err := os.Readlink(filepath.Join("/proc/self/fd", h.Name()))
		if rel, relErr := filepath.Rel(dir, name); err == nil && relErr == nil && filepath.IsLocal(rel) && filepath.Base(name) == "meta.json" {
			n++
		}
	}
	return n
}

func (k Kind) inventory(t *testing.T) {
	tsdb := random(t, 0)
	inv, err := k.open(t, tsdb).Inventory(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]uint64{}
	for _, b := range tsdb.DB().Blocks() {
		want[b.Meta().ULID.String()] = b.Meta().Stats.NumSamples
	}
	got := map[string]uint64{}
	for _, b := range inv.Blocks {
		got[b.ULID] = b.Samples
		if b.Bytes == 0 {
			t.Errorf("block %s has no bytes", b.ULID)
		}
	}
	if len(want) == 0 || len(got) != len(want) {
		t.Errorf("blocks %v, want %v", got, want)
	}
	for id, n := range want {
		if got[id] != n {
			t.Errorf("block %s has %d samples, want %d", id, got[id], n)
		}
	}
	if inv.Head.Series == 0 || inv.Head.MaxTime != tsdb.MaxTime || inv.Head.MinTime > inv.Head.MaxTime {
		t.Errorf("head: %+v, want samples up to %d", inv.Head, tsdb.MaxTime)
	}
}
